"""What a run keeps of its best step, compared with exports of the moment, and when its weights are gathered."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.errors import RunError
from mapl_ray.training import loop
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.export import Exporter


@contextmanager
def best_watched(output: Path, scores: dict[str, float], die: str | None) -> Iterator[list[int]]:
    """Yields the steps after which the run itself gathers all weights.

    Each evaluation has the held-out accuracy that `scores` gives its step, and the model of that step is exported at
    once, to `now/STEP` and `now-adapter/STEP`. `die`: `export` ends the run where `best` is to be written, `result`
    where the result is.
    """
    gathers, at, own = list[int](), [0], [True]
    gather, new_best = Engine.full_state_dict, loop._new_best
    write, write_result = Exporter.write, loop._write_result

    def gathered(engine: Engine) -> Any:
        if own[0]:
            gathers.append(at[0])
        return gather(engine)

    def evaluated(run: Any, progress: Any) -> Any:
        at[0] = progress.done
        progress.metrics["eval/rewards/accuracies/pref"] = scores[str(progress.done)]
        own[0] = False
        folders = (output / name / str(progress.done) for name in ("now", "now-adapter"))
        write(run.exporter, *folders, progress.done, progress.metrics)
        own[0] = True
        return new_best(run, progress)

    def written(exporter: Exporter, directory: Path, *args: Any) -> None:
        if die == "export" and directory.name == "best":
            raise RunError("killed")
        write(exporter, directory, *args)

    def result_written(*args: Any) -> None:
        if die == "result":
            raise RunError("killed")
        write_result(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "full_state_dict", gathered)
        patch.setattr(Exporter, "write", written)
        patch.setattr(loop, "_new_best", evaluated)
        patch.setattr(loop, "_write_result", result_written)
        yield gathers
