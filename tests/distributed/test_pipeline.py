"""`mapl demo`, every stage with the real Ray, vLLM and DeepSpeed: what it shows and leaves, and what a rerun does."""

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
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from mapl_ray.data.shards import iter_rows, read_manifest

# Each stage has quick tests of its own.
pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.long, pytest.mark.timeout(1800)]
PAIRS = 164  # of the shipped sample


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


@dataclass(frozen=True)
class Demo:
    """A finished run of the demo."""

    run: Path
    lines: list[str]  # of both streams
    seconds: list[float]  # since the line before, or the start

    @property
    def printed(self) -> str:
        return "".join(self.lines)


@pytest.fixture(scope="module")
def demo(ray_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo from its first second, in an environment with secrets."""
    folder = tmp_path_factory.mktemp("pipeline")
    times, lines = [time.monotonic()], []
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # as `make demo` sets them
    environment = {**os.environ, **quiet, **HIDDEN, "RAY_TMPDIR": str(ray_logs)}
    command = [sys.executable, "-m", "mapl_ray.cli", "demo"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            times.append(time.monotonic())
            lines.append(line)
    made = Demo(folder / "runs" / "demo", lines, [after - before for before, after in itertools.pairwise(times)])
    assert process.returncode == 0, made.printed
    return made


def places_of(value: str, *folders: Path) -> list[Path]:
    """Files below the folders that hold a text."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if value.encode() in path.read_bytes()]


def test_no_secret_of_the_environment_is_kept_by_any_stage(demo: Demo, ray_logs: Path) -> None:
    for name, value in HIDDEN.items():
        assert value not in demo.printed, name
        assert places_of(value, demo.run, ray_logs) == [], name
    # The search finds what is kept: the run's name in what each stage left, and Ray's own folder in Ray's logs.
    found = {path.relative_to(demo.run).parts[0] for path in places_of("demo", demo.run)}
    assert {"rm", "dpo", "tune"} <= found
    assert any(path.parent.name == "logs" for path in places_of(str(ray_logs), ray_logs))


# What makes a newcomer believe that something went wrong.
ALARMS = (" E ", "WARNING", "Warning:", "Failed to", "Traceback")
ELAPSED = re.compile(r": (\d+ of \d+ (parts|groups), )?\d\d:\d\d( \(.* left\))?$")
MOST_LINES = 120  # without those that only say that work goes on: a slow machine shows more of them


def test_the_log_is_short_never_silent_and_raises_no_false_alarm(demo: Demo) -> None:
    assert not [line for line in demo.lines if any(alarm in line for alarm in ALARMS)], demo.printed
    assert len([line for line in demo.lines if not ELAPSED.search(line)]) <= MOST_LINES, demo.printed
    # Ten seconds are promised; a machine with other work may be late with a line.
    assert max(demo.seconds) < 20, demo.printed


def test_all_rows_are_accounted_for(demo: Demo) -> None:
    run = demo.run
    read = {
        stage: [read_manifest(run / stage / s) for s in ("train", "eval")] for stage in ("pairs", "groups", "scored")
    }
    assert sum(manifest.input_rows for manifest in read["pairs"]) == PAIRS
    for before, after in (("pairs", "groups"), ("groups", "scored")):
        assert [m.rows for m in read[before]] == [m.input_rows for m in read[after]]
    for split in ("train", "eval"):
        for row in iter_rows(run / "scored" / split):
            assert len(row["ref_logps"]) == len(row["sequences"])


def test_models_open_in_transformers(demo: Demo) -> None:
    run = demo.run
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


def test_the_table_compares_with_the_baseline(demo: Demo) -> None:
    run, printed = demo.run, demo.printed
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


def test_it_ends_with_answers_before_and_after_dpo(demo: Demo) -> None:
    own = json.loads((demo.run / "evaluation.json").read_text())["own_prompts"]
    assert list(own["models"]) == ["before DPO", "dpo", "dpo-baseline"]
    assert own["counts"]["prompts"] == len(own["shown"]) == 3
    assert all(len(shown["instructions"]) > 1 for shown in own["shown"])
    block = demo.printed.split("== report")[1].split("\nDone in")[0]
    assert "Answers before and after DPO" in block
    assert "its answers are noise" in block
    for shown in own["shown"]:
        assert all(instruction[:40] in block for instruction in shown["instructions"])


def test_a_rerun_skips_what_is_finished_and_says_so(demo: Demo) -> None:
    run = demo.run
    kept = [p for p in run.rglob("*") if p.suffix in (".parquet", ".safetensors") or p.name == "trials.json"]
    before = {path: path.stat().st_mtime_ns for path in kept}
    done = mapl(run.parents[1], "demo")
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("synthesize", "score", "train rm", "train rm-baseline", "train dpo", "train dpo-baseline", "tune"):
        said = done.stdout.split(f"== {stage}\n")[1].split("\n== ")[0]
        assert "skipped" in said, stage
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_the_best_config_trains_as_it_is(demo: Demo) -> None:
    """From any folder: it names the run's data, and its model stands beside the others."""
    run = demo.run
    trials = json.loads((run / "tune" / "trials.json").read_text())["trials"]
    assert len(trials) == 3
    assert trials[0]["objective"] >= trials[1]["objective"]
    done = mapl(run, "train", "rm", "--config", str(run / "tune" / "best.yaml"))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((run.parent / "demo-tuned" / "rm" / "result.json").read_text())
    weights = {name: trials[0]["params"][f"train.weights.{name}"] for name in ("lambda_intra", "lambda_inter")}
    assert result["config"]["weights"] == weights
