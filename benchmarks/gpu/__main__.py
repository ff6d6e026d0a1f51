"""Correctness, speed and memory on a GPU: eleven checks ("points") in about ten minutes on one card.

    python -m benchmarks.gpu --out DIR [--only F1 F3] [--page docs/gpu.md]
    python -m benchmarks.gpu --out DIR --rehearse      # tiny shapes on a CPU, to test these checks

Needs torch and transformers. Points that train are skipped if DeepSpeed is not installed. Neither Ray nor vLLM is
loaded. Every point writes a line to `DIR/gpu.jsonl` when it ends, with its figures or its error. A failed point does
not stop the others, but the exit code is 1. `--page` writes the page from the lines.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import attention, training
from benchmarks.gpu.material import Setting
from benchmarks.gpu.page import facts, page

POINTS = dict(sorted({**attention.POINTS, **training.POINTS}.items(), key=lambda item: int(item[0][1:])))
SECONDS = 120  # time limit of a point


def run_point(name: str, setting: Setting, seconds: int = SECONDS) -> dict[str, Any]:
    """Run a point; return its line with figures or error."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    began, line = time.perf_counter(), {"point": name, "what": (POINTS[name].__doc__ or "").split("\n")[0]}
    try:
        line |= {"ok": True, "figures": POINTS[name](setting)}
    except Exception as error:  # the next point must run in any case
        line |= {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        signal.alarm(0)
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
    return line | {"seconds": round(time.perf_counter() - began, 1)}


def main() -> int:
    """Run the points, and write the lines and, with `--page`, the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(POINTS), default=list(POINTS))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    if not args.rehearse and not torch.cuda.is_available():
        print("no CUDA device found. Use --rehearse to run tiny shapes on the CPU", file=sys.stderr)
        return 2
    setting = Setting("cpu", full=False) if args.rehearse else Setting("cuda", full=True)
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [{"facts": facts(setting)}]
    with (args.out / "gpu.jsonl").open("w", encoding="utf-8") as file:
        for name in (None, *args.only):
            if name is not None:
                lines.append(run_point(name, setting))
                print(json.dumps(lines[-1]), flush=True)
            file.write(json.dumps(lines[-1]) + "\n")
            file.flush()
    if args.page is not None:
        args.page.write_text(page(lines), encoding="utf-8")
    return int(not all(line.get("ok", True) for line in lines))


if __name__ == "__main__":
    raise SystemExit(main())
