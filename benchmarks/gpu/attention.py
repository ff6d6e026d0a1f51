"""Points F1 to F3 and F5: correctness of trees, number of graphs, speed of attention, the output layer in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from benchmarks.gpu.material import Figures, Setting, drawn, grid_groups, median_seconds, peak_gib, tree_batch
from mapl_ray.batches import collate
from mapl_ray.errors import RunError
from mapl_ray.models import PolicyLogps, flex_attention, heads, prepare_for_trees
from mapl_ray.models.flex_attention import FLEX_BLOCK, block_mask, tree_flex_attention
from mapl_ray.models.heads import PiecewiseHead, replace_linear
from mapl_ray.models.part_attention import part_attention, subtree_mask
from mapl_ray.models.tree_attention import plain_attention
from mapl_ray.models.varlen_attention import varlen_attention

_BASE = {"vocab_size": 512, "intermediate_size": 256, "num_hidden_layers": 2, "pad_token_id": 0}
_FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "head 64, 14/2 heads": (LlamaConfig, LlamaForCausalLM, {"head_dim": 64, "heads": (14, 2)}),
    "head 96, 4/4 heads": (LlamaConfig, LlamaForCausalLM, {"head_dim": 96, "heads": (4, 4)}),
    "head 128, 32/8 heads": (LlamaConfig, LlamaForCausalLM, {"head_dim": 128, "heads": (32, 8)}),
    "head 256, 4/2 heads": (LlamaConfig, LlamaForCausalLM, {"head_dim": 256, "heads": (4, 2)}),
    "window": (MistralConfig, MistralForCausalLM, {"head_dim": 64, "heads": (8, 2), "sliding_window": 64}),
    "window and soft cap": (
        Gemma2Config, Gemma2ForCausalLM,
        {"head_dim": 64, "heads": (8, 4), "sliding_window": 64, "query_pre_attn_scalar": 64},
    ),
}  # fmt: skip
_BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def right_values(setting: Setting) -> Figures:
    """F1: largest relative difference of logps and gradients, trees against padded sequences; peak of a wide row."""
    figures: Figures = {}
    types = [torch.float32, torch.bfloat16] if setting.device == "cuda" else [torch.float32]
    for name, (config_class, model_class, options) in _FAMILIES.items():
        options = dict(options)
        query_heads, key_heads = options.pop("heads")
        width = {"hidden_size": query_heads * options["head_dim"]}
        config = config_class(
            **{**_BASE, **options, **width, "num_attention_heads": query_heads, "num_key_value_heads": key_heads}
        )
        for dtype in types:
            model = drawn(model_class, config, setting.device, dtype)
            prepare_for_trees(model, setting.attention, setting.device)
            trees, plain, module = model.config._attn_implementation, plain_attention(model.config), PolicyLogps(model)
            groups, found = grid_groups(3, 600, 512), []
            for implementation in (trees, plain):
                model.set_attn_implementation(implementation)
                padded = collate(groups, "padded", 0).to(setting.device)
                logps = module(tree_batch(model, groups, setting) if implementation == trees else padded)
                weights = torch.linspace(-1.0, 1.0, len(logps), device=logps.device)
                model.zero_grad()
                (logps * weights).sum().backward()
                found.append((logps.detach(), torch.cat([p.grad.flatten().float() for p in model.parameters()])))
            for what, one, other in zip(("logps", "gradients"), *found, strict=True):
                off = float((one - other).norm() / other.norm())
                figures[f"{name}, {dtype}: {what}".replace("torch.", "")] = off
                assert off < _BOUNDS[dtype], (name, dtype, what, off)
    if setting.device == "cuda":
        query = torch.randn(1, 32, 16_384, 128, device="cuda", dtype=torch.bfloat16)
        key = torch.randn(1, 8, 16_384, 128, device="cuda", dtype=torch.bfloat16)
        mask = _chain(16_384 // FLEX_BLOCK, setting)[2]
        with peak_gib(setting, figures, "peak of one layer at T=16,384, GiB"):
            tree_flex_attention(torch.nn.Module(), query, key, key, mask)
        assert float(figures["peak of one layer at T=16,384, GiB"]) < 4  # scores of T by T would take 17
    return figures


def _chain(blocks: int, setting: Setting, window: int | None = None) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """A chain with a leaf at every second token: subtree ends, positions, FlexAttention's mask."""
    places = torch.arange(blocks * FLEX_BLOCK, device=setting.device)
    end = torch.where(places % 2 == 0, len(places), places + 1)[None]
    positions = ((places + 1) // 2)[None]
    return end, positions, block_mask(end, positions, window)


def few_graphs(setting: Setting) -> Figures:
    """F2: number of graphs for 12 widths, with and without gradient and window; an error beyond the limit."""
    if setting.device != "cuda":
        return {"not run": "FlexAttention's backward pass needs a GPU; tests/models/test_flex_attention.py traces it"}
    torch._dynamo.reset()
    counters.clear()
    began = time.perf_counter()

    def attend(blocks: int, grad: bool, window: int | None) -> None:
        width = blocks * FLEX_BLOCK
        q, k, v = (
            torch.randn(1, n, width, 64, device="cuda", dtype=torch.bfloat16, requires_grad=grad) for n in (4, 2, 2)
        )
        with torch.set_grad_enabled(grad):
            out, _ = tree_flex_attention(torch.nn.Module(), q, k, v, _chain(blocks, setting, window)[2])
            if grad:
                out.float().sum().backward()

    for number in range(12):
        attend(3 + number, number % 2 == 0, None if number % 3 else 50)
        attend(3 + number, number % 2 == 1, None if number % 3 else 50)
    figures: Figures = {
        "graphs": counters["stats"]["unique_graphs"],
        "seconds, compiling included": round(time.perf_counter() - began, 1),
    }
    assert counters["stats"]["unique_graphs"] <= 5, figures
    torch._dynamo.reset()
    before, flex_attention.VARIANTS = flex_attention.VARIANTS, 2
    try:
        attend(3, False, None)
        attend(3, True, None)
        attend(3, True, 40)
    except RunError:
        figures["beyond the limit"] = "an error"
    finally:
        flex_attention.VARIANTS = before
    assert "beyond the limit" in figures
    return figures


def speed_of_attention(setting: Setting) -> Figures:
    """F3: milliseconds of one layer (32/8 heads of 128), forward and backward, by attention and tokens of a row."""
    figures: Figures = {}
    for tokens in setting.sizes([2048, 8192, 32_768], [512]):
        figures |= _speed(setting, tokens)
    return figures


def _speed(setting: Setting, tokens: int) -> Figures:
    on_gpu = setting.device == "cuda"
    shape = (tokens, 128 if on_gpu else 16)
    query, key, value = (
        torch.randn(1, heads, *shape, device=setting.device, dtype=setting.dtype, requires_grad=True)
        for heads in (32, 8, 8)
    )
    end, module = _grid_ends(tokens).to(setting.device), torch.nn.Module()
    module.num_key_value_groups = 4  # an attribute of a model's attention layers
    lengths = subtree_mask(end, None)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "causal row": lambda: scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True),
        "branches": lambda: part_attention(module, query, key, value, lengths, call_cost=0)[0],
    }
    if on_gpu:
        mask = block_mask(end, torch.zeros_like(end), None)
        ways["flex"] = lambda: tree_flex_attention(module, query, key, value, mask)[0]
        ways["varlen"] = lambda: varlen_attention(module, query, key, value, lengths)[0]
    seconds = {
        name: median_seconds(setting, lambda way=way: way().float().sum().backward()) for name, way in ways.items()
    }
    outputs = {name: way().detach().float() for name, way in ways.items() if name != "causal row"}
    for name, output in outputs.items():
        off = float((output - outputs["branches"]).abs().max())
        assert off < 0.05, (name, tokens, off)
    return {f"{name}, T={tokens}, ms": round(1000 * spent, 2) for name, spent in seconds.items()}


