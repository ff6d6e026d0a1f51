"""Searches with real Ray: a worker and a driver killed, a population's exploit, and what a finished search does."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from mapl_ray.config import RunConfig, load_config, parse_config
from mapl_ray.data.records import GROUP_SCHEMA
from mapl_ray.data.shards import commit, write_part
from mapl_ray.distributed.search.tune_stage import run_tune
from mapl_ray.tuning import draw
from mapl_ray.tuning.trial_journal import DONE
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
TRAIN = {
    "learning_rate": 1e-3, "schedule": "constant", "warmup_ratio": 0.0, "epochs": 99, "micro_batch_size": 2,
    "max_sequence_tokens": 256, "cpus_per_worker": 0.5, "loggers": [],
}  # fmt: skip
Values = Callable[..., dict[str, Any]]


@pytest.fixture
def values(tiny_model: Path, grid_groups: Any, tmp_path: Path) -> Values:
    """A run's config with 16 groups to train on and 8 held out."""
    for split, groups in (("train", grid_groups(24)[:16]), ("eval", grid_groups(24)[16:])):
        folder, rows = tmp_path / "run" / "groups" / split, [group.to_row() for group in groups]
        commit(folder, "synthesize", "f", [write_part(folder, 0, rows, [], GROUP_SCHEMA, "f")])
    common = {"name": "run", "output_dir": str(tmp_path), "model": {"name_or_path": str(tiny_model)}}
    return lambda tune, **train: {**common, "train": {**TRAIN, **train}, "tune": tune}


def trials_of(config: RunConfig) -> dict[str, dict[str, Any]]:
    rows = json.loads((config.run_dir / "tune" / "trials.json").read_text())["trials"]
    return {row["trial_id"]: row for row in rows}


def done(config: RunConfig, trial: str, run: int = 0) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        (config.run_dir / "tune" / "trials" / trial / f"run-{run}" / DONE).read_text(encoding="utf-8")
    )
    return found


def steps(config: RunConfig, trial: str, run: int = 0) -> dict[int, dict[str, float]]:
    path = config.run_dir / "tune" / "trials" / trial / f"run-{run}" / "metrics.jsonl"
    return {row["step"]: row for row in map(json.loads, path.read_text().splitlines())}


