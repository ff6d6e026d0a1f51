"""`mapl doctor`: paths, models, CPUs, engines and the disk that a config needs."""

import os
from pathlib import Path

import pytest

from mapl_ray import doctor
from mapl_ray.config import RunConfig
from mapl_ray.doctor import checks
from mapl_ray.doctor.finding import Finding


def run_config(**values: object) -> RunConfig:
    return RunConfig.model_validate(values)


def findings_about(what: str, **values: object) -> list[Finding]:
    return [finding for finding in doctor.diagnose(run_config(**values)) if finding.what == what]


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ((), "no config.json and no tokenizer"),
        (("config.json",), "no tokenizer"),
        (("tokenizer.json",), "no config.json"),
        (("config.json", "tokenizer.json"), ""),
        (("config.json", "tokenizer.model"), ""),
    ],
)
def test_a_model_folder_needs_a_config_and_a_tokenizer(files: tuple[str, ...], missing: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    (finding,) = findings_about("model", model={"name_or_path": str(tmp_path)})
    if missing:
        assert finding.level == "fail"
        assert finding.detail == f"{tmp_path} has {missing}"
        assert "save_pretrained" in finding.cure
    else:  # all files are there, and empty: what is in them is looked at next
        assert finding.level == "fail"
        assert "could not be loaded" in finding.detail or "can't be loaded" in finding.detail


def test_a_missing_data_file_fails_and_a_hub_name_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = findings_about("data", data={"path": "not/here.jsonl"})
    assert (finding.level, finding.cure) == ("fail", "fix data.path")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert findings_about("data", data={"path": "org/dataset"})[0].level == "ok"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert findings_about("data", data={"path": "org/dataset"})[0].level == "warn"


def test_every_source_is_checks(tmp_path: Path) -> None:
    (tmp_path / "here.jsonl").write_text("{}")
    mix = [
        {"path": str(tmp_path / "here.jsonl")},
        {"path": "s3://bucket/there"},
        {"path": str(tmp_path / "gone.jsonl")},
    ]
    assert [finding.level for finding in findings_about("data", data={"mix": mix})] == ["ok", "ok", "fail"]


def test_addresses_are_checks_and_no_password_is_shown() -> None:
    mix = [{"path": uri} for uri in ("s3://KEY:hunter2@bucket/a.jsonl", "s3://KEY:a/hunter2@bucket/a", "s3://[b/a")]
    found = findings_about("data", data={"mix": mix})
    assert [finding.level for finding in found] == ["fail"] * 3
    assert not [finding for finding in found if "hunter2" in finding.detail + finding.cure]


def test_benchmarks_are_checks(tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("Why?\n")
    names = [str(tmp_path / "here.txt"), "s3://bucket/there.txt", str(tmp_path / "gone.txt"), "ftp://host/a.txt"]
    found = findings_about("benchmark", data={"benchmarks": names})
    assert [finding.level for finding in found] == ["ok", "ok", "fail", "fail"]


def test_more_workers_than_cpus_fail_here_and_not_on_another_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_cpus", lambda: 2)
    train = {"num_workers": 3, "cpus_per_worker": 1.0}
    found = {finding.detail.split(" needs")[0]: finding for finding in findings_about("resources", train=train)}
    assert list(found) == ["score", "train rm", "train dpo", "tune", "evaluate"]
    assert found["score"].level == "ok"  # one engine of one CPU
    assert found["train rm"].level == "fail"
    assert found["train rm"].detail.startswith("train rm needs 3 CPU, 0 GPU; this machine has 2 CPU")
    assert "fewer workers" in found["train rm"].cure
    there = findings_about("resources", train=train, cluster={"address": "auto"})
    assert {finding.level for finding in there} == {"ok"}
    # Two workers of one CPU just fit.
    fits = findings_about("resources", train={"num_workers": 2, "cpus_per_worker": 1.0})
    assert {finding.level for finding in fits} == {"ok"}


def test_what_looks_at_pairs_is_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_cpus", lambda: 2)
    scoring = {"judge": {"model": "policy"}, "pair_reward_model": str(tmp_path), "cpus_per_engine": 3}
    found = {finding.what: finding for finding in doctor.diagnose(run_config(scoring=scoring))}
    assert found["judge"].level == "ok"
    assert (found["pair rewards"].level, found["pair rewards"].detail) == (
        "fail",
        f"{tmp_path} has no config.json and no tokenizer",
    )
    assert findings_about("judge") == []
    wanted = [finding.detail.split(";")[0] for finding in findings_about("resources", scoring=scoring)]
    each = "needs 3 CPU, 0 GPU (1 engine(s), tensor 1 x pipeline 1, 3 CPU, 0 GPU each)"
    assert wanted[:2] == ["score pairs needs 3 CPU, 0 GPU", f"score {each}"]
    gone = findings_about("judge", scoring={"judge": {"model": "./not/here"}})
    assert [(finding.level, finding.cure) for finding in gone] == [("fail", "fix scoring.judge.model")]


def test_the_folder_checks_may_not_exist_yet(tmp_path: Path) -> None:
    (finding,) = checks._disk(tmp_path / "not" / "yet")
    assert finding.level in ("ok", "warn")
    assert str(tmp_path) in finding.detail
    if os.geteuid() != 0:  # root may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        assert next(iter(checks._disk(locked / "runs"))).level == "fail"


def test_the_size_of_the_engines_is_told() -> None:
    sizes = {"concurrency": [2, 4], "gpus_per_engine": 8, "tensor_parallel_size": 2, "pipeline_parallel_size": 3}
    found = findings_about("resources", scoring=sizes, cluster={"address": "auto"})
    assert found[0].detail.startswith(
        "score needs 2 CPU, 16 GPU (2 to 4 engine(s), tensor 2 x pipeline 3, 1 CPU, 8 GPU"
    )
    engines = findings_about("engines", scoring=sizes, cluster={"address": "auto"})
    assert [finding.level for finding in engines] == ["ok", "warn"]
    assert "uses 6: the others are idle" in engines[1].detail


def test_engines_that_do_not_fit_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_memory_gib", lambda: (8.0, 8.0))
    (finding,) = findings_about("engines", scoring={"kv_cache_gib": 2, "num_engines": 3})  # 3 * (1 + 2) and a little
    assert finding.level == "fail"
    assert "9.0 GiB of main memory for 3 engine(s)" in finding.detail
    assert findings_about("engines", scoring={"kv_cache_gib": 1, "num_engines": 3})[0].level == "ok"
    (finding,) = findings_about("engines", scoring={"max_model_len": 100_000})
    assert (finding.level, finding.cure) == ("fail", "fix the scoring section")
