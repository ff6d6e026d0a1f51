"""Metrics of a run: JSON lines always, the loggers that are asked for, and a line now and then for the eye."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mapl_ray.config import Method, TrainConfig
from mapl_ray.shards import json_lines, write_atomically
from mapl_ray.training.loggers import MetricLogger, open_logger
from mapl_ray.training.progress import ProgressDisplay


class MetricWriters:
    """One row a call; on a resumed run the rows after the checkpoint are dropped and written again."""

    def __init__(
        self, output_dir: Path, resumed_step: int, total_steps: int, config: TrainConfig, method: Method
    ) -> None:
        """Raises `UserError` for a logger that can't be opened."""
        self._path = output_dir / "metrics.jsonl"
        output_dir.mkdir(parents=True, exist_ok=True)
        kept = _rows_until(self._path, resumed_step) if resumed_step else []
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_atomically(self._path, lambda aside: aside.write_text(text, encoding="utf-8"))  # a disk may be full
        self._lines = self._path.open("a", encoding="utf-8")
        settings = {"method": method, **config.model_dump(mode="json")}
        self._loggers: dict[str, MetricLogger] = {
            name: open_logger(name, output_dir, resumed_step, settings) for name in config.loggers
        }
        self._display = ProgressDisplay(total_steps, resumed_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._display.close()
        self._lines.close()
        self._each(lambda logger: logger.close(failed=kind is not None))

    def write(self, step: int, metrics: Mapping[str, float], show: bool = False) -> None:
        """Log after `step` steps; `show` prints a line as well."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        self._each(lambda logger: logger.log(step, finite))
        self._display.update(step, metrics, show)

    def _each(self, act: Callable[[MetricLogger], None]) -> None:
        """A logger that fails is left out from there on: a server that is away must not end a run of days."""
        for name, logger in list(self._loggers.items()):
            try:
                act(logger)
            except Exception as error:  # each package has its own kinds
                del self._loggers[name]
                print(f"  {name} failed and is left out from here on; metrics.jsonl has it all: {error}", flush=True)


def _rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    rows = (row for row in json_lines(path) if row is not None)
    return [row for row in rows if isinstance(row.get("step"), int | float) and row["step"] <= step]