def newest(folder: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    found = folder.glob("checkpoints/step-*/manifest.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in found), default=0)


def kill_worker_of(folder: Path) -> int:
    """SIGKILL to the training worker that writes there; its id."""
    for process in psutil.Process().children(recursive=True):
        try:
            held = [file.path for file in process.open_files()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(folder / "metrics.jsonl") in held:
            process.send_signal(signal.SIGKILL)
            return int(process.pid)
    raise AssertionError("no worker writes there")


def kill_driver(process: subprocess.Popen[bytes]) -> None:
    """With everything it started, as if the machine had lost its power; one that is over is left alone."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(family, timeout=20)


@pytest.mark.faults
def test_a_search_survives_its_driver_and_a_worker(
    local_ray: None, values: Values, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two trials of two workers each: one undisturbed, one whose driver is killed, and then, gone on, a worker.

    Their values differ in what changes nothing here, a limit that no gradient reaches; so both must end alike.
    """
    tune = {
        "space": {"train": {"max_grad_norm": {"uniform": [1e6, 2e6]}}}, "search": "optuna", "multi_objective": True,
        "num_trials": 2, "max_steps": 60, "eval_every_steps": 10, "grace_period_steps": 60, "max_concurrent_trials": 1,
    }  # fmt: skip
    plain = values(tune, num_workers=2)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**plain, "cluster": {"num_cpus": 2}}))
    command = [sys.executable, "-m", "mapl_ray.cli", "tune", "--config", str(tmp_path / "run.yaml")]
    folder = tmp_path / "run" / "tune" / "trials"
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            until(lambda: newest(folder / "0001" / "run-0") > 0 or driver.poll() is not None, "a checkpoint of trial 1")
        finally:
            kill_driver(driver)
    log_text = (tmp_path / "log").read_text()
    first, second = (json.loads((folder / f"000{n}" / "trial.json").read_text()) for n in (0, 1))
    assert (first["status"], second["status"]) == ("finished", "running"), log_text[-3000:]

    config = load_config(tmp_path / "run.yaml")  # the cluster is the module's
    run, killed = folder / "0001" / "run-0", list[int]()
    left_at = newest(run)

    def kill() -> None:
        until(lambda: newest(run) > left_at, "another checkpoint of trial 1", every=0.005)
        killed.append(kill_worker_of(run))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    best = run_tune(config)
    killer.join(timeout=5)
    assert killed
    trials = trials_of(config)
    assert {name: (trial["status"], trial["starts"]) for name, trial in trials.items()} == {
        "0000": ("finished", 1),  # not run again
        "0001": ("finished", 2),  # by two drivers; the death of a worker is Ray Train's to fix
    }
    assert json.loads((folder / "0000" / "trial.json").read_text()) == first
    assert trials["0001"]["params"] == second["params"]
    assert len({trial["params"]["train.max_grad_norm"] for trial in trials.values()}) == 2
    assert done(config, "0000")["resumed_step"] == 0
    assert left_at < done(config, "0001")["resumed_step"] <= 50
    assert [row["step"] for row in trials["0001"]["reports"]] == [10, 20, 30, 40, 50, 60]
    assert trials["0001"]["reports"] == trials["0000"]["reports"]
    assert losses(config, "0001") == losses(config, "0000")
    assert len(losses(config, "0000")) == 60
    assert load_config(best).training("rm").max_grad_norm in {
        t["params"]["train.max_grad_norm"] for t in trials.values()
    }
    assert all(trial["on_front"] for trial in trials.values())
    assert trials["0000"]["cost"]["groups"] == 60 * 2 * 2  # two workers, micro-batches of two
    assert trials["0000"]["cost"]["worker_seconds"] == pytest.approx(2 * trials["0000"]["cost"]["seconds"])
    table = pq.read_table(config.run_dir / "tune" / "trials.parquet").to_pylist()
    assert {row["trial_id"]: row["objective"] for row in table} == {n: t["objective"] for n, t in trials.items()}
    assert "token ids of 24 groups: 2 parts made" in log_text  # and not again
    assert not list(folder.glob("*/run-*/checkpoints"))
    before = digests(config.run_dir)
    said = capfd.readouterr().out
    assert "token ids of 24 groups: already there" in said
    assert run_tune(config) == best  # a search that has ended
    assert "already searched, skipped" in capfd.readouterr().out
    assert digests(config.run_dir) == before


def losses(config: RunConfig, trial: str) -> list[float]:
    return [row["loss"] for _, row in sorted(steps(config, trial).items())]


def digests(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
def test_a_population_goes_on_from_the_better_checkpoint(local_ray: None, values: Values) -> None:
    tune = {
        "space": {"train.learning_rate": {"loguniform": [1e-6, 3e-3]}}, "scheduler": "pbt", "num_trials": 2,
        "max_steps": 12, "eval_every_steps": 6, "perturb_every_steps": 6, "seed": 1,
    }  # fmt: skip
    config = parse_config(values(tune), "test")
    run_tune(config)
    trials = trials_of(config)
    (moved,) = [trial for trial in trials.values() if trial["moves"]]
    (move,) = moved["moves"]
    name, donor = moved["trial_id"], f"{move['from']:04d}"
    assert name != donor
    assert (move["step"], trials[donor]["moves"]) == (6, [])
    at = {row["step"]: row["objective"] for row in trials[donor]["reports"]}
    assert move["objective"] < at[6]
    rate = "train.learning_rate"
    assert move["params"][rate] == draw(config.tune.dimensions, 1, int(name))[rate]
    assert len({move["params"][rate], moved["params"][rate], trials[donor]["params"][rate]}) == 3
    assert done(config, name, run=1)["resumed_step"] == 6
    ours, theirs, earlier = steps(config, name, run=1), steps(config, donor), steps(config, name)
    assert sorted(ours) == [*range(7, 13)]
    # Step 7 computes its loss before it learns: the donor's weights on the donor's batch, not those of its own past.
    assert ours[7]["loss"] == theirs[7]["loss"]
    assert ours[8]["loss"] != theirs[8]["loss"]
    assert {row["learning_rate"] for row in ours.values()} == {moved["params"][rate]}
    assert {row["learning_rate"] for row in theirs.values()} == {trials[donor]["params"][rate]}
    assert sorted(earlier) == [*range(1, 7)]
    assert {trial["status"] for trial in trials.values()} == {"finished"}
