"""Inject every fault that the system promises to survive, and write the page that reports the outcomes.

    python -m benchmarks.reliability --output docs/reliability.md
    python -m benchmarks.reliability --output docs/reliability.md --only driver-synthesis --rounds 5

Results are stored next to this file in `results.json`; running a fault again only replaces its own row. Exits with 1 if
a row of the page does not hold. Linux only. If a fault needs something else that is missing (root, `redis-server`), its
row says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.reliability.page import render
from benchmarks.reliability.registry import FAULTS
from benchmarks.reliability.runner import measure
from mapl_ray.data.shards import write_json

RESULTS = Path(__file__).with_name("results.json")


def results_so_far() -> dict[str, Any]:
    """The stored rows by fault name."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def main() -> int:
    """Run the requested faults one after another; write the page after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="the page to write")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*FAULTS], help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--rounds", type=int, help="how often each is done; else its own number")
    parser.add_argument("--data", default="demo", help="real pairs, as data.path; the shipped ones if not given")
    parser.add_argument("--keep", type=Path, help="a folder for the undisturbed runs, to be taken again next time")
    parser.add_argument("--page-only", action="store_true", help="write the page of what was measured before")
    args = parser.parse_args()
    shared = args.keep or Path(tempfile.mkdtemp(prefix="mapl-undisturbed-"))
    try:
        for name in () if args.page_only else args.only or FAULTS:
            print(f"== {name}", flush=True)
            row = measure(FAULTS[name], args.rounds, shared.resolve(), args.data)
            results = {**results_so_far(), name: row}  # read again: another process may have run other faults
            write_json(RESULTS, {known: results[known] for known in FAULTS if known in results})
            args.output.write_text(render(results), encoding="utf-8")
            print(json.dumps(row, indent=2, ensure_ascii=False), flush=True)
    finally:
        if args.keep is None:
            shutil.rmtree(shared, ignore_errors=True)
    results = results_so_far()
    args.output.write_text(render(results), encoding="utf-8")
    failed = [name for name in FAULTS if results.get(name, {}).get("holds") is False]
    missing = [name for name in FAULTS if name not in results]
    print(f"{len(FAULTS)} faults: {len(failed)} do not hold {failed}, {len(missing)} never done {missing}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
