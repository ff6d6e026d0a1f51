"""`mapl doctor`: memory by ZeRO stage, open ports, the token file, the model folder, resources, the shipped recipes."""

import json
import os
import re
from pathlib import Path

import pytest

from mapl_ray import doctor, doctor_checks, doctor_memory
from mapl_ray.cli import main
from mapl_ray.config import RunConfig, load_config
from mapl_ray.doctor_checks import Finding

RECIPES = sorted((Path(__file__).resolve().parents[1] / "jobs" / "configs").glob("*.yaml"))


def run_config(**values: object) -> RunConfig:
    return RunConfig.model_validate(values)


# --- memory ---


@pytest.mark.parametrize(
    ("parameters", "stage", "workers", "bf16", "expected"),
    [
        # bf16: 2 weights + 2 gradients + 12 (float32 copy, two moments) = 16 bytes a parameter.
        (7e9, 3, 8, True, 7e9 * 16 / 8),  # everything split: 14e9 bytes
        (7e9, 2, 8, True, 7e9 * (2 + (2 + 12) / 8)),  # weights whole: 2 + 1.75 = 3.75 a parameter
        (7e9, 1, 8, True, 7e9 * (2 + 2 + 12 / 8)),  # weights and gradients whole: 5.5
        (7e9, 0, 8, True, 7e9 * 16),  # nothing split
        # float32: 4 + 4 + 8 (the weights are their own float32 copy) = 16 as well, split otherwise.
        (1e6, 3, 2, False, 8e6),
        (1e6, 2, 2, False, 1e6 * (4 + (4 + 8) / 2)),  # 10e6
        (1e6, 1, 2, False, 1e6 * (4 + 4 + 8 / 2)),  # 12e6
        (1e6, 0, 2, False, 16e6),
        (5e8, 3, 1, True, 5e8 * 16),  # one worker: no stage splits anything
    ],
)
def test_state_bytes(parameters: float, stage: int, workers: int, bf16: bool, expected: float) -> None:
    assert doctor_memory.state_bytes(parameters, stage, workers, bf16=bf16) == pytest.approx(expected)


def test_parameters_are_counted_from_a_models_config(tmp_path: Path) -> None:
    values = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,  # head size 8 / 4 = 2
        "num_key_value_heads": 2,
        "vocab_size": 10,
        "intermediate_size": 16,
    }
    # A layer: q and o 2 * 8*8 = 128; k and v 2 * 8 * (2*2) = 64; MLP 3 * 8*16 = 384; two norms 16: 592.
    # Embeddings, not tied: 2 * 10 * 8 = 160; last norm 8. 160 + 2 * 592 + 8 = 1352.
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert doctor_memory.parameter_count(run_config(model={"name_or_path": str(tmp_path)})) == (
        1352.0,
        f"from {tmp_path / 'config.json'}",
    )
    (tmp_path / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": True}))
    counted = doctor_memory.parameter_count(run_config(model={"name_or_path": str(tmp_path)}))
    assert counted is not None
    assert counted[0] == 1352.0 - 80.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9),  # not the 2.5 of the family's name
        ("meta-llama/Llama-3.1-8B-Instruct", 8e9),
        ("HuggingFaceTB/SmolLM2-135M", 135e6),
        ("gpt2", None),
        ("someone/b2b-model", None),
    ],
)
def test_parameters_are_read_from_a_hub_name(name: str, expected: float | None) -> None:
    counted = doctor_memory.parameter_count(run_config(model={"name_or_path": name}))
    assert (None if counted is None else counted[0]) == expected


def test_a_model_too_large_for_this_machine_fails_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_memory, "_machine_bytes", lambda: 100 * 2.0**30)
    values = {"model": {"name_or_path": "org/model-7B"}, "train": {"zero_stage": 3, "num_workers": 2, "bf16": True}}
    # 7e9 * 16 bytes = 104.3 GiB for all workers together, on CPUs: more than the 100 that are there.
    findings = list(doctor_memory.check_memory(run_config(**values)))
    assert [finding.level for finding in findings] == ["fail", "fail"]
    assert "52.2 GiB a worker" in findings[0].detail
    assert "want 104.3 GiB, this machine has 100.0 GiB" in findings[0].detail
    assert "smaller model" in findings[0].cure
    # Another cluster's memory is not this machine's.
    findings = list(doctor_memory.check_memory(run_config(**values, cluster={"address": "auto"})))
    assert [finding.level for finding in findings] == ["ok", "ok"]


# --- open ports ---

# Listening: 0.0.0.0:8265 (0x2049), 127.0.0.1:6379 (0x18EB), 192.168.1.5:10001 (0x2711). The fourth is a connection,
# not a listener (state 01), the fifth listens on a port that is not Ray's (0x1F90 = 8080).
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:2049 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 100 0 0 10 0
   2: 0501A8C0:2711 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 100 0 0 10 0
   3: 0501A8C0:18EB 0601A8C0:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4 1 0 100 0 0 10 0
   4: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 5 1 0 100 0 0 10 0
