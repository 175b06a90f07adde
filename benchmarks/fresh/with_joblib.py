"""The smallest program that gets one result from joblib."""

from joblib import Parallel, delayed


def noop(x: int) -> int:
    return x


if __name__ == "__main__":
    print(Parallel(2)([delayed(noop)(1)])[0], flush=True)
