"""What `scoring` may say, and what an engine is started with."""

import json
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.config import RunConfig, ScoringConfig, parse_config
from mapl_ray.distributed.preflight import check_inputs
from mapl_ray.distributed.score import column_scorers
from mapl_ray.errors import UserError
from mapl_ray.scoring import EngineOptions, check_lora, engine_needs


def config(model: Path | str = "tiny", **scoring: Any) -> RunConfig:
    return parse_config({"model": {"name_or_path": str(model)}, "scoring": {"max_model_len": 256, **scoring}}, "test")


@pytest.mark.parametrize(
    ("scoring", "word"),
    [
        ({"concurrency": [3, 2]}, "1 <= min <= max"),
        ({"concurrency": [0, 2]}, "1 <= min <= max"),
        ({"concurrency": [1, 2], "num_engines": 2}, "set one of them"),
        ({"gpus_per_engine": 3, "tensor_parallel_size": 2, "pipeline_parallel_size": 2}, "pipeline_parallel_size = 4"),
        ({"pipeline_parallel_size": 2}, "on CPUs.*tensor_parallel_size instead"),
        ({"chunked_prefill": False, "max_num_batched_tokens": 128}, "at least max_model_len = 256"),
        ({"ref_logps": False, "reward_model": "org/rm", "lora": "here"}, "lora need ref_logps"),
    ],
)
def test_what_contradicts_itself_is_refused(scoring: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        config(**scoring)


def test_every_value_reaches_the_engine() -> None:
    scoring = {
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 3,
        "gpus_per_engine": 6,
        "gpu_memory_utilization": 0.5,
        "prefix_caching": False,
        "chunked_prefill": True,
        "max_num_batched_tokens": 512,
    }
    options = EngineOptions.of(config(**scoring).scoring, "org/m", "abc", "bfloat16", 7, "adapter")
    assert options == EngineOptions(
        model="org/m",
        revision="abc",
        dtype="bfloat16",
        max_model_len=256,
        tensor_parallel_size=2,
        gpus=6,
        gpu_memory_utilization=0.5,
        kv_cache_gib=1,
        seed=7,
        pipeline_parallel_size=3,
        prefix_caching=False,
        chunked_prefill=True,
        max_num_batched_tokens=512,
        lora="adapter",
    )
    assert options.ranks == 6


def test_columns_models_and_revisions(tiny_model: Path) -> None:
    scoring = {"reward_model": "org/rm", "reward_model_revision": "r1", "ref_model": str(tiny_model)}
    logps, rewards = column_scorers(config(tiny_model, **scoring))
    assert (logps.column, logps.options.model, logps.options.revision) == ("ref_logps", str(tiny_model), None)
    assert (rewards.column, rewards.options.model, rewards.options.revision) == ("rewards", "org/rm", "r1")
    # How the work is cut does not decide the scores, so it computes nothing again.
    (cut,) = column_scorers(config(tiny_model, concurrency=[1, 4], batch_groups=7, chunked_prefill=True))
    assert cut.recipe == logps.recipe
    (longer,) = column_scorers(config(tiny_model, max_model_len=300))
    assert longer.recipe != logps.recipe


@pytest.mark.parametrize(
    ("by", "engine_gpus", "worker_gpus", "dtype"),
    [
        ("vllm", 0, 0, "float32"),
        ("vllm", 1, 0, "bfloat16"),
        ("vllm", 0, 1, "float32"),
        ("trainer", 0, 0, "float32"),
        ("trainer", 1, 0, "float32"),  # as training rounds
        ("trainer", 0, 1, "bfloat16"),
    ],
)
def test_weights_are_loaded_in_bfloat16_on_gpus(
    tiny_model: Path, by: str, engine_gpus: int, worker_gpus: int, dtype: str
) -> None:
    values = {
        "model": {"name_or_path": str(tiny_model)},
        "scoring": {"max_model_len": 256, "ref_logps_by": by, "gpus_per_engine": engine_gpus},
        "train": {"gpus_per_worker": worker_gpus},
    }
    (scorer,), (needs,) = column_scorers(parse_config(values, "test")), engine_needs(parse_config(values, "test"))
    assert scorer.options.dtype == dtype
    stored = sum(file.stat().st_size for file in tiny_model.glob("*.safetensors"))  # in float32
    assert needs.weights == pytest.approx(stored / (2 if dtype == "bfloat16" else 1))


def test_another_tokenizer_is_refused_before_the_run(
    tiny_model: Path, tiny_reward_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    import copy
    import shutil

    other = shutil.copytree(tiny_model, tmp_path / "other")
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ messages[0]['content'] }}"
    changed.save_pretrained(other)
    with pytest.raises(UserError, match="they differ in chat template"):
        check_inputs(config(tiny_model, ref_model=str(other)), ("score",))
    with pytest.raises(UserError, match="they differ in chat template"):
        column_scorers(config(tiny_model, ref_model=str(other)))
    # Rewards are of the text: their model reads it with its own tokenizer.
    rewards = shutil.copytree(tiny_reward_model, tmp_path / "rewards")
    changed.save_pretrained(rewards)
    check_inputs(config(tiny_model, reward_model=str(rewards)), ("score",))


def test_an_adapter_that_vllm_does_not_take_is_refused(tmp_path: Path) -> None:
    on_gpu = ScoringConfig(gpus_per_engine=1)
    with pytest.raises(UserError, match=r"no adapter_config\.json"):
        check_lora(str(tmp_path), on_gpu)
    adapter = {"peft_type": "LORA", "r": 8, "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        check_lora(str(tmp_path), on_gpu)
    (tmp_path / "adapter_model.safetensors").touch()
    check_lora(str(tmp_path), on_gpu)
    for wrong in ({"use_dora": True}, {"r": 1024}, {"modules_to_save": ["lm_head"]}, {"peft_type": "IA3"}):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**adapter, **wrong}))
        check_lora(str(tmp_path), ScoringConfig(ref_logps_by="trainer"))  # vLLM never sees it
        with pytest.raises(UserError, match=f"{next(iter(wrong))}=.*merge_and_unload"):
            check_lora(str(tmp_path), on_gpu)


def test_an_adapter_on_a_cpu_is_refused() -> None:
    with pytest.raises(UserError, match=r"on CPUs.*ref_logps_by=trainer.*Merge the adapter"):
        check_lora("somewhere", ScoringConfig())
