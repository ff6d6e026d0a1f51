"""A search of the loss weights: Ray Tune over Ray Train runs, stopped early by ASHA."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

from mapl_ray.config import RunConfig, TrainConfig, TuneConfig, parse_config
from mapl_ray.distributed.prepare import resolve_model
from mapl_ray.distributed.train import data_dirs, failure_of, make_trainer, worker_spec
from mapl_ray.errors import RunError
from mapl_ray.models import model_identity
from mapl_ray.shards import fingerprint_of, read_manifest, write_atomically, write_json

# The trial only waits for its workers: it must not take a core that they need.
_TRIAL_CPUS = 0.01


def run_tune(config: RunConfig) -> Path:
    """Search into `run_dir/tune`; returns `best.yaml`, a config that `mapl train` takes as it is.

    A finished search of the same config and data is not run again. Raises `RunError` where no trial gave a number.
    """
    # Trials run in folders of their own, and the best config is to work from any.
    config = config.model_copy(update={"output_dir": str(config.run_dir.parent)})
    output, model_path = config.run_dir / "tune", resolve_model(config)
    best, fingerprint = output / "best.yaml", _fingerprint(config, model_path)
    if best.is_file() and _finished(output) == fingerprint:
        print(f"  {output}: already searched, skipped", flush=True)
        return best
    best.unlink(missing_ok=True)
    results = _tuner(config, model_path, output).fit()
    trials = sorted((_trial(result) for result in results), key=_rank)
    write_json(output / "trials.json", {"fingerprint": fingerprint, "trials": trials})
    if not trials or trials[0]["objective"] is None:
        reason = trials[0]["error"] if trials else "none was started"
        raise RunError(f"{output}: no trial gave an objective ({reason}). Each trial's files are in trials/ there.")
    text = yaml.safe_dump(best_config(config, trials[0]["params"]), sort_keys=False)
    write_atomically(best, lambda aside: aside.write_text(text, encoding="utf-8"))
    _print_trials(trials)
    return best


def best_config(config: RunConfig, params: dict[str, float]) -> dict[str, Any]:
    """The run's whole config with the best weights in the section of the method that was tuned.

    It has a name of its own, so that its models stand beside those of the run, and takes the run's data.
    """
    values = config.model_dump(mode="json")
    section = values["rm" if config.tune.method == "rm" else "dpo"]
    section["weights"] = {name: params[name] for name in ("lambda_intra", "lambda_inter")}
    if "beta" in params:
        section["beta"] = params["beta"]
    values |= {"name": f"{config.name[:58]}-tuned", "data_run": config.data_run or config.name}
    parse_config(values, "best.yaml")
    return values


def trial_config(config: RunConfig, params: dict[str, float]) -> TrainConfig:
    """The training section of one trial."""
    section = config.training(config.tune.method)
    changes = {
        "weights": {name: params[name] for name in ("lambda_intra", "lambda_inter")},
        "max_steps": config.tune.max_steps,
        "eval_every_steps": config.tune.eval_every_steps,
        "checkpoint_every_steps": config.tune.max_steps,  # a trial that dies is short enough to start again
        "min_workers": None,  # and compared with others: all have the same number of workers
        "beta": params.get("beta", section.beta),
    }
    return TrainConfig.model_validate({**section.model_dump(), **changes})


def _tuner(config: RunConfig, model_path: str, output: Path) -> tune.Tuner:
    settings = config.tune
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the other one prints tables also where verbose is 0
    trainable = tune.with_parameters(_run_trial, config=config, model_path=model_path, output=output)
    return tune.Tuner(
        tune.with_resources(trainable, {"CPU": _TRIAL_CPUS}),
        param_space=_space(settings),
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            num_samples=settings.num_trials,
            search_alg=BasicVariantGenerator(random_state=settings.seed, max_concurrent=settings.max_concurrent_trials),
            scheduler=ASHAScheduler(
                time_attr="step",
                max_t=settings.max_steps + 1,  # a trial that gets to the end is left to end by itself
                grace_period=min(settings.grace_period_steps, settings.max_steps),
            ),
        ),
        run_config=tune.RunConfig(
            name="search", storage_path=str(output / "ray"), verbose=0, callbacks=[_Progress(settings.num_trials)]
        ),
    )


class _Progress(tune.Callback):
    """A line a result; Tune's own tables are for notebooks."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._numbers: dict[str, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._numbers.setdefault(trial.trial_id, len(self._numbers) + 1)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "objective" in result:
            number = self._numbers.get(trial.trial_id, 0)
            step, objective = result.get("step", 0.0), result["objective"]
            print(f"  trial {number}/{self._total}  step {step:.0f}  objective {objective:.3f}", flush=True)


def _space(settings: TuneConfig) -> dict[str, Any]:
    space = {
        "lambda_intra": tune.loguniform(*settings.lambda_intra),
        "lambda_inter": tune.loguniform(*settings.lambda_inter),
    }
    if settings.method == "dpo" and settings.beta is not None:
        space["beta"] = tune.loguniform(*settings.beta)
    return space


def _run_trial(params: dict[str, float], *, config: RunConfig, model_path: str, output: Path) -> None:
    trial = tune.get_context().get_trial_id()
    train, folder = trial_config(config, params), output / "trials" / trial
    spec = worker_spec(config, config.tune.method, train, model_path, folder, fingerprint=trial)
    spec |= {"export": False, "objective": config.tune.objective}
    trainer = make_trainer(spec, train, storage=folder / "ray", name=trial, callbacks=[TuneReportCallback()])
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise failure_of(spec, error) from None


def _trial(result: Any) -> dict[str, Any]:
    metrics = result.metrics or {}
    return {
        "trial_id": metrics.get("trial_id"),
        "params": metrics.get("config") or result.config,
        "objective": metrics.get("objective"),
        "steps": metrics.get("step"),
        "status": "failed" if result.error else "stopped early" if metrics.get("done") is False else "finished",
        "error": str(result.error).strip().splitlines()[-1] if result.error else None,
        "metrics": {name: value for name, value in metrics.items() if name.startswith("eval/")},
    }


def _rank(trial: dict[str, Any]) -> float:
    return float("inf") if trial["objective"] is None else -float(trial["objective"])


def _fingerprint(config: RunConfig, model_path: str) -> str:
    return fingerprint_of(
        {
            "tune": config.tune.model_dump(mode="json"),
            "train": config.training(config.tune.method).model_dump(mode="json"),
            "model": model_identity(model_path, config.model.revision),
            "data": read_manifest(data_dirs(config)[0]).content_hash,
        }
    )


def _finished(output: Path) -> str | None:
    try:
        return str(json.loads((output / "trials.json").read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError):
        return None


def _print_trials(trials: list[dict[str, Any]]) -> None:
    for trial in trials:
        params = "  ".join(f"{name} {value:.3g}" for name, value in sorted(trial["params"].items()))
        objective = "failed" if trial["objective"] is None else f"objective {trial['objective']:.3f}"
        print(f"  {objective}  {params}  ({trial['steps']} steps, {trial['status']})", flush=True)
