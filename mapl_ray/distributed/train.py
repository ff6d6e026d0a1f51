"""Training under Ray Train: workers with one rank each, restarted from the newest whole checkpoint when one dies.

What loads DeepSpeed and transformers is imported where it is used: a trial's own process and Ray Train's controller
only wait, and would spend seconds and half a gigabyte on it.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train

from mapl_ray.aside import set_aside
from mapl_ray.config import Method, ModelConfig, RunConfig, TrainConfig
from mapl_ray.distributed.lean_trainer import LeanTrainer, LeanTrialTrainer
from mapl_ray.distributed.runtime import preemption_watched
from mapl_ray.distributed.torch_network import NodeNetwork
from mapl_ray.errors import RunError, UserError, no_space
from mapl_ray.progress import progress
from mapl_ray.shards import read_manifest, write_json
from mapl_ray.tuning import values_of

if TYPE_CHECKING:
    from mapl_ray.training.result import TrainResult
    from mapl_ray.training.stop import StopRequest

START_TIMEOUT_SECONDS = 600  # for room for all workers, at the start and after each loss of a node
_START_SECONDS = 60.0  # Ray Train's own limit of one attempt
_CONTROLLER_FAILURES = max(1, round(START_TIMEOUT_SECONDS / _START_SECONDS))


def run_training(
    config: RunConfig, method: Method, *, train_config: TrainConfig, model_path: str, output: Path
) -> TrainResult:
    """Train into `output`; a finished run of the same config, data and model is returned as it is.

    Raises `UserError` for a user's mistake, `RunError` for a failure in mid-run.
    """
    from mapl_ray.distributed.elastic import train_elastically
    from mapl_ray.training.result import finished_result
    from mapl_ray.training.stop import sigterm_watch

    spec = checked_spec(config, method, train_config, model_path, output)
    if (result := finished_of(spec)) is not None:
        say_skipped(result, output)
        return result
    train_config, fingerprint = TrainConfig.model_validate(spec["train"]), spec["fingerprint"]
    make_room(spec)
    storage, name = config.run_dir / "ray", f"{output.name}-{spec['token']}"

    def attempt(number: int, workers: int) -> None:
        one = train_config.model_copy(update={"num_workers": workers, "max_failures": 0})
        make_trainer(spec, one, storage=storage, name=f"{name}-{number}").fit()

    with sigterm_watch() as terminated, stop_files([spec], terminated):
        try:
            if train_config.min_workers is None:
                make_trainer(spec, train_config, storage=storage, name=name).fit()
            else:
                train_elastically(
                    train_config,
                    _worker_resources(train_config),
                    output,
                    attempt=attempt,
                    ended=lambda: (
                        terminated() or failure_file(spec).is_file() or finished_result(output, fingerprint) is not None
                    ),
                    grow=_mark(spec, "grow"),
                    running=_mark(spec, "running"),
                )
                if failure_file(spec).is_file():
                    raise failure_of(spec, RunError(""))
        except ray.train.TrainingFailedError as error:
            raise failure_of(spec, error) from None
    return result_of(spec, terminated())


def checked_spec(
    config: RunConfig, method: Method, train_config: TrainConfig, model_path: str, output: Path
) -> dict[str, Any]:
    """What workers need to train into `output`, with the run's fingerprint. Raises `UserError` for a config that
    can't be trained."""
    from mapl_ray.models import model_identity
    from mapl_ray.training.engine_config import check_sizes, inlined
    from mapl_ray.training.result import run_fingerprint

    train_config = inlined(train_config)
    check_sizes(train_config)
    manifest = read_manifest(data_dirs(config)[0])
    fingerprint = run_fingerprint(train_config, method, model_identity(model_path, config.model.revision), manifest)
    return worker_spec(config, method, train_config, model_path, output, fingerprint)


def make_room(spec: dict[str, Any]) -> None:
    """The folder to train into; a finished model of other settings or data there is set aside."""
    from mapl_ray.training.result import other_result

    output = Path(spec["output"])
    if other_result(output, spec["fingerprint"]):
        set_aside(output)
    output.mkdir(parents=True, exist_ok=True)


def finished_of(spec: dict[str, Any]) -> TrainResult | None:
    """The result of this very run if it is there."""
    from mapl_ray.training.result import finished_result

    return finished_result(Path(spec["output"]), spec["fingerprint"])


