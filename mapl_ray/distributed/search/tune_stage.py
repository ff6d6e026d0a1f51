"""The tune stage: a resumable search over training values, with Ray Tune over Ray Train runs (docs/tuning.md)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from mapl_ray.config import RunConfig
from mapl_ray.data.shards import fingerprint_of, read_manifest
from mapl_ray.distributed.prepare import resolve_model
from mapl_ray.distributed.resources import trials_at_once
from mapl_ray.distributed.runtime import available_resources
from mapl_ray.distributed.search.tune_optuna import OptunaSource
from mapl_ray.distributed.search.tune_population import run_population
from mapl_ray.distributed.search.tune_search import JournalSearcher, RandomSource, ValueSource, run_tuner, scheduler_of
from mapl_ray.distributed.search.tune_trial import Shared, trial_config
from mapl_ray.distributed.tokenize import with_kept_tokens
from mapl_ray.distributed.training_job import TrainingJob, data_dirs
from mapl_ray.errors import RunError
from mapl_ray.models import model_identity
from mapl_ray.training.plan import total_steps
from mapl_ray.tuning import Trial, TrialJournal, best_config, write_config, write_front, write_trials


def run_tune(config: RunConfig) -> Path:
    """Search into `run_dir/tune`; returns the path of `best.yaml`, a config for `mapl train`.

    A finished search of the same config and data is skipped; an interrupted one is resumed without repeating finished
    trials. Raises `UserError` if no trial fits the cluster, `RunError` if no trial gave an objective, and
    `KeyboardInterrupt` if the search was asked to stop.
    """
    # Trials run in separate folders, and the best config must work from any folder.
    config = config.model_copy(update={"output_dir": str(config.run_dir.parent)})
    output, model_path, tune = config.run_dir / "tune", resolve_model(config), config.tune
    fingerprint = _fingerprint(config, model_path)
    best, whole = output / "best.yaml", fingerprint_of([fingerprint, tune.trials])
    if best.is_file() and _finished(output) == whole:
        print(f"  {output}: already searched, skipped", flush=True)
        return best
    at_once = trials_at_once(config, available_resources())
    journal = TrialJournal.of_search(output, fingerprint, tune.objective)
    best.unlink(missing_ok=True)
    job = TrainingJob.of(config, tune.method, config.training(tune.method), model_path, output, fingerprint="")
    (job,) = with_kept_tokens(config, [job])
    shared = Shared.of(config, job)
    _announce(config, journal, at_once)
    if tune.scheduler == "pbt":
        _search_population(config, journal, shared, at_once)
    else:
        _search(config, journal, shared, at_once)
    trials = [trial for trial in journal.in_order() if trial.number < tune.trials]
    if len(trials) < tune.trials or any(trial.status == "running" for trial in trials):
        raise KeyboardInterrupt  # Tune has handled the signal: the same command resumes from the journal
    rows = write_trials(output, trials, whole, list(tune.dimensions))
    if rows[0]["objective"] is None:
        raise RunError(f"{output}: no trial gave an objective ({rows[0]['error']}). See the files in trials/.")
    write_front(output, config, rows)
    write_config(best, best_config(config, rows[0]["params"]))
    for leftover in (output / "trials").glob("*/run-*/checkpoints"):
        shutil.rmtree(leftover, ignore_errors=True)
    _print_trials(rows)
    return best


def _search(config: RunConfig, journal: TrialJournal, shared: Shared, at_once: int) -> None:
    tune = config.tune
    known = [trial for trial in (journal.refreshed(one) for one in journal.in_order()) if trial.number < tune.trials]
    for trial in known:
        if trial.status == "finished":  # it may have finished after its driver died
            journal.put(trial)
    ended, todo = ([t for t in known if t.ended is flag] for flag in (True, False))
    new = tune.trials - len(known)
    if not todo and not new:
        return
    source: ValueSource = OptunaSource(tune, ended) if tune.search == "optuna" else RandomSource(tune)
    searcher = JournalSearcher(journal, config, todo, source, new)
    run_tuner(searcher, len(todo) + new, shared, scheduler_of(tune, ended), at_once)


def _search_population(config: RunConfig, journal: TrialJournal, shared: Shared, at_once: int) -> None:
    tune = config.tune
    for trial in (journal.refreshed(one) for one in journal.in_order()):
        # A failed trial is tried again.
        journal.put(trial if trial.ended else replace(trial, status="running"))

    def turn(members: list[Trial], step: int | None) -> None:
        searcher = JournalSearcher(journal, config, members, RandomSource(tune), 0)
        searcher.stop_after = step
        run_tuner(searcher, len(members), shared, scheduler_of(tune, []), at_once)

    train = trial_config(config, {})
    rows = read_manifest(data_dirs(config)[0], verify=False).rows
    run_population(config, journal, total_steps(train, rows, train.num_workers), turn)


def _announce(config: RunConfig, journal: TrialJournal, at_once: int) -> None:
    train, ended = config.training(config.tune.method), sum(trial.ended for trial in journal.trials.values())
    gpus = f" and {train.gpus_per_worker:g} GPU" if train.gpus_per_worker else ""
    print(
        f"  {config.tune.trials} trials ({ended} of them ended before), {at_once} at once, each of {train.num_workers} "
        f"worker(s) of {train.cpus_per_worker:g} CPU{gpus}",
        flush=True,
    )


def _fingerprint(config: RunConfig, model_path: str) -> str:
    """Fingerprint of a search. The number of trials may grow, because draws depend only on a trial's number, except in
    a population."""
    free = {"max_concurrent_trials"} | (set() if config.tune.scheduler == "pbt" else {"num_trials"})
    return fingerprint_of(
        {
            "tune": config.tune.model_dump(mode="json", exclude=free),
            "train": config.training(config.tune.method).model_dump(mode="json", exclude={"keep_token_ids"}),
            "model": model_identity(model_path, config.model.revision),
            "data": read_manifest(data_dirs(config)[0]).content_hash,
        }
    )


def _finished(output: Path) -> str | None:
    try:
        return str(json.loads((output / "trials.json").read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _print_trials(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        params = "  ".join(f"{name} {_short(value)}" for name, value in row["params"].items())
        objective = "failed" if row["objective"] is None else f"objective {row['objective']:.3f}"
        print(f"  {objective}  {params}  ({row['steps']} steps, {row['status']})", flush=True)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
