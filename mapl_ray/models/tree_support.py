"""Whether a model computes a row of prefix trees as it computes the sequences one by one: asked first, then tried."""

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

# Of the values' norm; a wrong model is off by a tenth and more. GPUs may multiply in TF32.
_TOLERANCES = {("cpu", torch.float32): 1e-4, ("cuda", torch.float32): 1e-2}
_BFLOAT16_TOLERANCE = 0.05


def prepare_for_trees(
    model: Any, attention: Attention = "auto", device_type: str = "cpu", bf16: bool | None = None
) -> None:
    """Make a model ready for tree batches: their attention, and a refusal where trees would be wrong.

    Trees are right where a token's place enters through `position_ids` and what it sees through the mask alone; not
    for recurrent layers, biases by distance (ALiBi), or positions counted along the row. The config shows most of it.
    The rest is tried: two small trees in one row against their sequences one by one, by a short model of the same
    config (`short_model`), on the device and with the attention that trains. The model itself is not run, so it may
    be of any size and partitioned.

    Args:
        attention: `train.attention`.
        device_type: where training will run ("cpu", "cuda").
        bf16: whether it runs in bfloat16; None: as the weights are.

    Raises `UserError` with the cure.
    """
    _ask(model)
    dtype = model.dtype if bf16 is None else (torch.bfloat16 if bf16 else torch.float32)
    wanted = tree_attention(attention, device_type, model.config)
    if wanted == VARLEN and dtype != torch.bfloat16:
        raise UserError("train.attention=varlen needs bfloat16. Set train.bf16=true, or train.attention=auto.")
    # A CPU multiplies bfloat16 no faster, and float32 shows the smallest difference.
    tried = dtype if device_type == "cuda" else torch.float32
    try:
        difference = _tried(short_model(model, device_type, tried), wanted)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        if wanted == FLEX and isinstance(error, torch._dynamo.exc.ShortenTraceback):
            raise _not_compiled(error) from error
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _refusal(model, f"its attention doesn't take a tree's mask ({why})") from error
    if not difference < value_tolerance(device_type, tried):
        raise _refusal(model, f"a tree gives other values than its sequences (off by {difference:.1%})")
    model.set_attn_implementation(wanted)


def value_tolerance(device_type: str, dtype: torch.dtype) -> float:
    """How far the norm of a difference may be off where a device ("cpu", "cuda") computes attention in this type,
    over the norm of the right values."""
    return _TOLERANCES.get((device_type, dtype), _BFLOAT16_TOLERANCE)


def _not_compiled(error: Exception) -> UserError:
    """The machine's fault, not the model's."""
    line, cure = fault_of(str(error))
    return UserError(
        f"train.attention=flex: {socket.gethostname()} can't compile FlexAttention: {line}. Remedy: {cure}."
    )


def _ask(model: Any) -> None:
    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False):
        raise _refusal(model, "recurrent layers carry state along a row, so it can't hold a tree")
    if getattr(config, "alibi", False) or getattr(config, "position_embedding_type", None) == "alibi":
        raise _refusal(model, "ALiBi takes distances along the row, which are not those along a branch")
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise _refusal(model, "it takes no position_ids: positions would be counted along the row")
    if not getattr(model, "_supports_sdpa", False):
        raise _refusal(model, "its attention takes no custom mask")
    if other := layer_kinds(config) - {"full_attention", "sliding_attention"}:
        raise _refusal(model, f"layers of kind {', '.join(sorted(other))} can't take a tree's mask")


@torch.no_grad()
def _tried(model: Any, implementation: str) -> float:
    """How far last tokens' hidden states are off, trees against sequences: norm of the difference over the norm."""
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
