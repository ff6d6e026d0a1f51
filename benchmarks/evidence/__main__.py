"""`python -m benchmarks.evidence --data PAIRS --output DIR`: run the experiment, then write its document."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.evidence.arms import ARMS, BY_NAME
from benchmarks.evidence.document import write_document
from benchmarks.evidence.experiment import Experiment
from benchmarks.evidence.scale import SCALES
from benchmarks.evidence.summary import summarise
from mapl_ray.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment. Exit code: 0 done, 2 user error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the AlpacaEval pairs, .jsonl.gz")
    parser.add_argument("--output", type=Path, required=True, help="output folder; finished runs in it are skipped")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", choices=sorted(SCALES), default="cpu")
    parser.add_argument("--minutes", type=float, help="scale the number of steps to about this total time")
    parser.add_argument("--only", nargs="+", choices=[arm.name for arm in ARMS], metavar="ARM", help="only these arms")
    parser.add_argument("--doc", type=Path, help="write the document and its plots from the finished runs")
    given = parser.parse_args(arguments)
    scale = SCALES[given.scale]
    if given.minutes is not None:
        scale = scale.within(given.minutes)
    arms = ARMS if given.only is None else tuple(BY_NAME[name] for name in given.only)
    try:
        experiment = Experiment(given.data, given.output, scale, tuple(given.seeds), arms)
        prepared = experiment.run()
        if given.doc is not None:
            write_document(summarise(experiment, prepared), given.doc)
            print(f"written: {given.doc}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