"""
# [::]:6379, [::1]:8265 and [::ffff:127.0.0.1]:10001, in the kernel's words of four bytes.
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:18EB 00000000000000000000000000000000:0000 0A 0 0 0
   1: 00000000000000000000000001000000:2049 00000000000000000000000000000000:0000 0A 0 0 0
   2: 0000000000000000FFFF00000100007F:2711 00000000000000000000000000000000:0000 0A 0 0 0
"""


def test_listening_sockets_are_read_from_proc_net_tcp() -> None:
    expected = [("0.0.0.0", 8265), ("127.0.0.1", 6379), ("192.168.1.5", 10001), ("0.0.0.0", 8080)]
    assert list(doctor_checks.listening(TCP)) == expected
    assert [port for _, port in doctor_checks.listening(TCP6)] == [6379, 8265, 10001]
    assert list(doctor_checks.listening("header only\n")) == []


def test_only_rays_ports_beyond_loopback_are_exposed() -> None:
    assert doctor_checks.exposed(doctor_checks.listening(TCP)) == [("0.0.0.0", 8265), ("192.168.1.5", 10001)]
    assert doctor_checks.exposed(doctor_checks.listening(TCP6)) == [("::", 6379)]


def test_an_open_port_without_a_token_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "listening", lambda table: iter([("0.0.0.0", 6379)]))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    (finding,) = doctor_checks.check_endpoints()
    assert finding.level == "fail"
    assert "GCS listens on 0.0.0.0:6379" in finding.detail
    assert "RAY_AUTH_MODE=token" in finding.cure
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (finding,) = doctor_checks.check_endpoints()
    assert finding.level == "warn"  # not proved: said, and not called well


# --- token file ---


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o400, "ok"), (0o640, "fail"), (0o604, "fail")])
def test_the_token_file_is_its_owners_alone(
    mode: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-this-test")
    token.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    (finding,) = doctor_checks.check_token_file()
    assert finding.level == level
    assert f"{mode:04o}" in finding.detail
    assert finding.cure == ("" if level == "ok" else f"chmod 600 {token}")
    assert "secret-of-this-test" not in finding.detail


def test_no_token_file_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert list(doctor_checks.check_token_file()) == []


# --- paths and resources ---


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
    else:
        assert finding.level == "ok"


def test_a_missing_data_file_fails_and_a_hub_name_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = findings_about("data", data={"path": "not/here.jsonl"})
    assert (finding.level, finding.cure) == ("fail", "mend data.path")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert findings_about("data", data={"path": "org/dataset"})[0].level == "ok"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert findings_about("data", data={"path": "org/dataset"})[0].level == "warn"


def test_every_source_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "here.jsonl").write_text("{}")
    mix = [
        {"path": str(tmp_path / "here.jsonl")},
        {"path": "s3://bucket/there"},
        {"path": str(tmp_path / "gone.jsonl")},
    ]
    assert [finding.level for finding in findings_about("data", data={"mix": mix})] == ["ok", "ok", "fail"]


def test_addresses_are_looked_at_and_no_password_is_shown() -> None:
    mix = [{"path": uri} for uri in ("s3://KEY:hunter2@bucket/a.jsonl", "s3://KEY:a/hunter2@bucket/a", "s3://[b/a")]
    found = findings_about("data", data={"mix": mix})
    assert [finding.level for finding in found] == ["fail"] * 3
    assert not [finding for finding in found if "hunter2" in finding.detail + finding.cure]


def test_benchmarks_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("Why?\n")
    names = [str(tmp_path / "here.txt"), "s3://bucket/there.txt", str(tmp_path / "gone.txt"), "ftp://host/a.txt"]
    found = findings_about("benchmark", data={"benchmarks": names})
    assert [finding.level for finding in found] == ["ok", "ok", "fail", "fail"]


def test_more_workers_than_cpus_fail_here_and_not_on_another_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cpus", lambda: 2)
    train = {"num_workers": 3, "cpus_per_worker": 1.0}
    found = {finding.detail.split(" wants")[0]: finding for finding in findings_about("resources", train=train)}
    assert list(found) == ["score", "train rm", "train dpo", "tune", "evaluate"]
    assert found["score"].level == "ok"  # one engine of one CPU
    assert found["train rm"].level == "fail"
    assert found["train rm"].detail.startswith("train rm wants 3 CPU, 0 GPU; this machine has 2 CPU")
    assert "fewer workers" in found["train rm"].cure
    there = findings_about("resources", train=train, cluster={"address": "auto"})
    assert {finding.level for finding in there} == {"ok"}
    # Two workers of one CPU just fit.
    fits = findings_about("resources", train={"num_workers": 2, "cpus_per_worker": 1.0})
    assert {finding.level for finding in fits} == {"ok"}