def result_of(spec: dict[str, Any], terminated: bool) -> TrainResult:
    """The result once the workers have left. Raises `KeyboardInterrupt` where they were asked to, else `RunError`, if
    there is none."""
    result = finished_of(spec)
    if result is None and terminated:
        raise KeyboardInterrupt  # the workers left a checkpoint: the same command goes on from it
    if result is None:
        raise RunError(
            f"{spec['output']}: training ended without a result there. On a cluster, output_dir must be on storage "
            "that all nodes share."
        )
    return result


def say_skipped(result: TrainResult, output: Path) -> None:
    """Of a training that an earlier start has finished."""
    print(f"  {output}: already trained ({result.steps} steps), skipped", flush=True)


def data_dirs(config: RunConfig) -> tuple[Path, Path | None]:
    """Train and held-out groups: as scored where they are, else as synthesized; no held-out ones if there are none."""
    train, held_out = (groups_to_train(config, split) for split in ("train", "eval"))
    return train, held_out if read_manifest(held_out).rows else None


def groups_to_train(config: RunConfig, split: str) -> Path:
    """The groups of a split, as scored where they are, else as synthesized."""
    scored = config.data_dir / "scored" / split
    return scored if (scored / "manifest.json").is_file() else config.data_dir / "groups" / split


def worker_spec(
    config: RunConfig, method: Method, train: TrainConfig, model_path: str, output: Path, fingerprint: str
) -> dict[str, Any]:
    """Everything a worker needs, as plain values."""
    from mapl_ray.models import model_identity
    from mapl_ray.training.engine_config import inlined

    train_dir, eval_dir = data_dirs(config)
    return {
        "train": inlined(train).model_dump(mode="json"),
        "model": config.model.model_dump(mode="json"),
        "method": method,
        "model_path": model_path,
        "train_dir": str(train_dir),
        "eval_dir": None if eval_dir is None else str(eval_dir),
        "output": str(output),
        "fingerprint": fingerprint,
        "model_id": model_identity(model_path, config.model.revision),
        "export": True,
        "objective": None,  # of a trial: weights of the level accuracies, reported beside the metrics
        "tokens_dir": None,
        "stop_after": None,
        "done": None,  # of a trial: the file that says how far it came
        "token": uuid.uuid4().hex[:12],
    }


