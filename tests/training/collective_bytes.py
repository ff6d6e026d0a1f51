"""Bytes that a rank sends in collectives, counted where DeepSpeed hands tensors to torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist


@contextmanager
def counted_bytes() -> Iterator[dict[int, float]]:
    """By the number of ranks of a collective, what a ring sends from each of them (Thakur et al. 2005, section 4).

    Of n bytes on N ranks: all-reduce 2 n (N - 1) / N, every other one n (N - 1) / N, where n is the whole: what
    all-gather makes, what reduce-scatter and a rank's all-to-all take. Scalars (norms, overflow flags) are counted too.
    """
    backend: Any = import_module("deepspeed.comm.torch").TorchBackend
    sent, within = dict[int, float](), [False]

    def counting(name: str, size: Callable[..., int]) -> Callable[..., Any]:
        original = getattr(backend, name)

        def method(self: Any, *args: Any, **options: Any) -> Any:
            if within[0]:  # of a collective that is made of others
                return original(self, *args, **options)
            group = next((one for one in (*args, *options.values()) if isinstance(one, dist.ProcessGroup)), None)
            ranks = dist.get_world_size(group)
            share = (2 if name == "all_reduce" else 1) * (ranks - 1) / ranks
            sent[ranks] = sent.get(ranks, 0.0) + size(*args, **options) * share
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