def test_what_looks_at_pairs_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cpus", lambda: 2)
    scoring = {"judge": {"model": "policy"}, "pair_reward_model": str(tmp_path), "cpus_per_engine": 3}
    found = {finding.what: finding for finding in doctor.diagnose(run_config(scoring=scoring))}
    assert found["judge"].level == "ok"
    assert (found["pair rewards"].level, found["pair rewards"].detail) == (
        "fail",
        f"{tmp_path} has no config.json and no tokenizer",
    )
    assert findings_about("judge") == []
    wanted = [finding.detail.split(";")[0] for finding in findings_about("resources", scoring=scoring)]
    each = "wants 3 CPU, 0 GPU (1 engine(s), tensor 1 x pipeline 1, 3 CPU, 0 GPU each)"
    assert wanted[:2] == ["score pairs wants 3 CPU, 0 GPU", f"score {each}"]
    gone = findings_about("judge", scoring={"judge": {"model": "./not/here"}})
    assert [(finding.level, finding.cure) for finding in gone] == [("fail", "mend scoring.judge.model")]


# --- the command, and the recipes that ship ---


def test_there_are_recipes_from_laptop_to_cluster() -> None:
    names = {path.stem for path in RECIPES}
    assert {"alpaca_eval", "hh", "pandalm", "qwen-0.5b-1gpu", "llama-8b-8gpu", "llama-8b-multinode"} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_doctor_prints_its_estimates(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(path)
    code = main(["doctor", "--config", str(path)])
    out = capsys.readouterr().out
    assert f"run {config.name}: every key and value is valid" in out
    for method in ("rm", "dpo"):
        train = config.training("rm" if method == "rm" else "dpo")
        assert re.search(rf"train {method}: \d+\.\d [GM]iB a worker .*\(ZeRO-{train.zero_stage}, ", out)
        wanted = f"train {method} wants {train.num_workers * train.cpus_per_worker:g} CPU"
        assert wanted in out
    assert code == (1 if re.search(r"^fail ", out, re.MULTILINE) else 0)


@pytest.mark.parametrize(
    ("stem", "estimate"),
    [
        # 8e9 parameters * 16 bytes / 8 workers = 16e9 bytes = 14.9 GiB; over 32 workers 4e9 bytes = 3.7 GiB.
        ("llama-8b-8gpu", "14.9 GiB a worker"),
        ("llama-8b-multinode", "3.7 GiB a worker"),
        # 0.5e9 * 16 bytes on one worker = 8e9 bytes = 7.5 GiB.
        ("qwen-0.5b-1gpu", "7.5 GiB a worker"),
    ],
)
def test_the_recipes_estimates(stem: str, estimate: str) -> None:
    (path,) = (one for one in RECIPES if one.stem == stem)
    findings = list(doctor_memory.check_memory(load_config(path)))
    assert len(findings) == 2
    assert all(estimate in finding.detail for finding in findings)


def test_a_config_that_is_wrong_ends_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train: {zero_stag: 3}\n")
    assert main(["doctor", "--config", str(path)]) == 2
    assert "unknown key 'train.zero_stag'" in capsys.readouterr().err


def test_the_last_line_sums_up_and_cures_stand_below() -> None:
    findings = [Finding("ok", "a", "fine"), Finding("fail", "bee", "broken", "mend it"), Finding("warn", "c", "hm")]
    assert doctor.render(findings).splitlines() == [
        "ok    a    fine",
        "fail  bee  broken",
        "           -> mend it",
        "warn  c    hm",
        "1 ok, 1 to note, 1 to mend",
    ]


def test_the_folder_looked_at_may_not_exist_yet(tmp_path: Path) -> None:
    (finding,) = doctor._disk(tmp_path / "not" / "yet")
    assert finding.level in ("ok", "warn")
    assert str(tmp_path) in finding.detail
    if os.geteuid() != 0:  # root may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        assert next(iter(doctor._disk(locked / "runs"))).level == "fail"


def test_the_size_of_the_engines_is_told() -> None:
    sizes = {"concurrency": [2, 4], "gpus_per_engine": 8, "tensor_parallel_size": 2, "pipeline_parallel_size": 3}
    found = findings_about("resources", scoring=sizes, cluster={"address": "auto"})
    assert found[0].detail.startswith(
        "score wants 2 CPU, 16 GPU (2 to 4 engine(s), tensor 2 x pipeline 3, 1 CPU, 8 GPU"
    )
    engines = findings_about("engines", scoring=sizes, cluster={"address": "auto"})
    assert [finding.level for finding in engines] == ["ok", "warn"]
    assert "uses 6: the others idle" in engines[1].detail


def test_engines_that_do_not_fit_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_memory_gib", lambda: (8.0, 8.0))
    (finding,) = findings_about("engines", scoring={"kv_cache_gib": 2, "num_engines": 3})  # 3 * (1 + 2) and a little
    assert finding.level == "fail"
    assert "9.0 GiB of main memory for 3 engine(s)" in finding.detail
    assert findings_about("engines", scoring={"kv_cache_gib": 1, "num_engines": 3})[0].level == "ok"
    (finding,) = findings_about("engines", scoring={"max_model_len": 100_000})
    assert (finding.level, finding.cure) == ("fail", "mend the scoring section")
