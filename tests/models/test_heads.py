"""Output layers: logits in pieces give the same and keep less; a float32 head tells near rewards apart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.models import PolicyLogps, heads, load_policy
from mapl_ray.models.heads import Float32Head, replace_linear


def test_logits_in_pieces_give_the_same_and_keep_less(
    tiny_model: Path, tokenizer: Any, grid_groups: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_policy(tiny_model, "float32")
    module = PolicyLogps(model)
    groups = [encode_group(group, tokenizer, 512) for group in grid_groups(3)]
    batch = collate([group for group in groups if isinstance(group, EncodedGroup)], "padded", tokenizer.pad_token_id)
    edges, vocabulary = len(batch.target_E), model.config.vocab_size
    assert edges > 40

    def outcome(piece: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
        """Log-probabilities, gradients, and bytes kept for the backward pass in tensors as wide as the vocabulary."""
        monkeypatch.setattr(heads, "PIECE", piece)
        kept: dict[int, int] = {}

        def keep(x: torch.Tensor) -> torch.Tensor:
            if x.shape[-1:] == (vocabulary,):
                kept[x.data_ptr()] = x.nbytes
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            logps_S = module(batch)
        (logps_S * torch.arange(1, len(logps_S) + 1)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        module.zero_grad()
        return logps_S.detach(), gradients, sum(kept.values())

    whole, pieces = outcome(10**6), outcome(16)
    assert torch.equal(whole[0], pieces[0])
    torch.testing.assert_close(pieces[1], whole[1], rtol=1e-4, atol=1e-4)
    assert whole[2] >= edges * vocabulary * 4
    assert pieces[2] == 0
    assert torch.equal(model(input_ids=batch.input_ids[:1]).logits, nn.Linear.forward(
        model.lm_head, model.model(input_ids=batch.input_ids[:1]).last_hidden_state
    ))  # the model itself gives logits as before  # fmt: skip


def test_a_float32_head_has_no_ties() -> None:
    """Rewards near 1 whose differences have a standard deviation of 0.02, of bfloat16 weights and hidden states."""
    torch.manual_seed(0)
    head = nn.Linear(512, 1, bias=False)
    weight = head.weight.detach()[0]
    hidden = torch.randn(2000, 512)
    hidden += ((1.0 - hidden @ weight) / (weight @ weight))[:, None] * weight
    other = hidden + (0.02 * torch.randn(2000) / (weight @ weight))[:, None] * weight
    head, pairs = head.bfloat16(), (hidden.bfloat16(), other.bfloat16())
    rounded = torch.eq(*(head(x).float() for x in pairs)).float().mean()
    assert replace_linear(head, Float32Head)
    exact = [head(x) for x in pairs]
    assert rounded > 0.05
    differ = (pairs[0] != pairs[1]).any(1)
    assert differ.sum() > 1900
    assert torch.eq(*exact)[differ].sum() == 0
    assert exact[0].dtype == torch.float32
    exact[0].sum().backward()
    assert head.weight.grad is not None
    assert head.weight.grad.dtype == torch.bfloat16


def test_layers_of_other_classes_are_left_alone() -> None:
    class Adapted(nn.Linear):
        pass

    layer = Adapted(2, 2)
    assert not replace_linear(layer, Float32Head)
    assert type(layer) is Adapted
