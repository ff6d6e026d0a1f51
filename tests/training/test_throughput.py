"""What a step costs, against torch's own count of what was multiplied."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import MambaConfig, MambaForCausalLM, MixtralConfig, MixtralForCausalLM

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model
from mapl_ray.training.throughput import FlopCounter, StepCost, peak_flops, peak_of


@pytest.mark.parametrize("method", ["rm", "dpo"])
def test_flops_are_what_torch_counts(method: str, tiny_model: Path, tokenizer: Any, grid_groups: Any) -> None:
    model = load_reward_model(tiny_model, "float32", seed=0) if method == "rm" else load_policy(tiny_model, "float32")
    model.set_attn_implementation("eager")  # its products are counted one by one
    module = RewardScores(model) if method == "rm" else PolicyLogps(model)
    group = encode_group(grid_groups(1)[0], tokenizer, 512)
    assert isinstance(group, EncodedGroup)
    batch = collate([replace(group, sequences=group.sequences[:1], relations=())], "padded", tokenizer.pad_token_id)
    with FlopCounterMode(display=False) as counter:
        module(batch).sum().backward()
    flops = FlopCounter.of(model)
    assert flops is not None
    length = batch.num_tokens
    # torch counts the masked half of attention too: T * T, where the model needs T * (T + 1) / 2
    masked = 12 * flops.attention * (length * length - length * (length + 1) // 2)
    assert masked > 0.01 * flops(batch)
    assert flops(batch) + masked == pytest.approx(counter.get_total_flops(), rel=0.01)  # N counts norms as well


def test_trees_and_frozen_weights_cost_less(tiny_model: Path, tokenizer: Any, grid_groups: Any) -> None:
    groups = [group for g in grid_groups(4) if isinstance(group := encode_group(g, tokenizer, 512), EncodedGroup)]
    model = load_policy(tiny_model, "float32")
    whole = FlopCounter.of(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    frozen = FlopCounter.of(model)
    assert whole is not None
    assert frozen is not None
    tree, padded = (collate(groups, batching, tokenizer.pad_token_id) for batching in ("tree", "padded"))
    assert whole(padded) / whole(tree) > 1.5
    assert whole(tree) - frozen(tree) == 2 * whole.weights * tree.num_tokens
    # every token sees its prefix: in a padded batch that is 1 + 2 + ... + T of every sequence
    lengths = [len(g.token_ids(i)) for g in groups for i in range(6)]
    seen = sum(length * (length + 1) // 2 for length in lengths)
    products = 6 * (whole.weights * padded.num_tokens + whole.head * padded.source_E.numel())
    assert whole(padded) == products + 12 * whole.attention * seen


def test_what_the_formula_does_not_fit_is_not_counted() -> None:
    config = MixtralConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    assert FlopCounter.of(MixtralForCausalLM(config)) is None
    recurrent = MambaConfig(vocab_size=32, hidden_size=32, num_hidden_layers=1, state_size=4)
    assert FlopCounter.of(MambaForCausalLM(recurrent)) is None


def test_peaks_are_found_by_name() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA H100 NVL": 835e12, "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA A10G": 70e12, "NVIDIA L4": 121e12, "NVIDIA L40S": 362e12,
        "NVIDIA GeForce RTX 4090": 165.2e12, "NVIDIA RTX A1000": None, "Tesla T4": None,
    }  # fmt: skip
    assert {name: peak_of(name) for name in names} == names


def test_rates_by_hand() -> None:
    cost = StepCost(groups=6, tokens=300, slots=400, flops=5e12)
    rates = {"tokens_per_second": 150.0, "groups_per_second": 3.0, "padding_share": 0.25}
    assert cost.rates(2.0, peak_flops=None) == rates
    assert cost.rates(2.0, peak_flops=1e13) == {**rates, "mfu": 0.25}
    assert peak_flops(torch.device("cpu"), bf16=True) is None
