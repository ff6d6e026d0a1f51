"""4-bit weights on a CPU: products in the model's dtype, and the same gradients before and after an evaluation."""

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch

from mapl_ray.batches import Batch, EncodedGroup, collate, encode_group
from mapl_ray.config import LoraConfig
from mapl_ray.models import RewardScores, load_reward_model
from mapl_ray.training.module import with_adapter


@pytest.fixture
def adapted(tiny_model: Path) -> RewardScores:
    """A reward model of 4-bit weights with adapters that change its output."""
    model = load_reward_model(tiny_model, "float32", seed=0, four_bit=True)
    wrapped = with_adapter(model, LoraConfig(r=4, alpha=8, quantize="4bit"), "rm", seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=generator)
    return RewardScores(wrapped.get_base_model())


@pytest.fixture
def batch(tokenizer: Any, grid_groups: Any) -> Batch:
    found = [encode_group(group, tokenizer, 256) for group in grid_groups(2)]
    return collate([group for group in found if isinstance(group, EncodedGroup)], "padded", tokenizer.pad_token_id)


def gradients(module: RewardScores, batch: Batch) -> dict[str, torch.Tensor]:
    module.train()
    module.zero_grad()
    module(batch).sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_an_evaluation_changes_no_gradient(adapted: RewardScores, batch: Batch) -> None:
    """Adapters of the first layer get theirs through all 4-bit layers above."""
    before = gradients(adapted, batch)
    assert any("layers.0." in name and gradient.abs().max() > 1e-3 for name, gradient in before.items())
    adapted.eval()
    with torch.no_grad():
        adapted(batch)
    after = gradients(adapted, batch)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_products_are_computed_in_the_models_dtype(adapted: RewardScores) -> None:
    """In evaluation as in training: that of float32 and the dequantized weights, to float32's rounding."""
    layers = [layer for layer in adapted.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert layers
    for layer in layers:
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        assert weight.dtype == torch.float32
        inputs = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected = inputs @ weight.T
            for mode in (True, False):
                torch.testing.assert_close(layer.train(mode)(inputs), expected, rtol=1e-5, atol=1e-5)
