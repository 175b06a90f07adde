"""The fresh process of one contender: `python -m benchmarks.contender MODULE MEASURE CONTENDER FILE`."""

import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    module, measure_name, contender, path = sys.argv[1:]
    measures = importlib.import_module(module).MEASURES
    measure = next(measure for measure in measures if measure.name == measure_name)
    Path(path).write_text(json.dumps(measure.contenders[contender]()))


if __name__ == "__main__":
    main()
