"""Synthesis of two revisions of this project, side by side: CPU seconds of one process, by turns.

    python benchmarks/synthesis_revisions.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --against 38a2e67

The other revision is exported from git. Each round runs both in processes of their own, on every 7th pair of the file,
the order swapped from round to round, so that a machine whose speed drifts treats both alike. A rate is pairs a CPU
second, imports and reading left out; printed are the medians, and the median of the rounds' ratios.
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
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 60  # pairs


def rate(data: Path, every: int) -> tuple[float, float]:
    """Pairs a CPU second of the `mapl_ray` on the path, and the share of pairs that give a group."""
    from mapl_ray.config import SynthesisConfig
    from mapl_ray.synthesis import synthesize

    records = _records()
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
    gc.disable()  # as `mapl synthesize` does while it makes a part
    started = time.process_time()
    groups = [synthesize(pair, config, 0) for pair in measured]
    seconds = time.process_time() - started
    return len(measured) / seconds, sum(isinstance(group, records.RelationGroup) for group in groups) / len(groups)


def _records() -> ModuleType:
    """The module of the records; earlier revisions have it in another place."""
    try:
        return import_module("mapl_ray.data.records")
    except ModuleNotFoundError:
        return import_module("mapl_ray.records")


def in_a_process(root: Path, data: Path, every: int) -> tuple[float, float]:
    """`rate` of the revision under `root`."""
    command = [sys.executable, str(Path(__file__).resolve()), "--data", str(data), "--every", str(every), "--only-rate"]
    found = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(root)}, cwd=root, capture_output=True, text=True, check=True
    )
    pairs, share = json.loads(found.stdout)
    return pairs, share


def export(revision: str, folder: Path) -> None:
    """The files of a revision."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def main() -> None:
    """Measure by turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--against", help="the other revision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=7, help="which pairs of the file are taken")
    parser.add_argument("--only-rate", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    data = args.data.resolve()
    if args.only_rate:
        print(json.dumps(rate(data, args.every)))
        return
    if args.against is None:
        parser.error("--against: name a revision")
    with tempfile.TemporaryDirectory() as folder:
        export(args.against, Path(folder))
        roots = {args.against: Path(folder), "this tree": ROOT}
        rates: dict[str, list[float]] = {name: [] for name in roots}
        for number in range(args.rounds):
            for name in list(roots)[:: 1 if number % 2 else -1]:
                pairs, share = in_a_process(roots[name], data, args.every)
                rates[name].append(pairs)
                print(f"{name}: {pairs:.0f} pairs/s, groups for {share:.1%} of the pairs", flush=True)
    for name, found in rates.items():
        print(f"{name}: median {statistics.median(found):.0f} pairs a CPU second")
    ratios = [new / old for old, new in zip(rates[args.against], rates["this tree"], strict=True)]
    print(f"this tree over {args.against}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
