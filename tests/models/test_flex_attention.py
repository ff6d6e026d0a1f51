"""FlexAttention's graphs: few, and an error where there are too many; never the unfused way."""

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from mapl_ray.errors import RunError
from mapl_ray.models import flex_attention
from mapl_ray.models.flex_attention import FLEX_BLOCK, block_mask, tree_flex_attention
from mapl_ray.models.tree_attention import dense_mask


def attend(blocks: int, grad: bool, rows: int, window: int | None) -> None:
    """One call on rows of one tree each, a chain with a leaf at every second token, against a dense mask."""
    width = blocks * FLEX_BLOCK
    places = torch.arange(width)
    end = torch.where(places % 2 == 0, width, places + 1)[None].expand(rows, width).contiguous()
    positions = ((places + 1) // 2)[None].expand(rows, width).contiguous()
    torch.manual_seed(0)
    query = torch.randn(rows, 2, width, 8, requires_grad=grad)
    key, value = (torch.randn(rows, 1, width, 8, requires_grad=grad) for _ in range(2))
    with torch.set_grad_enabled(grad):
        out, _ = tree_flex_attention(torch.nn.Module(), query, key, value, block_mask(end, positions, window))
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, dense_mask(end, positions, window), enable_gqa=True
        ).transpose(1, 2)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    if grad:
        weights = torch.randn(out.shape)
        found, wanted = (torch.autograd.grad((o * weights).sum(), (query, key, value)) for o in (out, expected))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.long
@pytest.mark.usefixtures("flex_on_cpu")
def test_every_width_shares_its_graphs() -> None:
    """12 widths, with gradient or none, one or several rows, with a window or none: a graph a combination of gradient
    and window."""
    counters.clear()
    ways = [(grad, rows, window) for grad in (True, False) for rows in (1, 2) for window in (None, 50)]
    for number, way in enumerate([*ways, *ways[::-1]]):
        attend(1 + number % 12, *way)
    assert counters["stats"]["unique_graphs"] <= 4
    assert not counters["unimplemented"]
    attend(5, True, 1, 60)  # another window is no other graph
    assert counters["stats"]["unique_graphs"] <= 4


@pytest.mark.usefixtures("flex_on_cpu")
def test_beyond_the_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_attention, "VARIANTS", 2)
    attend(3, False, 1, None)
    attend(3, True, 1, None)
    with pytest.raises(RunError, match=r"more than 2 compiled variants.*train\.attention=varlen"):
        attend(3, True, 1, 40)


def test_what_flex_attention_does_not_have_is_refused() -> None:
    query = torch.randn(1, 2, FLEX_BLOCK, 8)
    positions = torch.arange(FLEX_BLOCK)[None]
    mask = block_mask(torch.full_like(positions, FLEX_BLOCK), positions)
    options: list[dict[str, Any]] = [{"dropout": 0.1}, {"s_aux": torch.zeros(2)}]
    for option in options:
        with pytest.raises(ValueError, match="neither attention dropout nor attention sinks"):
            tree_flex_attention(torch.nn.Module(), query, query, query, mask, **option)
