"""Every stage, one after another, with the real Ray, vLLM and DeepSpeed: what it leaves, and what a rerun does."""

import itertools
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from mapl_ray.shards import iter_rows, read_manifest

# Each stage has quick tests of its own.
pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.long]
CONFIG = {
    "name": "whole",
    "data": {"path": "demo", "limit": 40, "eval_fraction": 0.25},
    "model": {"tiny": {"vocab_size": 500, "hidden_size": 64, "num_layers": 1, "num_heads": 2}},
    "scoring": {"max_model_len": 2048},
    "train": {
        "learning_rate": 1e-3,
        "max_steps": 2,
        "micro_batch_size": 2,
        "max_sequence_tokens": 2048,
        "num_workers": 1,  # several: tests/training, test_runtime.py, tests/multihost
        "cpus_per_worker": 0.5,
        "eval_every_steps": 2,
    },
    "rm": {"zero_stage": 2},
    "dpo": {"zero_stage": 3},
    "tune": {"num_trials": 2, "max_steps": 2, "eval_every_steps": 1, "grace_period_steps": 1},
    "evaluation": {"bootstrap_samples": 50, "cpus": 0.5},
    "cluster": {"num_cpus": 2},
}


def mapl(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One command in a process and a folder of its own, as a user runs it."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "mapl_ray.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=550)


HIDDEN = {
    name: secrets.token_hex(16)
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")
}


@pytest.fixture(scope="module")
def ray_logs() -> Iterator[Path]:
    """Where Ray keeps the logs of the pipeline; not below pytest's folder, for paths of sockets must be short."""
    folder = Path(tempfile.mkdtemp(prefix="mapl"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def whole(ray_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run directory of a finished pipeline, and what it printed to both streams."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    done = mapl(folder, "pipeline", "--config", "config.yaml", **HIDDEN, RAY_TMPDIR=str(ray_logs))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "runs" / "whole", done.stdout + done.stderr


def places_of(value: str, *folders: Path) -> list[Path]:
    """Files below the folders that hold a text."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if value.encode() in path.read_bytes()]


def test_no_secret_of_the_environment_is_kept_by_any_stage(whole: tuple[Path, str], ray_logs: Path) -> None:
    run, printed = whole
    for name, value in HIDDEN.items():
        assert value not in printed, name
        assert places_of(value, run, ray_logs) == [], name
    # The search finds what is kept: the run's name, in the logs of Ray's workers and in what each stage left.
    found = {path.relative_to(run).parts[0] for path in places_of("whole", run)}
    assert {"rm", "dpo", "tune"} <= found
    assert any(path.parent.name == "logs" for path in places_of("mapl_ray", ray_logs))


# What makes a newcomer believe that something went wrong.
ALARMS = (" E ", "WARNING", "Warning:", "Failed to", "Traceback")
ELAPSED = re.compile(r": (\d+ of \d+ parts, )?\d\d:\d\d( \(.* left\))?$")
MOST_LINES = 100  # without those that only say that work goes on: a slow machine shows more of them


def test_the_log_raises_no_false_alarm(whole: tuple[Path, str]) -> None:
    _, printed = whole
    assert not [line for line in printed.splitlines() if any(alarm in line for alarm in ALARMS)]


def test_the_demo_is_short_and_never_silent(tmp_path: Path) -> None:
    """The demo itself, from its first second: what a newcomer sees, and when."""
    times, lines = [time.monotonic()], []
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "mapl_ray.cli", "demo"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            times.append(time.monotonic())
            lines.append(line)
    log = "".join(lines)
    assert process.returncode == 0, log
    assert not [line for line in lines if any(alarm in line for alarm in ALARMS)], log
    assert len([line for line in lines if not ELAPSED.search(line)]) <= MOST_LINES, log
    # Ten seconds are promised; a machine with other work may be late with a line.
    assert max(after - before for before, after in itertools.pairwise(times)) < 20, log


def test_all_rows_are_accounted_for(whole: tuple[Path, str]) -> None:
    run, _ = whole
    read = {
        stage: [read_manifest(run / stage / s) for s in ("train", "eval")] for stage in ("pairs", "groups", "scored")
    }
    assert sum(manifest.input_rows for manifest in read["pairs"]) == 40
    for before, after in (("pairs", "groups"), ("groups", "scored")):
        assert [m.rows for m in read[before]] == [m.input_rows for m in read[after]]
    for split in ("train", "eval"):
        for row in iter_rows(run / "scored" / split):
            assert len(row["ref_logps"]) == len(row["sequences"])


def test_models_open_in_transformers(whole: tuple[Path, str]) -> None:
    run, _ = whole
    for name, auto in (("rm", AutoModelForSequenceClassification), ("dpo", AutoModelForCausalLM)):
        for folder in (name, f"{name}-baseline"):
            _, info = auto.from_pretrained(str(run / folder / "model"), output_loading_info=True)
            assert not info["missing_keys"]
    weights = {
        json.dumps(json.loads((run / n / "result.json").read_text())["config"]["weights"]) for n in ("rm", "dpo")
    }
    plain = json.loads((run / "rm-baseline" / "result.json").read_text())["config"]["weights"]
    assert plain == {"lambda_intra": 0.0, "lambda_inter": 0.0}
    assert json.dumps(plain) not in weights


def test_the_table_compares_with_the_baseline(whole: tuple[Path, str]) -> None:
    run, printed = whole
    results = json.loads((run / "evaluation.json").read_text())
    assert set(results["models"]) == {"rm", "rm-baseline", "dpo", "dpo-baseline"}
    assert {(c["model"], c["baseline"]) for c in results["comparisons"]} == {
        ("rm", "rm-baseline"),
        ("dpo", "dpo-baseline"),
    }
    assert set(results["models"]["rm"]["levels"]) == {"pref", "intra", "inter"}
    assert results["provenance"]["data"]["held-out"] == read_manifest(run / "scored" / "eval").content_hash
    accuracy = results["models"]["rm"]["levels"]["pref"]["accuracy"]["value"]
    assert f"{100 * accuracy:.1f}" in printed.split("== evaluate")[1]
    for artefact in ("groups", "scored", "rm/model", "dpo/model", "tune/best.yaml", "evaluation.json", "report.html"):
        assert (run / artefact).exists()
        assert str(run / artefact) in printed


def test_a_rerun_skips_what_is_finished_and_says_so(whole: tuple[Path, str]) -> None:
    run, _ = whole
    kept = [p for p in run.rglob("*") if p.suffix in (".parquet", ".safetensors") or p.name == "trials.json"]
    before = {path: path.stat().st_mtime_ns for path in kept}
    done = mapl(run.parents[1], "pipeline", "--config", "config.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("synthesize", "score", "train rm", "train rm-baseline", "train dpo", "train dpo-baseline", "tune"):
        said = done.stdout.split(f"== {stage}\n")[1].split("\n== ")[0]
        assert "skipped" in said, stage
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_the_best_config_trains_as_it_is(whole: tuple[Path, str]) -> None:
    """From any folder: it names the run's data, and its model stands beside the others."""
    run, _ = whole
    trials = json.loads((run / "tune" / "trials.json").read_text())["trials"]
    assert len(trials) == 2
    assert trials[0]["objective"] >= trials[1]["objective"]
    done = mapl(run, "train", "rm", "--config", str(run / "tune" / "best.yaml"))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((run.parent / "whole-tuned" / "rm" / "result.json").read_text())
    weights = {name: trials[0]["params"][f"train.weights.{name}"] for name in ("lambda_intra", "lambda_inter")}
    assert result["config"]["weights"] == weights
