"""`mapl doctor`: parameters and memory by ZeRO stage."""

import json
from pathlib import Path

import pytest

from mapl_ray import model_states
from mapl_ray.config import RunConfig, load_config
from mapl_ray.doctor import memory_fit
from mapl_ray.doctor.finding import Finding

RECIPES = sorted((Path(__file__).resolve().parents[2] / "jobs" / "configs").glob("*.yaml"))


def run_config(**values: object) -> RunConfig:
    return RunConfig.model_validate(values)


@pytest.mark.parametrize(
    ("parameters", "stage", "workers", "bf16", "expected"),
    [
        # bf16: 2 weights + 4 gradients (float32 sums) + 12 (float32 copy, two moments) = 18 bytes a parameter.
        (7e9, 3, 8, True, 7e9 * 18 / 8),  # everything split
        (7e9, 2, 8, True, 7e9 * (2 + (4 + 12) / 8)),  # weights whole: 2 + 2 = 4 a parameter
        (7e9, 1, 8, True, 7e9 * (2 + 6 + 12 / 8)),  # gradients whole, in bfloat16 beside their sums: 9.5
        (7e9, 0, 8, True, 7e9 * 20),  # nothing split
        # float32: 4 + 4 + 8, and from stage 1 on a copy of the weights, 4, as well.
        (1e6, 3, 2, False, 1e6 * (4 + 4 + 12) / 2),  # 10e6
        (1e6, 2, 2, False, 1e6 * (4 + (4 + 12) / 2)),  # 12e6
        (1e6, 1, 2, False, 1e6 * (4 + 4 + 12 / 2)),  # 14e6
        (1e6, 0, 2, False, 16e6),
        (5e8, 3, 1, True, 5e8 * 18),  # one worker: no stage splits anything
    ],
)
def test_state_bytes(parameters: float, stage: int, workers: int, bf16: bool, expected: float) -> None:
    assert model_states.state_bytes(parameters, stage, workers, bf16=bf16) == pytest.approx(expected)


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
    assert model_states.parameter_count(run_config(model={"name_or_path": str(tmp_path)})) == (
        1352.0,
        f"from {tmp_path / 'config.json'}",
    )
    (tmp_path / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": True}))
    counted = model_states.parameter_count(run_config(model={"name_or_path": str(tmp_path)}))
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
    counted = model_states.parameter_count(run_config(model={"name_or_path": name}))
    assert (None if counted is None else counted[0]) == expected


def test_a_model_too_large_for_this_machine_fails_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_fit, "_machine_bytes", lambda: 100 * 2.0**30)
    values = {"model": {"name_or_path": "org/model-7B"}, "train": {"zero_stage": 3, "num_workers": 2, "bf16": True}}
    # 7e9 * 18 bytes = 117.3 GiB for all workers together, on CPUs: more than the 100 that are there.
    findings = list(memory_fit.check_memory(run_config(**values)))
    assert [finding.level for finding in findings] == ["fail", "fail"]
    assert "58.7 GiB per worker" in findings[0].detail
    assert "need 117.3 GiB, this machine has 100.0 GiB" in findings[0].detail
    assert "smaller model" in findings[0].cure
    # Another cluster's memory is not this machine's.
    findings = list(memory_fit.check_memory(run_config(**values, cluster={"address": "auto"})))
    assert [finding.level for finding in findings] == ["ok", "ok"]


def test_the_second_copy_of_weights_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_fit, "_machine_bytes", lambda: 200 * 2.0**30)
    monkeypatch.setattr(memory_fit, "_gpu_bytes", lambda: 21 * 2.0**30)
    train: dict[str, object] = {"zero_stage": 3, "num_workers": 8, "bf16": True, "zero_hpz_partition_size": 2}

    def of(**more: object) -> list[Finding]:
        return list(memory_fit.check_memory(run_config(model={"name_or_path": "org/m-7B"}, train={**train, **more})))

    # 7e9 * 18 / 8 = 14.67 GiB and 7e9 * 2 / 2 = 6.52 GiB a worker; eight of them want 169.5 GiB.
    on_cpus, _ = of()
    assert on_cpus.level == "ok"
    assert "21.2 GiB per worker" in on_cpus.detail
    assert "of which 6.5 GiB for the second copy of weights (hpZ)" in on_cpus.detail
    on_gpus, _ = of(gpus_per_worker=1)
    assert on_gpus.level == "fail"
    assert str(on_gpus.cure).startswith("train.zero_hpz_partition_size=1")
    offloaded, _ = of(gpus_per_worker=1, offload="optimizer+parameters")
    assert (offloaded.level, "14.7 GiB per worker" in offloaded.detail) == ("ok", True)
    assert "6.5 GiB more in main memory for the second copy" in offloaded.detail
    without, _ = of(zero_hpz_partition_size=1)
    assert "copy" not in without.detail


def test_a_second_copy_on_one_node_is_warned_of() -> None:
    train = {"zero_stage": 3, "num_workers": 16, "zero_hpz_partition_size": 8}
    here = [*memory_fit.check_second_copy(run_config(train=train))]
    assert [(one.level, one.what) for one in here] == [("warn", "hpZ")] * 2
    of_cluster = {"address": "auto"}
    assert [*memory_fit.check_second_copy(run_config(train=train, cluster=of_cluster))] == []
    (rm,) = memory_fit.check_second_copy(run_config(train=train, cluster=of_cluster, rm={"num_workers": 8}))
    assert rm.detail.startswith("train rm")


def test_float32_on_gpus_is_warned_of() -> None:
    gpus: dict[str, object] = {
        "train": {"gpus_per_worker": 1, "bf16": False},
        "scoring": {"gpus_per_engine": 1},
        "model": {"dtype": "float32"},
    }
    slow = [*memory_fit.check_precision(run_config(**gpus))]
    assert [(one.level, one.detail.split(":")[0]) for one in slow] == [
        ("warn", "train rm"),
        ("warn", "train dpo"),
        ("warn", "score"),
    ]
    assert all("float32" in one.detail and "bf" in str(one.cure) for one in slow)
    (rm,) = memory_fit.check_precision(
        run_config(**{**gpus, "model": {"dtype": "bfloat16"}}, dpo={"bf16": True})  # the reward model stays in float32
    )
    assert rm.detail.startswith("train rm")
    default = {"train": {"gpus_per_worker": 1}, "scoring": {"gpus_per_engine": 1}}
    assert [*memory_fit.check_precision(run_config(**default))] == []
    assert [*memory_fit.check_precision(run_config())] == []  # CPUs


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_computes_in_float32_on_gpus(path: Path) -> None:
    assert [*memory_fit.check_precision(load_config(path))] == []
