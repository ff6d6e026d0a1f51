"""`mapl doctor` as a command, over the recipes that ship."""

import re
from pathlib import Path

import pytest

from mapl_ray import doctor
from mapl_ray.cli import main
from mapl_ray.config import load_config
from mapl_ray.doctor import memory_fit
from mapl_ray.doctor.finding import Finding

RECIPES = sorted((Path(__file__).resolve().parents[2] / "jobs" / "configs").glob("*.yaml"))


def test_there_are_recipes_from_laptop_to_cluster() -> None:
    names = {path.stem for path in RECIPES}
    assert {
        "alpaca_eval",
        "hh",
        "pandalm",
        "qwen-0.5b-1gpu",
        "llama-8b-8gpu",
        "llama-8b-multinode",
        "llama-70b-multinode",
    } <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_doctor_prints_its_estimates(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(path)
    code = main(["doctor", "--config", str(path)])
    out = capsys.readouterr().out
    assert f"run {config.name}: every key and value is valid" in out
    for method in ("rm", "dpo"):
        train = config.training("rm" if method == "rm" else "dpo")
        assert re.search(rf"train {method}: \d+\.\d [GM]iB per worker .*\(ZeRO-{train.zero_stage}, ", out)
        wanted = f"train {method} needs {train.num_workers * train.cpus_per_worker:g} CPU"
        assert wanted in out
    assert code == (1 if re.search(r"^fail ", out, re.MULTILINE) else 0)


@pytest.mark.parametrize(
    ("stem", "estimate"),
    [
        # ZeRO-2: 8e9 parameters * (2 + 16 / 8 workers) bytes = 32e9 = 29.8 GiB; over 32 workers 20e9 = 18.6 GiB.
        ("llama-8b-8gpu", "29.8 GiB per worker"),
        ("llama-8b-multinode", "18.6 GiB per worker"),
        # ZeRO-3: 70e9 * 18 bytes / 32 workers = 39.4e9 bytes; hpZ: 70e9 * 2 bytes / 8 = 17.5e9; together 53.0 GiB.
        ("llama-70b-multinode", "53.0 GiB per worker"),
        # 0.5e9 * 18 bytes on one worker = 9e9 bytes = 8.4 GiB.
        ("qwen-0.5b-1gpu", "8.4 GiB per worker"),
    ],
)
def test_the_recipes_estimates(stem: str, estimate: str) -> None:
    (path,) = (one for one in RECIPES if one.stem == stem)
    findings = list(memory_fit.check_memory(load_config(path)))
    assert len(findings) == 2
    assert all(estimate in finding.detail for finding in findings)


def test_a_config_that_is_wrong_ends_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train: {zero_stag: 3}\n")
    assert main(["doctor", "--config", str(path)]) == 2
    assert "unknown key 'train.zero_stag'" in capsys.readouterr().err


def test_the_last_line_sums_up_and_cures_stand_below() -> None:
    findings = [Finding("ok", "a", "fine"), Finding("fail", "bee", "broken", "mend it"), Finding("warn", "c", "hm")]
    assert doctor.findings_text(findings).splitlines() == [
        "ok    a    fine",
        "fail  bee  broken",
        "           -> mend it",
        "warn  c    hm",
        "1 ok, 1 to note, 1 to fix",
    ]
