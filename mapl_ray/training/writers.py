"""Metrics of a run: TensorBoard for curves, JSON lines for everything else, a line now and then for the eye."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from mapl_ray.records import LEVEL_FAMILIES


class MetricWriters:
    """One row a call; on a resumed run the rows after the checkpoint are dropped and written again."""

    def __init__(self, output_dir: Path, resumed_step: int, total_steps: int) -> None:
        self._path = output_dir / "metrics.jsonl"
        self._total_steps = total_steps
        output_dir.mkdir(parents=True, exist_ok=True)
        kept = _rows_until(self._path, resumed_step) if resumed_step else []
        self._path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._lines = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(output_dir / "tensorboard"), purge_step=resumed_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()
        self._board.close()

    def write(self, step: int, metrics: dict[str, float], show: bool = False) -> None:
        """Log after `step` steps; `show` prints a line as well."""
        self._lines.write(json.dumps({"step": step, **_finite(metrics)}) + "\n")
        self._lines.flush()
        for name, value in _finite(metrics).items():
            self._board.add_scalar(name if "/" in name else f"train/{name}", value, step)
        if show:
            print(f"  step {step}/{self._total_steps}  {line_of(metrics)}", flush=True)


def line_of(metrics: dict[str, float]) -> str:
    """The few numbers that tell how a run goes; held-out ones where there are any."""
    held_out = "eval/loss" in metrics
    prefix = "eval/" if held_out else ""
    words = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    words += [f"held-out: loss {metrics['eval/loss']:.3f}"] if held_out else []
    for level in LEVEL_FAMILIES:
        if (name := f"{prefix}rewards/accuracies/{level}") in metrics:
            words.append(f"{level} {metrics[name]:.3f}")
    words += [f"{metrics['tokens_per_second']:.0f} tokens/s"] if "tokens_per_second" in metrics else []
    return "  ".join(words)


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _rows_until(path: Path, step: int) -> list[dict[str, float]]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:  # a run that was killed leaves half a line
            continue
        if row.get("step", step + 1) <= step:
            rows.append(row)
    return rows