def make_trainer(
    spec: dict[str, Any],
    train: TrainConfig,
    *,
    storage: Path,
    name: str,
    trial_callback: ray.train.UserCallback | None = None,
    worker: Callable[[dict[str, Any]], None] | None = None,
) -> LeanTrainer:
    """A Ray Train trainer of `train.num_workers` ranks. Checkpoints are ours, below `output`; Ray keeps its own state
    below `storage`. `trial_callback` is that of a search's trial; `worker` stands in for `train_worker`, which it is to
    call."""
    return (LeanTrainer if trial_callback is None else LeanTrialTrainer)(
        worker or train_worker,
        train_loop_config=spec,
        torch_config=NodeNetwork(backend="nccl" if train.gpus_per_worker else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=train.num_workers,
            use_gpu=train.gpus_per_worker > 0,
            resources_per_worker=_worker_resources(train),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(
                max_failures=train.max_failures,
                # Every one is a minute's wait for workers that have no room; Ray's own default is forever. Of an
                # attempt with workers that come and go each end is a matter for `train_elastically`.
                controller_failure_limit=_CONTROLLER_FAILURES if train.min_workers is None else 0,
                max_preemption_failures=-1 if train.min_workers is None else 0,
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            callbacks=[] if trial_callback is None else [trial_callback],
        ),
    )


def train_worker(spec: dict[str, Any]) -> None:
    """One rank. A mistake or a bad loss is written down: the next attempt ends at once, the driver reports it."""
    first = ray.train.get_context().get_world_rank() == 0
    if spec["done"] is not None:  # of a search, whose driver prints a line for every evaluation of a trial
        with (Path(spec["output"]) / "log.txt").open("a", encoding="utf-8") as log, redirect_stdout(log):
            _train_rank(spec)
        return
    with progress(f"train {spec['method']}") if first else nullcontext():
        _train_rank(spec)


def _train_rank(spec: dict[str, Any]) -> None:
    from mapl_ray.training.loop import train

    # Ray Train repeats every report that is made to it, through a logger named by its file's path.
    logging.getLogger().setLevel(logging.WARNING)
    failure = failure_file(spec)
    if failure.is_file():
        raise RuntimeError(json.loads(failure.read_text(encoding="utf-8"))["text"])
    if spec["train"]["min_workers"] is not None:
        _mark(spec, "running").touch()
    try:
        result = train(
            TrainConfig.model_validate(spec["train"]),
            spec["method"],
            model_path=spec["model_path"],
            model_config=ModelConfig.model_validate(spec["model"]),
            train_dir=Path(spec["train_dir"]),
            eval_dir=None if spec["eval_dir"] is None else Path(spec["eval_dir"]),
            output_dir=Path(spec["output"]),
            fingerprint=spec["fingerprint"],
            tokens_dir=None if spec["tokens_dir"] is None else Path(spec["tokens_dir"]),
            stop_after=spec["stop_after"],
            on_report=_reporter(spec["objective"]),
            export=spec["export"],
            model_id=spec["model_id"],
            stop_requests=_stop_requests(spec),
        )
    except (UserError, RunError) as error:
        write_json(failure, {"kind": type(error).__name__, "text": str(error)})
        raise
    except (OSError, RuntimeError) as error:
        if (message := no_space(error, Path(spec["output"]))) is not None:
            from mapl_ray.training.checkpoint import drop_unfinished

            drop_unfinished(Path(spec["output"]) / "checkpoints")  # or there is no room for the words either
            write_json(failure, {"kind": "RunError", "text": message})
            raise RunError(message) from None
        raise
    if spec["done"] is not None and ray.train.get_context().get_world_rank() == 0:
        write_json(Path(spec["done"]), _how_far(spec, result))


def _how_far(spec: dict[str, Any], result: TrainResult) -> dict[str, int]:
    from mapl_ray.training.plan import total_steps

    rows = read_manifest(Path(spec["train_dir"]), verify=False).rows
    whole = total_steps(TrainConfig.model_validate(spec["train"]), rows, result.num_workers)
    return {"steps": result.steps, "total_steps": whole, "resumed_step": result.resumed_step, "tokens": result.tokens}


def _stop_requests(spec: dict[str, Any]) -> Callable[[], StopRequest]:
    """To stop once the driver was asked to; to save, once, when Ray is about to take a worker's node away. Workers that
    come and go leave then, and where there is room for more of them: the driver starts them again on what is there.

    A worker's own SIGTERM is Ray's, and ends it; the run then goes on from its last checkpoint on other nodes.
    """
    from mapl_ray.training.stop import StopRequest

    saved, elastic, watched = False, spec["train"]["min_workers"] is not None, preemption_watched()

    def stop_requests() -> StopRequest:
        nonlocal saved
        # A collective: every rank asks before every step.
        leaving = watched and ray.train.get_preemption_info() is not None
        save, saved = leaving and not saved, saved or leaving
        if _mark(spec, "stop").exists() or (leaving and elastic):
            return StopRequest.STOP
        if save:
            return StopRequest.SAVE
        return StopRequest.LEAVE if elastic and _mark(spec, "grow").exists() else StopRequest.NONE

    return stop_requests


@contextmanager
def stop_files(specs: Sequence[dict[str, Any]], terminated: Callable[[], bool]) -> Iterator[None]:
    """Hands a SIGTERM of the driver on to the workers, wherever they are, through the storage they share."""
    done = threading.Event()

    def hand_on() -> None:
        while not done.wait(0.5):
            if terminated():
                for spec in specs:
                    _mark(spec, "stop").touch()
                return

    watcher = threading.Thread(target=hand_on, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        for spec in specs:
            _mark(spec, "stop").unlink(missing_ok=True)


def _mark(spec: dict[str, Any], what: str) -> Path:
    """An empty file by which driver and workers signal each other, on the storage they share."""
    return Path(spec["output"]) / f"{what}-{spec['token']}"


def failure_file(spec: dict[str, Any]) -> Path:
    """Where a worker of this very attempt writes why it can't go on."""
    return Path(spec["output"]) / f"failure-{spec['token']}.json"


def failure_of(spec: dict[str, Any], error: Exception) -> UserError | RunError:
    """The message for the user: the worker's own words where it left some."""
    path = failure_file(spec)
    if path.is_file():
        failure = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return UserError(failure["text"]) if failure["kind"] == "UserError" else RunError(failure["text"])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RunError(
        f"training into {spec['output']} failed: {lines[-1] if lines else type(error).__name__}. "
        "Checkpoints are kept: the same command goes on from the newest."
    )


def _reporter(objective: dict[str, float] | None) -> Callable[[dict[str, float]], None]:
    def report(metrics: dict[str, float]) -> None:
        values = dict(metrics)
        if objective is not None:
            values |= values_of(metrics, objective)
        ray.train.report(values)

    return report


def _worker_resources(train: TrainConfig) -> dict[str, float]:
    resources = {"CPU": train.cpus_per_worker}
    return resources | {"GPU": train.gpus_per_worker} if train.gpus_per_worker else resources
