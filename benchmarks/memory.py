"""Peak memory of a synthesis run, including Ray, for several input sizes. It must not grow with the input.

    python benchmarks/memory.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --pairs 50000 200000 1000000

Memory is the sum of the proportional set sizes (PSS) of the run's process tree, sampled twice a second. Shared pages
are counted once. Linux only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def write_pairs(data: str, number: int, path: Path) -> None:
    """Write `number` distinct pairs: the file repeated, each time with other ids and another last word."""
    opener = gzip.open if data.endswith(".gz") else open
    with opener(data, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    with path.open("w", encoding="utf-8") as out:
        for index in range(number):
            row = rows[index % len(rows)]
            if isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
                turn = index // len(rows)
                texts = {side: f"{row[side]} {turn}" for side in ("chosen", "rejected")}
                row = {"id": f"{index}", "prompt": f"{row['prompt']} ({turn})", **texts}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def pss_gib(process: psutil.Process) -> float:
    """PSS of a process and all its children, in GiB; processes that end meanwhile count as 0."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            found = _PSS.search(Path(f"/proc/{member.pid}/smaps_rollup").read_text())
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total / 2**20


def measure(source: Path, output: Path) -> tuple[float, float]:
    """Peak memory (GiB) and seconds of one run."""
    words = ["synthesize", f"data.path={source}", f"output_dir={output}", "name=run", "cluster.num_cpus=2"]
    started, peak = time.monotonic(), 0.0
    with (output / "log").open("wb") as log:
        run = subprocess.Popen([sys.executable, "-m", "mapl_ray.cli", *words], stdout=log, stderr=log, env=os.environ)
        process = psutil.Process(run.pid)
        while run.poll() is None:
            peak = max(peak, pss_gib(process))
            time.sleep(0.5)
    if run.returncode:
        sys.exit((output / "log").read_text()[-3000:])
    return peak, time.monotonic() - started


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, nargs="+", default=[50_000, 200_000])
    args = parser.parse_args()
    print("| pairs | input, GiB | peak memory, GiB | seconds |\n|---|---|---|---|", flush=True)
    for number in args.pairs:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "pairs.jsonl"
            write_pairs(args.data, number, source)
            peak, seconds = measure(source, Path(folder))
            size = source.stat().st_size / 2**30
            print(f"| {number} | {size:.2f} | {peak:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
