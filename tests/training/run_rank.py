"""One rank of training runs, started by the tests: `run_rank.py SPECS.json`, or with a folder to take specs from.

A module of its own, because DeepSpeed takes one process per rank.
"""

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from best_watch import best_watched  # beside this script
from collective_bytes import counted_bytes
from first_step import first_step

from mapl_ray.config import ModelConfig, TrainConfig
from mapl_ray.errors import RunError, UserError
from mapl_ray.models import model_identity
from mapl_ray.training.deepspeed_engine import ensure_process_group
from mapl_ray.training.loop import train


def run(spec: dict[str, Any]) -> None:
    """Train as the spec says and leave the reports and the error, if any, beside the output.

    `first_step: true` in the spec: no training, but what `first_step` leaves. `scores`, `die`: see `best_watched`.
    """
    if spec.get("first_step"):
        ensure_process_group()
        first_step(spec)
        return
    output, reports, steps, sent = Path(spec["output"]), [], None, list[dict[int, float]]()
    error = None
    ensure_process_group()

    def on_report(metrics: dict[str, float]) -> None:
        reports.append(metrics)
        sent.append(dict(total))
        if metrics["step"] == spec.get("sigterm_at") and os.environ.get("RANK", "0") == "1":  # one rank of two
            os.kill(os.getpid(), signal.SIGTERM)

    watch = best_watched(output, spec["scores"], spec.get("die")) if "scores" in spec else nullcontext([])
    with counted_bytes() as total, watch as gathers:
        try:
            steps = train(
                TrainConfig.model_validate(spec["config"]),
                spec["method"],
                model_path=spec["model"],
                model_config=ModelConfig(),
                train_dir=Path(spec["train"]),
                eval_dir=None if spec["eval"] is None else Path(spec["eval"]),
                output_dir=output,
                fingerprint=spec.get("fingerprint", "run"),
                on_report=on_report,
                stop_after=spec.get("stop_after"),
                model_id=model_identity(spec["model"]),
            ).steps
        except (RunError, UserError) as caught:
            error = {"kind": type(caught).__name__, "text": str(caught)}
    output.mkdir(parents=True, exist_ok=True)
    # Every rank writes it, and two that write one file at once can leave a mix of both.
    aside = output / f"outcome-{os.environ.get('RANK', '0')}.json"
    aside.write_text(json.dumps({"reports": reports, "error": error, "steps": steps, "sent": sent, "gathers": gathers}))
    aside.rename(output / "outcome.json")


def serve(folder: Path) -> None:
    """Run `specs-0.json`, `specs-1.json`, ... as they come; see `WarmRanks`. Ends when torchrun does."""
    launch, torchrun = 0, os.getppid()
    while os.getppid() == torchrun:
        specs = folder / f"specs-{launch}.json"
        if not specs.exists():
            time.sleep(0.02)
            continue
        for one in json.loads(specs.read_text()):
            run(one)
        (folder / f"done-{launch}-{os.environ.get('RANK', '0')}").touch()
        launch += 1


if __name__ == "__main__":
    given = Path(sys.argv[1])
    if given.is_dir():
        serve(given)
    else:
        for one in json.loads(given.read_text()):
            run(one)
