"""One trial: a Ray Train run of several workers within a function that Ray Tune starts, stops and starts again."""

from __future__ import annotations

import json
import shutil
import uuid
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
    spec: dict[str, Any]  # of the workers, but for what is a trial's own
    output: str  # `run_dir/tune`

    @classmethod
    def of(cls, config: RunConfig, model_path: str, tokens: Path, output: Path) -> Shared:
        """Worked out once: a trial's own process neither reads the base model nor loads what trains it."""
        tune = config.tune
        spec = worker_spec(config, tune.method, config.training(tune.method), model_path, output, fingerprint="")
        spec |= {"export": False, "objective": tune.objective, "tokens_dir": str(tokens)}
        return cls(config, spec, str(output))

    def of_trial(self, given: dict[str, Any], train: TrainConfig) -> dict[str, Any]:
        """The whole spec. A DeepSpeed file is taken as it was read at the start, if it is the run's."""
        values = train.model_dump(mode="json")
        if train.deepspeed_config == self.config.training(self.config.tune.method).deepspeed_config:
            values["deepspeed_config"] = self.spec["train"]["deepspeed_config"]
        return {
            **self.spec,
            "train": values,
            "output": given["folder"],
            "fingerprint": str(given["number"]),
            "stop_after": given["stop_after"],
            "done": str(Path(given["folder"]) / DONE),
            "token": uuid.uuid4().hex[:12],
        }


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
            "min_workers": None,  # trials are compared: all have the same number of workers
        }
    )


def run_trial(given: dict[str, Any], *, shared: Shared) -> None:
    """Train into `given["folder"]`, from its newest checkpoint where it has one.

    What the user can mend, or a loss that is not finite, ends the trial with `failure.json` and no exception: Tune
    would start it again, to no other end.
    """
    folder, train = Path(given["folder"]), trial_config(shared.config, given["params"])
    folder.mkdir(parents=True, exist_ok=True)
    spec = shared.of_trial(given, train)
    report = TuneReportCallback()
    trainer = make_trainer(spec, train, storage=folder / "ray", name=spec["token"], trial_callback=report)
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        write_json(folder / FAILURE, {"text": str(failure_of(spec, error))})
        return
    done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    if done["steps"] < min(given["stop_after"] or done["total_steps"], done["total_steps"]):
        raise RunError(f"{folder}: the trial was asked to stop after step {done['steps']}; it goes on from there.")
    shutil.rmtree(folder / "ray", ignore_errors=True)  # Ray Train's own state: nobody reads it again
