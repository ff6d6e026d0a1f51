"""Tests the kernels that training on prefix trees needs: tiny inputs on one device, compared with float32 on a CPU.

`kernel_process` runs it as a separate program, because a compiler may hang or end the process:

    python -m mapl_ray.models.kernel_trial cuda bfloat16 flex

Prints each step when it begins, and finally one line of JSON: the device's name and the error, "" if there is none.
Dimensions: T tokens.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from mapl_ray.errors import RunError
from mapl_ray.models.flex_attention import FLEX_BLOCK, block_mask, tree_flex_attention
from mapl_ray.models.kernel_process import RESULT, STEP
from mapl_ray.models.tree_attention import dense_mask
from mapl_ray.models.tree_support import value_tolerance

_HEADS, _KEY_HEADS, _HEAD_SIZE = 4, 2, 64


def try_kernels(device: str, dtype: torch.dtype, *, flex: bool, backward: bool, begin: Callable[[str], None]) -> None:
    """Test a matrix product; with `flex` also FlexAttention on a row of two small trees, and with `backward` its
    gradients.

    `begin` is called with the name of each step. Raises `RunError` if the device does not support the dtype or computes
    wrong values, and any exception of torch, Triton and compilers.
    """
    begin("open the device")
    torch.zeros(1, device=device)
    if device == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RunError("this GPU has no bfloat16")
    begin(f"a matrix product in {_name(dtype)}")
    _matrix_product(device, dtype)
    if flex:
        _flex_attention(device, dtype, backward, begin)


def _matrix_product(device: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(64, 64, generator=generator).to(dtype) for _ in range(2))
    found = one.to(device) @ other.to(device)
    _check(f"a matrix product in {_name(dtype)}", found, one.double() @ other.double())


def small_trees() -> tuple[torch.Tensor, torch.Tensor]:
    """Subtree ends and positions, [1, T] each, of two trees that fill three FlexAttention blocks.

    The first tree has a prompt of one block, a branch of one block and a branch of half a block. The second is a chain
    of tokens. So some blocks are fully visible, some partly, and some not at all.
    """
    block, short = FLEX_BLOCK, FLEX_BLOCK // 2
    # First token, number of tokens, subtree end, first position. Tokens of a branch have the end of the branch.
    spans = [
        (0, block, 2 * block + short, 0),  # the prompt
        (block, block, 2 * block, block),
        (2 * block, short, 2 * block + short, block),
        (2 * block + short, block - short, 3 * block, 0),  # the other tree
    ]
    end = torch.cat([torch.full((length,), last) for _, length, last, _ in spans])
    positions = torch.cat([torch.arange(length) + first for _, length, _, first in spans])
    return end[None], positions[None]


def _flex_attention(device: str, dtype: torch.dtype, backward: bool, begin: Callable[[str], None]) -> None:
    end, positions = small_trees()
    generator = torch.Generator().manual_seed(1)
    given = [
        torch.randn(1, heads, end.shape[1], _HEAD_SIZE, generator=generator).to(dtype)
        for heads in (_HEADS, _KEY_HEADS, _KEY_HEADS)
    ]
    inputs = [x.to(device).requires_grad_(backward) for x in given]
    # Expected values: torch's attention with a T by T mask, on the CPU.
    plain = [x.float().requires_grad_(backward) for x in given]
    begin("FlexAttention's forward pass (compiles)")
    query, key, value = inputs
    out, _ = tree_flex_attention(torch.nn.Module(), query, key, value, block_mask(end.to(device), positions.to(device)))
    query, key, value = plain
    attended = scaled_dot_product_attention(query, key, value, dense_mask(end, positions), enable_gqa=True)
    expected = attended.transpose(1, 2)
    _check("FlexAttention", out, expected)
    if backward:
        begin("FlexAttention's backward pass (compiles)")
        weights = torch.randn(out.shape, generator=generator).to(dtype)
        found = torch.autograd.grad(out, inputs, weights.to(device))
        wanted = torch.autograd.grad(expected, plain, weights.float())
        for name, one, other in zip(("queries", "keys", "values"), found, wanted, strict=True):
            _check(f"FlexAttention's gradient of {name}", one, other)


def _check(what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    off = float((found.detach().cpu().double() - expected.detach().double()).norm() / expected.detach().double().norm())
    if not off < value_tolerance(found.device.type, found.dtype):  # also true for NaN
        raise RunError(f"{what} is off by {off:.1%} from the CPU's values")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _say(line: str) -> None:
    print(line, flush=True)


def main(words: list[str]) -> None:
    """Run with arguments `DEVICE DTYPE [flex]`. No backward pass on a CPU, as FlexAttention has none there."""
    device, dtype, *more = words
    error = ""
    try:
        try_kernels(
            device,
            getattr(torch, dtype),
            flex="flex" in more,
            backward=device != "cpu",
            begin=lambda step: _say(STEP + step),
        )
    except Exception as failure:  # any failure is a result of the test
        kind = "" if isinstance(failure, RunError) else f"{type(failure).__name__}: "
        error = f"{kind}{failure}"
    _say(RESULT + json.dumps({"name": _device_name(device), "error": error}))


def _device_name(device: str) -> str:
    if device != "cuda" or not torch.cuda.is_available():
        return ""
    name: Any = torch.cuda.get_device_name()
    return str(name)


if __name__ == "__main__":
    main(sys.argv[1:])
