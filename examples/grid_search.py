"""A grid search over a support vector machine, cross-validated on the handwritten digits that scikit-learn brings.

Look at `fit.starmap`: one input is one fit, so a slow setting holds up nobody, and results come in the order of the
inputs. Containers import scikit-learn once between them. Needs the extra `examples`.
"""

import itertools
import statistics
import time

from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

import upswell as modal

app = modal.App("grid-search")
PENALTIES = [0.1, 1.0, 10.0, 100.0]
GAMMAS = [0.0001, 0.0005, 0.002, 0.01]


@app.function()
def fit(penalty: float, gamma: float, fold: int, folds: int) -> tuple[float, float]:
    """Return the accuracy on the fold that was left out, and the seconds of computing it took."""
    began = time.process_time()
    images, digits = load_digits(return_X_y=True)
    training, testing = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(images, digits))[fold]
    model = SVC(C=penalty, gamma=gamma).fit(images[training], digits[training])
    return float(model.score(images[testing], digits[testing])), time.process_time() - began


@app.local_entrypoint()
def main(folds: int = 3):
    settings = list(itertools.product(PENALTIES, GAMMAS))
    began = time.perf_counter()
    fits = list(
        fit.starmap(((*setting, fold) for setting in settings for fold in range(folds)), kwargs={"folds": folds})
    )
    seconds = time.perf_counter() - began

    scores = iter(score for score, _ in fits)
    accuracy = {setting: statistics.mean(itertools.islice(scores, folds)) for setting in settings}
    best = max(accuracy, key=accuracy.__getitem__)
    print("accuracy" + "".join(f"{f'gamma={gamma:g}':>14}" for gamma in GAMMAS))
    for penalty in PENALTIES:
        cells = (f"{accuracy[penalty, gamma]:.1%}{'*' if (penalty, gamma) == best else ' '}" for gamma in GAMMAS)
        print(f"C={penalty:<6g}" + "".join(f"{cell:>14}" for cell in cells))
    print(f"best: C={best[0]:g}, gamma={best[1]:g}, {accuracy[best]:.1%} of {len(load_digits().target):,} digits")
    computed = [spent for _, spent in fits]
    print(f"{len(fits)} fits of {min(computed):.2f} to {max(computed):.2f} s each, {seconds:.1f} s together")
