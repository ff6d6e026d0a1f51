"""Bytes that a rank sends in collectives, counted where DeepSpeed hands tensors to torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist


@contextmanager
def counted_bytes() -> Iterator[list[float]]:
    """A list whose one number grows by what a ring sends from each rank (Thakur et al. 2005, section 4).

    Of n bytes on N ranks: all-reduce 2 n (N - 1) / N, every other one n (N - 1) / N, where n is the whole: what
    all-gather makes, what reduce-scatter and a rank's all-to-all take. Scalars (norms, overflow flags) are counted too.
    """
    backend: Any = import_module("deepspeed.comm.torch").TorchBackend
    sent, ranks, within = [0.0], dist.get_world_size(), [False]

    def counting(name: str, size: Callable[..., int]) -> Callable[..., Any]:
        original = getattr(backend, name)

        def method(self: Any, *args: Any, **options: Any) -> Any:
            if within[0]:  # of a collective that is made of others
                return original(self, *args, **options)
            sent[0] += (2 if name == "all_reduce" else 1) * size(*args, **options) * (ranks - 1) / ranks
            within[0] = True
            try:
                return original(self, *args, **options)
            finally:
                within[0] = False

        return method

    sizes: dict[str, Callable[..., int]] = {
        "all_reduce": lambda tensor, *_, **__: _bytes(tensor),
        "reduce": lambda tensor, *_, **__: _bytes(tensor),
        "broadcast": lambda tensor, *_, **__: _bytes(tensor),
        "reduce_scatter_tensor": lambda output_tensor, input_tensor, *_, **__: _bytes(input_tensor),
        "all_gather_into_tensor": lambda output_tensor, input_tensor, *_, **__: _bytes(output_tensor),
        "all_gather_base": lambda output_tensor, input_tensor, *_, **__: _bytes(output_tensor),
        "all_gather": lambda tensor_list, tensor, *_, **__: sum(map(_bytes, tensor_list)),
        "all_gather_coalesced": lambda output_tensors, *_, **__: sum(map(_bytes, output_tensors)),
        "all_to_all_single": lambda output, input, *_, **__: _bytes(input),
        "reduce_scatter": lambda output, input_list, *_, **__: sum(map(_bytes, input_list)),
    }
    before = {name: getattr(backend, name) for name in sizes}
    for name, size in sizes.items():
        setattr(backend, name, counting(name, size))
    try:
        yield sent
    finally:
        for name, original in before.items():
            setattr(backend, name, original)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