def _grid_ends(tokens: int) -> torch.Tensor:
    """Subtree ends, [1, tokens], of a row of grid groups of about 2,048 tokens each."""
    groups = grid_groups(max(1, tokens // 2048), min(tokens, 2048), 512)
    end = collate(groups, "tree", 0, tokens, 10 * tokens).subtree_end
    assert end is not None
    return end[:, :tokens].clamp(max=tokens)


def logits_in_pieces(setting: Setting) -> Figures:
    """F5: peak and milliseconds of logits, forward and backward, whole and in pieces, which are bit-equal."""
    figures: Figures = {}
    for vocabulary in setting.sizes([128_256, 151_936], [512]):
        for rows in setting.sizes([4096, 16_384], [300]):
            figures |= _logits(setting, vocabulary, rows)
    return figures


def _logits(setting: Setting, vocabulary: int, rows: int) -> Figures:
    figures: Figures = {}
    torch.manual_seed(0)
    layer = torch.nn.Linear(1024, vocabulary, bias=False, device=setting.device, dtype=setting.dtype)
    assert replace_linear(layer, PiecewiseHead)
    hidden = torch.randn(rows, 1024, device=setting.device, dtype=setting.dtype, requires_grad=True)
    targets = torch.randint(vocabulary, (rows,), device=setting.device)
    values, piece = [], heads.PIECE
    for name, size in (("whole", rows), ("pieces", 1024 if setting.full else 128)):
        where, heads.PIECE = f"{name}, V={vocabulary}, E={rows}", size
        try:
            with peak_gib(setting, figures, f"{where}, GiB"):
                values.append(layer(hidden, targets))
                values[-1].sum().backward()
            seconds = median_seconds(setting, lambda: layer(hidden, targets).sum().backward(), 3)
        finally:
            heads.PIECE = piece
        figures[f"{where}, ms"] = round(1000 * seconds, 1)
    # On a CPU, threads split 128 rows differently than 300 rows.
    torch.testing.assert_close(*values, rtol=0, atol=0 if setting.device == "cuda" else 1e-5)
    if setting.device == "cuda":
        peak = figures[f"pieces, V={vocabulary}, E={rows}, GiB"]
        assert isinstance(peak, float)
        assert peak < 3, figures
    return figures


POINTS: dict[str, Callable[[Setting], Figures]] = {
    "F1": right_values, "F2": few_graphs, "F3": speed_of_attention, "F5": logits_in_pieces,
}  # fmt: skip
