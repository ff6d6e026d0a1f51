"""One rank of a training run, started by torchrun from the tests: `run_rank.py SPEC.json`.

A module of its own, because DeepSpeed takes one process a rank.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mapl_ray.config import ModelConfig, TrainConfig
from mapl_ray.errors import RunError, UserError
from mapl_ray.training import train


def run(spec: dict[str, Any]) -> None:
    """Train as the spec says and leave the reports and the error, if any, beside the output."""
    output, reports, steps = Path(spec["output"]), [], None
    error = None

    def on_report(metrics: dict[str, float]) -> None:
        reports.append(metrics)
        if metrics["step"] == spec.get("sigterm_at") and os.environ["RANK"] == "1":  # one rank of two
            os.kill(os.getpid(), signal.SIGTERM)

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
            model_id="base",
        ).steps
    except (RunError, UserError) as caught:
        error = {"kind": type(caught).__name__, "text": str(caught)}
    output.mkdir(parents=True, exist_ok=True)
    (output / "outcome.json").write_text(json.dumps({"reports": reports, "error": error, "steps": steps}))


if __name__ == "__main__":
    for one in json.loads(Path(sys.argv[1]).read_text()):
        run(one)
