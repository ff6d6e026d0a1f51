"""ref_logps and rewards from the trainer's forward pass on prefix trees, with the same code and rounding as training.

Shared prefixes of a group are computed once; vLLM computes every sequence in full. This module imports torch, but
neither vllm nor deepspeed.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from mapl_ray.batches import EncodedGroup, collate
from mapl_ray.batches.encode import read_at
from mapl_ray.errors import UserError, first_line
from mapl_ray.models import (
    PolicyLogps,
    RewardScores,
    load_policy,
    load_reward_model,
    load_tokenizer,
    prepare_for_trees,
    with_saved_adapter,
)
from mapl_ray.models.forward import frozen
from mapl_ray.models.tree_attention import row_budget, row_multiple
from mapl_ray.progress import progress
from mapl_ray.scoring.needs import GIB, weight_bytes
from mapl_ray.scoring.options import TreeOptions

_CURE = "A model is evaluated on one GPU: use GPUs with more memory, or CPUs (evaluation.gpus=0)."
_GPU_SHARE = 0.9  # maximum share of GPU memory for weights; activations need the rest


class TreeScorer:
    """Scores of sequences, float32: for a policy log p(response | prompt) summed over response tokens, in nats; for a
    reward model the scalar at the last token."""

    def __init__(self, options: TreeOptions) -> None:
        """Load the model. Raises `UserError` if it can't be loaded, does not fit the GPU, or does not support trees."""
        self.tokenizer = load_tokenizer(options.model, options.revision)
        self.max_tokens = options.max_tokens
        self._options, self._device = options, torch.device("cuda" if options.gpus else "cpu")
        if options.gpus:
            _check_gpu_memory(options)
        with progress(f"load {Path(options.model).name}"):
            load = load_reward_model if options.head == "reward" else load_policy
            model = load(options.model, options.dtype, options.revision, self._device.type)
        model.config.use_cache = False
        self.batching: Literal["tree", "padded"] = "padded"
        self._multiple, self._row_tokens = 1, options.row_tokens
        if options.batching != "padded" and self._takes_trees(model):
            self.batching = "tree"
            self._multiple, self._row_tokens = row_multiple(model), options.row_tokens or row_budget(model)
        if options.lora is not None:  # adapter layers are inside the model; peft's wrapper is not needed
            model = with_saved_adapter(model, Path(options.lora)).get_base_model()
        module = RewardScores(model) if options.head == "reward" else PolicyLogps(model)
        self._pad_token_id: int | None = model.config.pad_token_id
        self._scores = frozen(module, self._device, bf16=options.bf16, float32_head=options.float32_head)

    def _takes_trees(self, model: Any) -> bool:
        options = self._options
        try:
            prepare_for_trees(model, options.attention, self._device.type, bf16=True if options.bf16 else None)
        except UserError as error:
            if options.batching == "tree":
                raise
            print(f"  {Path(options.model).name}: padded rows instead of trees. {error}", flush=True)
            return False
        return True

    @torch.no_grad()
    def score_trees(self, groups: Sequence[EncodedGroup]) -> list[tuple[float, ...]]:
        """One score per sequence, computed in batches of `groups_at_once` groups."""
        options, pad, found = self._options, self.tokenizer.pad_token_id, list[tuple[float, ...]]()
        if options.head == "reward":
            groups = [self._as_trained(group) for group in groups]
        for first in range(0, len(groups), options.groups_at_once):
            some = groups[first : first + options.groups_at_once]
            batch = collate(some, self.batching, pad, self._multiple, self._row_tokens)
            scores_S: torch.Tensor = self._scores(batch.to(self._device)).cpu()
            found += [tuple(scores.tolist()) for scores in torch.split(scores_S, [len(g.sequences) for g in some])]
        return found

    def _as_trained(self, group: EncodedGroup) -> EncodedGroup:
        """The group with responses truncated at the token where the reward model's score is read."""
        ids = tuple(tuple(read_at(ids, self._pad_token_id)) for ids in group.response_ids)
        return replace(group, response_ids=ids)


class TreesInTurn:
    """Forward passes of several models, with one model in memory at a time."""

    def __init__(self) -> None:
        self._held: tuple[TreeOptions, TreeScorer] | None = None

    def take(self, options: TreeOptions) -> None:
        """Load this model and unload the previous one. Raises as `TreeScorer` does."""
        if self._held is not None and self._held[0] == options:
            return
        self._held = None
        gc.collect()
        if options.gpus:
            torch.cuda.empty_cache()
        try:
            self._held = options, TreeScorer(options)
        except torch.OutOfMemoryError as error:
            raise UserError(f"{options.model}: it does not fit on the GPU ({first_line(error)}). {_CURE}") from None

    def scorer(self, options: TreeOptions) -> TreeInTurn:
        """A scorer for a model. Call `take` with the same options before scoring with it."""
        return TreeInTurn(load_tokenizer(options.model, options.revision), options.max_tokens, self)

    def score_trees(self, groups: Sequence[EncodedGroup]) -> list[tuple[float, ...]]:
        """Score with the model in memory."""
        assert self._held is not None
        return self._held[1].score_trees(groups)


@dataclass(frozen=True, slots=True)
class TreeInTurn:
    """One of the models of `TreesInTurn`."""

    tokenizer: Any
    max_tokens: int
    models: TreesInTurn

    def score_trees(self, groups: Sequence[EncodedGroup]) -> list[tuple[float, ...]]:
        """As `TreeScorer.score_trees`."""
        return self.models.score_trees(groups)


def _check_gpu_memory(options: TreeOptions) -> None:
    """Raise `UserError` if the weights do not fit on one GPU, before they are loaded."""
    needed = weight_bytes(options.model, "bfloat16" if options.bf16 else options.dtype)
    there = torch.cuda.get_device_properties(0).total_memory
    if needed is not None and needed > _GPU_SHARE * there:
        raise UserError(
            f"{options.model}: its weights take {needed / GIB:.1f} GiB, but the GPU has {there / GIB:.1f} GiB. {_CURE}"
        )
