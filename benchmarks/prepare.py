"""Preparation of pairs from gz shards: another revision of this project, one worker and two workers compared.

    python -m benchmarks.prepare --data ../shared/data/alpaca_eval_pairs.jsonl.gz --pairs 100000 --against 28b23c3

The shards contain variants of the file's pairs without duplicates. Each way runs in its own process tree; the order is
reversed in every second round. Seconds are those of `prepare_pairs`, including the start of workers but not of Ray.
Memory is the peak PSS of all processes, sampled five times a second. All ways must write the same bytes. Linux only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.memory import pss_gib
from benchmarks.synthesis_revisions import ROOT, export

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """Results of one run."""

    rate: float  # pairs per second
    peak: float  # GiB
    hashes: dict[str, str]  # content hash by split, and the rejected rows


def write_shards(data: Path, number: int, files: int, folder: Path) -> None:
    """Write `number` pairs: the file repeated, each time with other ids and one changed word in every text."""
    with gzip.open(data, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]

    def variant(text: str, turn: int) -> str:
        words = text.split(" ")
        words[turn % len(words)] = f"{words[turn % len(words)]}{turn}"
        return " ".join(words)

    for file in range(files):
        with gzip.open(folder / f"pairs-{file:03d}.jsonl.gz", "wt", encoding="utf-8", compresslevel=6) as out:
            for index in range(file, number, files):
                row, turn = rows[index % len(rows)], index // len(rows)
                texts = {name: variant(row[name], turn) for name in ("prompt", "chosen", "rejected")}
                out.write(json.dumps({**row, **texts, "id": f"{index}"}, ensure_ascii=False) + "\n")


def serve(shards: Path, output: Path, workers: int, values: Mapping[str, Any]) -> None:
    """Prepare with the `mapl_ray` on the path, and print seconds, rows and hashes; 0 workers: without Ray."""
    from contextlib import nullcontext

    from mapl_ray.config import ClusterConfig, parse_config
    from mapl_ray.distributed.prepare import prepare_pairs
    from mapl_ray.distributed.runtime import ray_session

    config = parse_config(
        {"name": "run", "output_dir": str(output), "data": {"path": str(shards), **values}}, "benchmark"
    )
    with ray_session(ClusterConfig(num_cpus=workers), searches=False) if workers else nullcontext():
        started = time.monotonic()
        manifests = prepare_pairs(config)
        seconds = time.monotonic() - started
    rejected = "".join(file.read_text() for file in sorted((output / "run" / "pairs").rglob("rejected-*.jsonl")))
    hashes = {split: manifest.content_hash for split, manifest in manifests.items()} | {"rejected": rejected}
    rows = sum(manifest.input_rows for manifest in manifests.values())
    print(json.dumps({"seconds": seconds, "rows": rows, "hashes": hashes}), flush=True)


def measure(root: Path, shards: Path, workers: int, values: str) -> Outcome:
    """One run of the revision under `root`."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--serve", str(shards), "--output", folder, "--workers", str(workers), "--values", values]
        with (Path(folder) / "out").open("w") as out, (Path(folder) / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), *words],
                env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{ROOT}"},
                cwd=root,
                stdout=out,
                stderr=err,
            )
            tree, peak = psutil.Process(process.pid), 0.0
            while process.poll() is None:
                peak = max(peak, pss_gib(tree))
                time.sleep(_LOOK_SECONDS)
        if process.returncode:
            sys.exit((Path(folder) / "err").read_text()[-3000:])
        found = json.loads((Path(folder) / "out").read_text().splitlines()[-1])
    return Outcome(found["rows"] / found["seconds"], peak, found["hashes"])


def one_round(roots: Mapping[str, tuple[Path, int]], shards: Path, values: str, number: int) -> dict[str, Outcome]:
    """Run every way once and print its results; fail if two ways write different bytes."""
    found: dict[str, Outcome] = {}
    for name in list(roots)[:: 1 if number % 2 else -1]:
        root, workers = roots[name]
        found[name] = measure(root, shards, workers, values)
        print(f"{name}: {found[name].rate:.0f} pairs/s, peak {found[name].peak:.2f} GiB", flush=True)
    hashes = [one.hashes for one in found.values()]
    assert all(one == hashes[0] for one in hashes), "the ways wrote different bytes"
    return found


def main() -> None:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--against", help="the other revision (optional)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--values", default="{}", help="values of the config's section `data`, as JSON")
    for name in ("--serve", "--output"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        serve(args.serve, args.output, args.workers, json.loads(args.values))
        return
    with tempfile.TemporaryDirectory() as folder:
        shards, other = Path(folder) / "shards", Path(folder) / "other"
        shards.mkdir()
        other.mkdir()
        write_shards(args.data.resolve(), args.pairs, args.files, shards)
        ways = {"one worker": (ROOT, 1), "two workers": (ROOT, 2)}
        if args.against is not None:
            export(args.against, other)
            ways = {args.against: (other, 0), **ways}
        rounds = [one_round(ways, shards, args.values, number) for number in range(args.rounds)]
    print("\n| way | pairs/s, median | peak GiB of all processes, most |\n|---|---|---|")
    for name in ways:
        rates, peaks = [one[name].rate for one in rounds], [one[name].peak for one in rounds]
        print(f"| {name} | {statistics.median(rates):.0f} | {max(peaks):.2f} |")
    for first, second in (("two workers", "one worker"), ("one worker", args.against)):
        if second in ways:
            ratios = [one[first].rate / one[second].rate for one in rounds]
            print(f"{first} over {second}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
