"""One trial: a Ray Train run of several workers within a function that Ray Tune starts, stops and starts again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.tune.integration.ray_train import TuneReportCallback

from mapl_ray.config import RunConfig, Scalar, TrainConfig
from mapl_ray.config.searched import with_params
from mapl_ray.distributed.train import failure_of, make_trainer, worker_spec
from mapl_ray.errors import RunError
from mapl_ray.shards import write_json
from mapl_ray.tuning.journal import DONE, FAILURE


@dataclass(frozen=True, slots=True)
class Shared:
    """What all trials of a search have in common."""

    config: RunConfig
    model_path: str
    tokens_dir: str
    output: str  # `run_dir/tune`


def trial_config(config: RunConfig, params: dict[str, Scalar]) -> TrainConfig:
    """The training section of one trial."""
    tune = config.tune
    section = with_params(config, params).training(tune.method)
    every = tune.perturb_every_steps if tune.scheduler == "pbt" else tune.checkpoint_every_steps
    return section.model_copy(
        update={
            "max_steps": tune.max_steps,
            "eval_every_steps": tune.eval_every_steps,
            "checkpoint_every_steps": every or tune.eval_every_steps,
            "best_by": None,
        }
    )


def run_trial(given: dict[str, Any], *, shared: Shared) -> None:
    """Train into `given["folder"]`, from its newest checkpoint where it has one.

    What the user can mend, or a loss that is not finite, ends the trial with `failure.json` and no exception: Tune
    would start it again, to no other end.
    """
    config, folder = shared.config, Path(given["folder"])
    train = trial_config(config, given["params"])
    folder.mkdir(parents=True, exist_ok=True)
    spec = worker_spec(config, config.tune.method, train, shared.model_path, folder, fingerprint=folder.parent.name)
    spec |= {
        "export": False,
        "objective": config.tune.objective,
        "tokens_dir": shared.tokens_dir,
        "stop_after": given["stop_after"],
        "done": str(folder / DONE),
    }
    trainer = make_trainer(spec, train, storage=folder / "ray", name=spec["token"], callbacks=[TuneReportCallback()])
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        write_json(folder / FAILURE, {"text": str(failure_of(spec, error))})
        return
    done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    if done["steps"] < min(given["stop_after"] or done["total_steps"], done["total_steps"]):
        raise RunError(f"{folder}: the trial was asked to stop after step {done['steps']}; it goes on from there.")
    shutil.rmtree(folder / "ray", ignore_errors=True)  # Ray Train's own state: nobody reads it again
