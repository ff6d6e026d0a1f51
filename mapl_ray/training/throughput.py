"""Throughput, FLOPs and MFU of a step.

Dimensions: B rows, T tokens per row, E edges (predicted response tokens). FLOPs are model FLOPs, forward and backward,
without the recomputation of gradient checkpointing (Chowdhery et al. 2022, PaLM, appendix B).
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

    from mapl_ray.batches import Batch

# Dense bfloat16 tensor-core peaks in TFLOP/s, from NVIDIA's data sheets (sparse figures halved). The first entry whose
# words are all in the device's name is used.
_PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "B100": 1750.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H800": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class StepCost:
    """Amount of computation in a step, by one rank or by all ranks together."""

    groups: float  # without fillers
    tokens: float  # without padding
    slots: float  # tokens with padding
    flops: float  # 0 if they can't be counted

    @classmethod
    def of(cls, batches: Sequence[Batch], groups: int, flops: FlopCounter | None) -> Self:
        """Cost of batches in CPU memory. `groups`: number of this rank's groups, without fillers."""
        return cls(
            groups=groups,
            tokens=sum(batch.num_tokens for batch in batches),
            slots=sum(batch.input_ids.numel() for batch in batches),
            flops=0.0 if flops is None else sum(map(flops, batches)),
        )

    def rates(self, seconds: float, peak_flops: float | None) -> dict[str, float]:
        """Tokens and groups per second, `padding_share` and, if the peak of all ranks (FLOP/s) is known, `mfu`."""
        found = {
            "tokens_per_second": self.tokens / seconds,
            "groups_per_second": self.groups / seconds,
            "padding_share": 1.0 - self.tokens / self.slots,
        }
        return found | {"mfu": self.flops / seconds / peak_flops} if peak_flops and self.flops else found


@dataclass(frozen=True, slots=True)
class FlopCounter:
    """Model FLOPs of a batch: 6 N per token, and attention over the tokens that each token sees.

    6 N is 2 N forward and 4 N backward (Kaplan et al. 2020, section 2.1). Gradients of frozen weights (2 N), as with
    LoRA, are not computed. N excludes the embeddings, which need no multiplications, and the output layer, which runs
    only over the E predicted tokens and is counted separately. Attention: 12 * layers * heads * head_dim * (tokens
    seen), summed over tokens (PaLM, appendix B, without the masked half).
    """

    weights: int  # without embeddings and output layer
    trained: int  # trained ones of these
    head: int  # weights of the output layer; 0 for a reward model, whose head is one row
    attention: int  # layers * heads * head_dim

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """Counter for a transformers model, possibly partitioned by ZeRO-3; None if the formula does not apply.

        It does not apply to mixtures of experts, which use only some weights per token, and to recurrent layers.
        Sliding windows are counted as full attention.
        """
        config, head = model.config.get_text_config(), model.get_output_embeddings()
        kinds = set(getattr(config, "layer_types", None) or ())
        recurrent = not hasattr(config, "num_attention_heads") or kinds - {"full_attention", "sliding_attention"}
        if recurrent or any(getattr(config, name, None) for name in _EXPERTS):
            return None
        apart = {id(model.get_input_embeddings().weight), *([] if head is None else [id(head.weight)])}
        rest = [p for p in model.parameters() if id(p) not in apart]
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            weights=sum(map(_size, rest)),
            trained=sum(_size(p) for p in rest if p.requires_grad),
            head=0 if head is None else _size(head.weight),
            attention=config.num_hidden_layers * config.num_attention_heads * head_dim,
        )

    def __call__(self, batch: Batch) -> float:
        """FLOPs of one forward and backward pass over a batch in CPU memory."""
        # A token at position p sees p + 1 tokens, also in a tree. Padding is at position 0.
        padding = batch.input_ids.numel() - batch.num_tokens
        seen = int(batch.position_ids.sum()) + batch.input_ids.numel() - padding
        return self.of_counts(batch.num_tokens, batch.source_E.numel(), seen)

    def of_counts(self, tokens: float, edges: float, seen: float) -> float:
        """FLOPs of one forward and backward pass, from numbers of tokens and predicted tokens. `seen`: number of tokens
        that each token sees, summed over tokens."""
        a_token = 4.0 * self.weights + 2.0 * self.trained
        return a_token * tokens + 6.0 * self.head * edges + 12.0 * self.attention * seen

    def forward(self, tokens: float, edges: float, seen: float) -> float:
        """FLOPs of only a forward pass."""
        return 2.0 * self.weights * tokens + 2.0 * self.head * edges + 4.0 * self.attention * seen


def peak_flops(device: torch.device, bf16: bool) -> float | None:
    """Peak FLOP/s of a GPU in bfloat16; None for another dtype, or hardware that is not in the table."""
    if device.type != "cuda" or not bf16:
        return None
    import torch

    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Peak FLOP/s for a device name, such as "NVIDIA A100-SXM4-80GB"; None if it is not in the table."""
    words = set(re.split(r"[ -]", name))
    return next((1e12 * peak for known, peak in _PEAK_TFLOPS.items() if words.issuperset(known.split())), None)


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory in GiB: allocated on the GPU or, without one, resident memory of this process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _size(parameter: torch.Tensor) -> int:
    # Under ZeRO-3, a partitioned parameter is an empty tensor with its size in `ds_numel`.
    return int(getattr(parameter, "ds_numel", parameter.numel()))
