"""Synthesis throughput of two revisions of this project: CPU seconds of one process each, in turn.

    python benchmarks/synthesis_revisions.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --against 38a2e67

The other revision is exported from git. Each revision runs in its own process on every 7th pair of the file, in turns
of 23 pairs. The order alternates, so that drifts of the machine's speed affect both. A rate is pairs per CPU second,
without imports and reading. Prints the medians of the rounds, and the median of their ratios.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 60  # pairs
TURN = 23  # pairs


def serve(data: Path, every: int) -> None:
    """Measure the `mapl_ray` on the path: read turn numbers from stdin, print CPU seconds and groups of each turn."""
    import mapl_ray
    from mapl_ray.config import SynthesisConfig
    from mapl_ray.synthesis import synthesize

    # Earlier revisions have the records elsewhere. Check the files, because an import could find an installed package.
    there = (Path(mapl_ray.__file__).parent / "data" / "records.py").is_file()
    records = import_module("mapl_ray.data.records" if there else "mapl_ray.records")
    with gzip.open(data, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    pairs = [
        records.PreferencePair(row["id"], (records.Message("user", row["prompt"]),), row["chosen"], row["rejected"], "")
        for row in rows
    ]
    config = SynthesisConfig()
    for pair in pairs[1 : WARM_UP * every : every]:
        synthesize(pair, config, 0)
    measured = pairs[::every]
    gc.disable()  # like `mapl synthesize` during a part
    print(len(measured), flush=True)
    for line in sys.stdin:
        turn = measured[int(line) * TURN :][:TURN]
        started = time.process_time()
        groups = [synthesize(pair, config, 0) for pair in turn]
        seconds = time.process_time() - started
        print(json.dumps([seconds, sum(isinstance(one, records.RelationGroup) for one in groups)]), flush=True)


class Revision:
    """A process that serves the revision under `root`."""

    def __init__(self, root: Path, data: Path, every: int) -> None:
        script = str(Path(__file__).resolve())
        self._process = subprocess.Popen(
            [sys.executable, script, "--data", str(data), "--every", str(every), "--serve"],
            env=os.environ | {"PYTHONPATH": str(root)},
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pairs = int(self._answer())

    def __enter__(self) -> Revision:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes stdin, which ends the process

    def turn(self, number: int) -> tuple[float, int]:
        """CPU seconds and number of groups of one turn."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        seconds, groups = json.loads(self._answer())
        return seconds, groups

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def one_round(revisions: Mapping[str, Revision], number: int) -> dict[str, float]:
    """Pairs per CPU second of each revision; prints them with the share of pairs that gave a group."""
    names = list(revisions)
    pairs = revisions[names[0]].pairs
    seconds, groups = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for turn in range(-(-pairs // TURN)):
        for name in names[:: 1 if (turn + number) % 2 else -1]:
            taken, made = revisions[name].turn(turn)
            seconds[name] += taken
            groups[name] += made
    for name in names:
        share = groups[name] / pairs
        print(f"{name}: {pairs / seconds[name]:.0f} pairs/s, groups for {share:.1%} of the pairs", flush=True)
    return {name: pairs / seconds[name] for name in names}


def export(revision: str, folder: Path) -> None:
    """Export the files of a revision to a folder."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def main() -> None:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--against", help="the other revision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=7, help="use every n-th pair of the file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    data = args.data.resolve()
    if args.serve:
        serve(data, args.every)
        return
    if args.against is None:
        parser.error("--against is required: give a revision")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        export(args.against, Path(folder))
        roots = {args.against: Path(folder), "this tree": ROOT}
        revisions = {name: stack.enter_context(Revision(root, data, args.every)) for name, root in roots.items()}
        rounds = [one_round(revisions, number) for number in range(args.rounds)]
    for name in roots:
        print(f"{name}: median {statistics.median(one[name] for one in rounds):.0f} pairs per CPU second")
    ratios = [one["this tree"] / one[args.against] for one in rounds]
    print(f"this tree over {args.against}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
