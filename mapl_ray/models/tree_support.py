"""Check that a model computes the same values for prefix trees as for separate sequences, by its config and a test."""

from __future__ import annotations

import inspect
import socket
from typing import Any

import torch

from mapl_ray.batches import EncodedGroup, collate
from mapl_ray.config import Attention
from mapl_ray.data.records import Sequence
from mapl_ray.errors import UserError
from mapl_ray.models.flex_attention import FLEX
from mapl_ray.models.forward import last_hidden
from mapl_ray.models.kernel_faults import fault_of
from mapl_ray.models.short_model import short_model
from mapl_ray.models.tree_attention import layer_kinds, plain_attention, row_multiple, tree_attention
from mapl_ray.models.varlen_attention import VARLEN

# Relative to the norm of the values. A model that does not support trees is off by 0.1 or more. GPUs may use TF32.
_TOLERANCES = {("cpu", torch.float32): 1e-4, ("cuda", torch.float32): 1e-2}
_BFLOAT16_TOLERANCE = 0.05


def prepare_for_trees(
    model: Any, attention: Attention = "auto", device_type: str = "cpu", bf16: bool | None = None
) -> None:
    """Set a model's attention implementation for tree batches, after checking that trees give correct values.

    Trees are correct if a token's position is used only through `position_ids` and its visible tokens only through the
    mask. This excludes recurrent layers, biases by distance (ALiBi), and positions counted along the row. The config
    shows most of these. In addition, a test compares two small trees in one row with their separate sequences, using a
    short model with the same config (`short_model`), on the device and with the attention of the training. The model
    itself is not run, so it may have any size and be partitioned.

    Args:
        attention: `train.attention`.
        device_type: device of the training ("cpu", "cuda").
        bf16: whether training runs in bfloat16; None: the dtype of the weights.

    Raises `UserError`, with a remedy, if trees are not supported.
    """
    _ask(model)
    dtype = model.dtype if bf16 is None else (torch.bfloat16 if bf16 else torch.float32)
    wanted = tree_attention(attention, device_type, model.config)
    if wanted == VARLEN and dtype != torch.bfloat16:
        raise UserError("train.attention=varlen needs bfloat16. Set train.bf16=true, or train.attention=auto.")
    # On a CPU, bfloat16 is no faster, and float32 shows smaller differences.
    tried = dtype if device_type == "cuda" else torch.float32
    try:
        difference = _tried(short_model(model, device_type, tried), wanted)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        if wanted == FLEX and isinstance(error, torch._dynamo.exc.ShortenTraceback):
            raise _not_compiled(error) from error
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _refusal(model, f"its attention doesn't take a tree's mask ({why})") from error
    if not difference < value_tolerance(device_type, tried):
        raise _refusal(model, f"values for a tree differ from those for its sequences (off by {difference:.1%})")
    model.set_attn_implementation(wanted)


def value_tolerance(device_type: str, dtype: torch.dtype) -> float:
    """Largest accepted norm of the error, divided by the norm of the correct values, for attention on a device ("cpu",
    "cuda") in this dtype."""
    return _TOLERANCES.get((device_type, dtype), _BFLOAT16_TOLERANCE)


def _not_compiled(error: Exception) -> UserError:
    """Build the error for a compiler failure, which is a problem of the machine and not of the model."""
    line, cure = fault_of(str(error))
    return UserError(
        f"train.attention=flex: {socket.gethostname()} can't compile FlexAttention: {line}. Remedy: {cure}."
    )


def _ask(model: Any) -> None:
    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False):
        raise _refusal(model, "recurrent layers carry state along a row, so it can't hold a tree")
    if getattr(config, "alibi", False) or getattr(config, "position_embedding_type", None) == "alibi":
        raise _refusal(model, "ALiBi uses distances along the row, which differ from those along a branch")
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise _refusal(model, "it takes no position_ids: positions would be counted along the row")
    if not getattr(model, "_supports_sdpa", False):
        raise _refusal(model, "its attention takes no custom mask")
    if other := layer_kinds(config) - {"full_attention", "sliding_attention"}:
        raise _refusal(model, f"layers of kind {', '.join(sorted(other))} can't take a tree's mask")


@torch.no_grad()
def _tried(model: Any, implementation: str) -> float:
    """Relative error of the last tokens' hidden states of trees, compared with separate sequences."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (64,), generator=torch.Generator().manual_seed(0)).tolist()
    prompts = (tuple(ids[:7]), tuple(ids[:12]))
    answers = (tuple(ids[20:33]), tuple(ids[20:23] + ids[40:45]))
    cells = tuple(Sequence(prompt, answer, ()) for prompt in (0, 1) for answer in (0, 1))
    groups = [
        EncodedGroup("one", prompts, answers, cells, ()),
        EncodedGroup("two", (tuple(ids[50:53]),), answers[::-1], (Sequence(0, 0, ()), Sequence(0, 1, ())), ()),
    ]
    device = next(model.parameters()).device
    model.set_attn_implementation(implementation)
    batch = collate(groups, "tree", 0, row_multiple(model), row_tokens=1000)
    trees = last_hidden(model, batch.to(device)).double()
    model.set_attn_implementation(plain_attention(model.config))
    plain = last_hidden(model, collate(groups, "padded", 0).to(device)).double()
    return float((trees - plain).norm() / plain.norm())


def _refusal(model: Any, reason: str) -> UserError:
    kind = model.config.get_text_config().model_type
    return UserError(f"train.batching=tree: {kind} can't be trained on trees: {reason}. Set train.batching=padded.")
