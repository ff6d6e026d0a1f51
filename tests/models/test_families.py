"""Families: trees, several in a row, equal their sequences one by one; models for which that can't be are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaForCausalLM

from mapl_ray.batches import Batch, EncodedGroup, collate, encode_group
from mapl_ray.config import LevelWeights
from mapl_ray.errors import UserError
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, prepare_for_trees
from mapl_ray.models.flex_attention import FLEX, FLEX_BLOCK
from mapl_ray.models.tree_attention import plain_attention, row_budget
from mapl_ray.objective import dpo_rewards, relation_loss

Outcome = tuple[torch.Tensor, float, dict[str, torch.Tensor]]
WINDOW = {"sliding_window": 9}  # below the length of every sequence here
SLIDING = {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", {}),
    "Qwen2": ("qwen2", {}),
    "Qwen2, window": ("qwen2", SLIDING),
    "Qwen3": ("qwen3", SLIDING),
    "Mistral": ("mistral", WINDOW),
    "Gemma": ("gemma", {}),
    "Gemma 2": ("gemma2", WINDOW),
    "Gemma 3": ("gemma3_text", WINDOW),
    "Phi-3": ("phi3", WINDOW),
    "OLMo 2": ("olmo2", {}),
    "Cohere": ("cohere", {"logit_scale": 0.5}),
    "Cohere 2": ("cohere2", WINDOW),
    "Granite": ("granite", {"logits_scaling": 3.0, "attention_multiplier": 0.3}),
    "Mixtral": ("mixtral", {"num_local_experts": 2}),
}
CAPPED = ("Gemma 2",)
WITHOUT_HEAD = ("Cohere", "Cohere 2", "Granite")  # transformers has no reward model of these
BASE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_labels": 1,
}


def build(kind: str, options: dict[str, Any], auto: Any, tokenizer: Any) -> Any:
    """A model of random weights."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **options)
    return enlarged(auto.from_config(config, attn_implementation=plain_attention(config)))


def enlarged(model: Any) -> Any:
    """With weights so large that attention matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.eval()


def outcome(module: Any, batch: Batch) -> Outcome:
    """What the module gives, the loss of all levels, and its gradients."""
    outputs_S = module(batch)
    rewards_S = outputs_S
    if isinstance(module, PolicyLogps):
        assert batch.ref_logps_S is not None
        rewards_S = dpo_rewards(outputs_S, batch.ref_logps_S, beta=0.1)
    loss = relation_loss(rewards_S, batch.relations, LevelWeights()).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return outputs_S.detach(), loss.item(), gradients


def assert_same(found: Outcome, expected: Outcome) -> None:
    # Logps are sums of a hundred nats and more: float32 has 6 digits of them.
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=1e-5)
    assert found[1] == pytest.approx(expected[1], abs=1e-5)
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def groups(tokenizer: Any, grid_groups: Any) -> list[EncodedGroup]:
    found = [encode_group(group, tokenizer, 512) for group in grid_groups(4)]
    return [group for group in found if isinstance(group, EncodedGroup)]


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_equal_padded(family: str, groups: list[EncodedGroup], tokenizer: Any) -> None:
    kind, options = FAMILIES[family]
    for auto, wrap in ((AutoModelForSequenceClassification, RewardScores), (AutoModelForCausalLM, PolicyLogps)):
        if wrap is RewardScores and family in WITHOUT_HEAD:
            continue
        model = build(kind, {**BASE, **options}, auto, tokenizer)
        module = wrap(model)
        padded = outcome(module, collate(groups, "padded", tokenizer.pad_token_id))
        assert max(gradient.abs().max().item() for gradient in padded[2].values()) > 1e-3
        prepare_for_trees(model)
        batch = collate(groups, "tree", tokenizer.pad_token_id, row_tokens=row_budget(model))
        assert_same(outcome(module, batch), padded)
        if family in CAPPED:
            with pytest.raises(UserError, match=r"train\.attention=branches: no support for the soft cap"):
                prepare_for_trees(model, "branches")
            continue
        for attention in ("branches", "dense"):
            prepare_for_trees(model, attention)
            batch = collate(groups, "tree", tokenizer.pad_token_id, row_tokens=row_budget(model))
            assert_same(outcome(module, batch), padded)


@pytest.mark.parametrize(
    "family",
    [family if family in ("Llama", "Gemma 2") else pytest.param(family, marks=pytest.mark.long) for family in FAMILIES],
)
@pytest.mark.usefixtures("flex_on_cpu")
def test_trees_by_flex_attention_equal_padded(family: str, groups: list[EncodedGroup], tokenizer: Any) -> None:
    """A GPU's way as it is batched there, backward pass and gradient checkpointing included, without its kernels."""
    kind, options = FAMILIES[family]
    model = build(kind, {**BASE, **options}, AutoModelForCausalLM, tokenizer)
    module = PolicyLogps(model)
    padded = outcome(module, collate(groups, "padded", tokenizer.pad_token_id))
    model.set_attn_implementation(FLEX)
    batch = collate(groups, "tree", tokenizer.pad_token_id, FLEX_BLOCK, row_tokens=row_budget(model))
    assert batch.input_ids.shape[0] < len(groups)
    trees = outcome(module, batch)
    assert_same(trees, padded)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    again = outcome(module.train(), batch)
    assert torch.equal(again[0], trees[0])
    assert all(torch.equal(again[2][name], gradient) for name, gradient in trees[2].items())


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("falcon", {"alibi": True, "num_attention_heads": 2, "hidden_size": 32, "num_hidden_layers": 1}, "ALiBi"),
        ("jamba", {**BASE, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1}, "recurrent"),
        ("llama4_text", {**BASE, "num_local_experts": 2, "attention_chunk_size": 64}, "chunked_attention"),
    ],
)  # fmt: skip
def test_refused_with_the_cure(kind: str, options: dict[str, Any], reason: str, tokenizer: Any) -> None:
    with pytest.raises(UserError, match=rf"{kind} .*{reason}.*train.batching=padded"):
        prepare_for_trees(build(kind, options, AutoModelForCausalLM, tokenizer))


class CountsAlongTheRow(LlamaForCausalLM):
    """A model that takes `position_ids` and doesn't use them."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.rotary_emb.register_forward_pre_hook(
            lambda module, args, kwargs: ((args[0], torch.arange(args[0].shape[1])[None]), {}), with_kwargs=True
        )


def test_what_the_config_does_not_tell_is_found_by_trying(tokenizer: Any) -> None:
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **BASE)
    torch.manual_seed(0)
    prepare_for_trees(enlarged(LlamaForCausalLM(config)))
    with pytest.raises(UserError, match="values for a tree differ from those for its sequences"):
        prepare_for_trees(enlarged(CountsAlongTheRow(config)))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}),
    ],
)
def test_refused_ones_work_with_padded_batches(
    kind: str, options: dict[str, Any], groups: list[EncodedGroup], tokenizer: Any, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **options)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_policy(tmp_path, "float32").eval()
    logps_S = PolicyLogps(model)(collate(groups[:1], "padded", tokenizer.pad_token_id))
    ids = torch.tensor([groups[0].token_ids(1)])
    start = groups[0].prompt_length(1)
    logps = model(input_ids=ids).logits[0].log_softmax(-1)
    expected = sum(logps[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1]))
    assert logps_S[1].item() == pytest.approx(expected, abs=1e-3)
    with pytest.raises(UserError, match=r"train\.batching=padded"):
        prepare_for_trees(model)
