"""ref_logps by the trainer's forward pass, on token ids that other tests compare with vLLM's and transformers'."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import RunConfig, parse_config
from mapl_ray.data.records import Rejection, RelationGroup
from mapl_ray.distributed.resources import demand_of
from mapl_ray.distributed.score import column_scorers
from mapl_ray.distributed.score_actor import Actors, start_scorer
from mapl_ray.errors import UserError
from mapl_ray.models import PolicyLogps, load_policy
from mapl_ray.models.forward import frozen
from mapl_ray.scoring import TreeOptions, check_engine, engine_needs, score_groups


def config(model: Path, scoring: dict[str, Any] | None = None, **values: Any) -> RunConfig:
    values = {"train": {"max_sequence_tokens": 256}, **values}
    common = {"ref_logps_by": "trainer", "max_model_len": 256}
    return parse_config(
        {"model": {"name_or_path": str(model)}, "scoring": {**common, **(scoring or {})}, **values}, "test"
    )


def scored(of: RunConfig, groups: list[RelationGroup]) -> torch.Tensor:
    """[groups, 6], by the scorer that an actor starts."""
    (wanted,) = column_scorers(of)
    scorer, error = start_scorer(wanted.column, wanted.options)
    assert error is None
    return torch.tensor([found.to_row()["ref_logps"] for found in score_groups(groups, scorer, "ref_logps")])


def sequences_one_by_one(module: torch.nn.Module, groups: list[RelationGroup], tokenizer: Any) -> torch.Tensor:
    rows = []
    for group in groups:
        encoded = encode_group(group, tokenizer, 256)
        assert isinstance(encoded, EncodedGroup)
        with torch.no_grad():
            rows.append(module(collate([encoded], "padded", tokenizer.pad_token_id)))
    return torch.stack(rows)


def test_values_are_those_of_the_sequences_and_vllm_is_not_imported(
    tiny_model: Path, tokenizer: Any, grid_groups: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # an import of it raises
    groups = grid_groups(7)
    whole = sequences_one_by_one(PolicyLogps(load_policy(tiny_model, "float32")).eval(), groups, tokenizer)
    for train in ({}, {"batching": "padded"}, {"micro_batch_size": 1}, {"micro_batch_size": 3, "row_tokens": 100}):
        found = scored(config(tiny_model, train=train), groups)
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-4)


def test_too_long_is_rejected_and_the_others_keep_their_places(tiny_model: Path, grid_groups: Any) -> None:
    groups = grid_groups(3)
    long = replace(groups[1], responses=("river " * 300, "stone"))
    scorer, _ = start_scorer("ref_logps", TreeOptions.of(config(tiny_model), str(tiny_model), None))
    first, rejected, last = score_groups([groups[0], long, groups[2]], scorer, "ref_logps")
    assert isinstance(rejected, Rejection)
    assert "above max_sequence_tokens=256" in rejected.reason
    expected = scored(config(tiny_model), groups)
    assert torch.equal(torch.tensor([first.to_row()["ref_logps"], last.to_row()["ref_logps"]]), expected[[0, 2]])


def test_bfloat16_of_the_trainer_decides_the_rounding(tiny_model: Path, tokenizer: Any, grid_groups: Any) -> None:
    groups, cpu = grid_groups(4), torch.device("cpu")
    bf16, plain = config(tiny_model, train={"bf16": True}), config(tiny_model)
    found = scored(bf16, groups)
    module = frozen(PolicyLogps(load_policy(tiny_model, "float32")), cpu, bf16=True)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in module.buffers()} == {torch.float32}  # rotary frequencies
    torch.testing.assert_close(found, sequences_one_by_one(module, groups, tokenizer), rtol=0, atol=0.2)
    assert not torch.equal(found, scored(plain, groups))
    recipes = {column_scorers(of)[0].recipe for of in (bf16, plain, config(tiny_model, {"ref_logps_by": "vllm"}))}
    assert len(recipes) == 3


def test_an_adapter_is_applied(tiny_model: Path, tokenizer: Any, grid_groups: Any, tmp_path: Path) -> None:
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    wrapped = get_peft_model(load_policy(tiny_model, "float32"), settings)
    wrapped.save_pretrained(tmp_path / "adapter")
    groups = grid_groups(3)
    found = scored(config(tiny_model, {"lora": str(tmp_path / "adapter")}), groups)
    adapted = sequences_one_by_one(PolicyLogps(wrapped.get_base_model()).eval(), groups, tokenizer)
    torch.testing.assert_close(found, adapted, rtol=0, atol=1e-4)
    assert (found - scored(config(tiny_model), groups)).abs().max() > 0.1


def test_the_gpus_of_an_engine_hold_an_actor_each(tiny_model: Path) -> None:
    four = config(tiny_model, {"num_engines": 2, "gpus_per_engine": 4, "cpus_per_engine": 8, "tensor_parallel_size": 2})
    options = TreeOptions.of(four, str(tiny_model), None)
    assert Actors.of(four.scoring, options) == Actors(8, 8, 2, 1)
    assert demand_of("score", four).in_all == (16, 8)
    assert Actors.of(config(tiny_model).scoring, options) == Actors(1, 1, 1, 0)
    assert options.gpus == 1


def test_limits_of_vllm_do_not_apply_and_those_of_the_model_do(tiny_model: Path) -> None:
    parts = {"tensor_parallel_size": 3, "ref_logps_by": "vllm"}
    with pytest.raises(UserError, match="which it does not divide"):
        check_engine(config(tiny_model, parts))
    check_engine(config(tiny_model, {**parts, "ref_logps_by": "trainer"}))
    with pytest.raises(UserError, match="takes 512 tokens"):
        check_engine(config(tiny_model, {"max_model_len": 1024}))
    (cached,), (not_cached,) = (
        engine_needs(config(tiny_model, {"kv_cache_gib": 7, "ref_logps_by": by})) for by in ("vllm", "trainer")
    )
    sizes = [needs.memory_gib(config(tiny_model, {"kv_cache_gib": 7}).scoring) for needs in (cached, not_cached)]
    assert sizes[0] - sizes[1] == pytest.approx(7.0)
    with pytest.raises(UserError, match="ref_logps_by and lora are of ref_logps"):
        config(tiny_model, {"ref_logps": False})
