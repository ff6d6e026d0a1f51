"""Scores by the trainer's forward pass, on token ids that other tests compare with vLLM's and transformers'."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

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
from mapl_ray.scoring.trees import TreeScorer, TreesInTurn


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
    with pytest.raises(UserError, match="not a multiple of it"):
        check_engine(config(tiny_model, parts))
    check_engine(config(tiny_model, {**parts, "ref_logps_by": "trainer"}))
    with pytest.raises(UserError, match="takes 512 tokens"):
        check_engine(config(tiny_model, {"max_model_len": 1024}))
    (cached,), (not_cached,) = (
        engine_needs(config(tiny_model, {"kv_cache_gib": 7, "ref_logps_by": by})) for by in ("vllm", "trainer")
    )
    sizes = [needs.memory_gib(config(tiny_model, {"kv_cache_gib": 7}).scoring) for needs in (cached, not_cached)]
    assert sizes[0] - sizes[1] == pytest.approx(7.0)
    with pytest.raises(UserError, match="ref_logps_by and lora need ref_logps"):
        config(tiny_model, {"ref_logps": False})


def evaluation_options(of: RunConfig, model: Path, method: Any) -> TreeOptions:
    return TreeOptions.of_evaluation(of, str(model), None, method, max_tokens=256)


def encoded_groups(groups: list[RelationGroup], tokenizer: Any) -> list[EncodedGroup]:
    found = [encode_group(group, tokenizer, 256) for group in groups]
    return [group for group in found if isinstance(group, EncodedGroup)]


def test_evaluation_takes_trees_and_falls_back_to_padded_rows(
    tiny_model: Path, tiny_reward_model: Path, tokenizer: Any, grid_groups: Any, tmp_path: Path
) -> None:
    groups, of = grid_groups(6), config(tiny_model)
    for method, path in (("rm", tiny_reward_model), ("dpo", tiny_model)):
        options = evaluation_options(of, path, method)
        assert (options.dtype, options.bf16, options.batching) == ("float32", False, "auto")
        trees = TreeScorer(options)
        forced = TreeScorer(evaluation_options(config(tiny_model, train={"batching": "padded"}), path, method))
        assert (trees.batching, forced.batching) == ("tree", "padded")
        some = encoded_groups(groups, tokenizer)
        a, b = (torch.tensor(scorer.score_trees(some)) for scorer in (trees, forced))
        # Log-probabilities are sums over up to 30 tokens.
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 if method == "rm" else 1e-4)
    bloom = AutoConfig.for_model("bloom", vocab_size=len(tokenizer), hidden_size=32, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(bloom).save_pretrained(folder := tmp_path / "bloom")
    tokenizer.save_pretrained(folder)
    other = TreeScorer(evaluation_options(of, folder, "dpo"))
    assert other.batching == "padded"
    assert len(other.score_trees(encoded_groups(groups, tokenizer))) == 6


def test_on_gpus_the_body_is_bfloat16_and_the_head_float32(
    tiny_model: Path, tiny_reward_model: Path, tokenizer: Any, grid_groups: Any
) -> None:
    """The same options on a CPU, which rounds as well."""
    groups, of = encoded_groups(grid_groups(4), tokenizer), config(tiny_model, evaluation={"gpus": 1})
    for method, path in (("rm", tiny_reward_model), ("dpo", tiny_model)):
        on_gpu = evaluation_options(of, path, method)
        assert (on_gpu.gpus, on_gpu.bf16, on_gpu.float32_head) == (1, True, True)
        scorer = TreeScorer(replace(on_gpu, gpus=0))
        model = scorer._scores.model
        head = model.score if method == "rm" else model.get_output_embeddings()
        assert head.weight.dtype == torch.float32
        assert {p.dtype for p in model.parameters() if p is not head.weight} == {torch.bfloat16}
        exact = TreeScorer(replace(on_gpu, gpus=0, bf16=False, float32_head=False))
        found, expected = (torch.tensor(one.score_trees(groups)) for one in (scorer, exact))
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)
        assert on_gpu.recipe != replace(on_gpu, float32_head=False).recipe


def test_one_model_is_in_memory_at_a_time(
    tiny_model: Path, tiny_reward_model: Path, tokenizer: Any, grid_groups: Any
) -> None:
    of, some, turns = config(tiny_model), encoded_groups(grid_groups(2), tokenizer), TreesInTurn()
    wanted = [evaluation_options(of, path, method) for method, path in (("rm", tiny_reward_model), ("dpo", tiny_model))]
    found = []
    for options in (*wanted, wanted[0]):
        scorer = turns.scorer(options)
        turns.take(options)
        found.append(scorer.score_trees(some))
    assert found[0] == found[2] == TreeScorer(wanted[0]).score_trees(some)
    assert found[1] == TreeScorer(wanted[1]).score_trees(some)
