"""Whether a model computes a row of prefix trees as it computes the sequences one by one: asked first, then tried."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from mapl_ray.batches import EncodedGroup, collate
from mapl_ray.errors import UserError
from mapl_ray.models.branch_attention import BRANCHES
from mapl_ray.models.forward import last_hidden
from mapl_ray.models.tree_attention import layer_kinds
from mapl_ray.records import Sequence

# Of the hidden states' norm; with weights of some size a wrong model is off by a tenth and more.
_FLOAT32_TOLERANCE, _OTHER_TOLERANCE = 1e-4, 0.1


def prepare_for_trees(model: Any) -> None:
    """Make a model ready for tree batches: faster attention on a CPU, and a refusal where trees would be wrong.

    Trees are right where a token's place enters through `position_ids` and what it sees through the mask alone; not
    for recurrent layers, biases by distance (ALiBi), or positions counted along the row. The config tells most of it,
    and two small trees in one row, against their sequences one by one, the rest. Raises `UserError` with the cure.
    """
    _ask(model)
    wanted = model.config._attn_implementation
    if wanted == "sdpa":
        wanted = BRANCHES
    # FlexAttention is slow to start on a CPU, where models are loaded; the rule behind every mask is the same.
    model.set_attn_implementation("sdpa" if wanted == "flex_attention" else wanted)
    if any(parameter.is_meta or parameter.numel() == 0 for parameter in model.parameters()):
        model.set_attn_implementation(wanted)  # partitioned already: no rank could try it alone
        return
    try:
        difference = _tried(model)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _refusal(model, f"its attention doesn't take a tree's mask ({why})") from error
    if not difference < (_FLOAT32_TOLERANCE if model.dtype == torch.float32 else _OTHER_TOLERANCE):
        raise _refusal(model, f"a tree gives other values than its sequences (off by {difference:.1%})")
    model.set_attn_implementation(wanted)


def _ask(model: Any) -> None:
    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False):
        raise _refusal(model, "recurrent layers carry state along a row, so it can't hold a tree")
    if getattr(config, "alibi", False) or getattr(config, "position_embedding_type", None) == "alibi":
        raise _refusal(model, "ALiBi takes distances along the row, which are not those along a branch")
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise _refusal(model, "it takes no position_ids: positions would be counted along the row")
    if not getattr(model, "_supports_sdpa", False):
        raise _refusal(model, "its attention takes no mask of one's own")
    if other := layer_kinds(config) - {"full_attention", "sliding_attention"}:
        raise _refusal(model, f"layers of kind {', '.join(sorted(other))} can't take a tree's mask")


@torch.no_grad()
def _tried(model: Any) -> float:
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
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        trees = last_hidden(model, collate(groups, "tree", 0, row_tokens=1000).to(device)).double()
        plain = last_hidden(model, collate(groups, "padded", 0).to(device)).double()
    finally:
        model.train(training)
    return float((trees - plain).norm() / plain.norm())


def _refusal(model: Any, reason: str) -> UserError:
    kind = model.config.get_text_config().model_type
    return UserError(f"train.batching=tree: {kind} can't be trained on trees: {reason}. Set train.batching=padded.")
