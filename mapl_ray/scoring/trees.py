"""ref_logps by the trainer's own forward pass: prefix trees, the same code and the same rounding as training.

A group's shared prefixes are computed once; vLLM computes every sequence whole. Imports torch, and neither vllm nor
deepspeed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mapl_ray.batches import EncodedGroup, collate
from mapl_ray.models import PolicyLogps, load_policy, load_tokenizer, prepare_for_trees, with_saved_adapter
from mapl_ray.models.forward import frozen
from mapl_ray.models.tree_attention import row_budget, row_multiple
from mapl_ray.progress import progress
from mapl_ray.scoring.options import TreeOptions


class TreeScorer:
    """log p(response | prompt) under a causal model, summed over response tokens, float32, in nats."""

    def __init__(self, options: TreeOptions) -> None:
        """Raises `UserError` for a model that can't be loaded or can't take trees."""
        self.tokenizer = load_tokenizer(options.model, options.revision)
        self.max_tokens = options.max_tokens
        self._options, self._device = options, torch.device("cuda" if options.gpus else "cpu")
        with progress(f"load {Path(options.model).name}"):
            model = load_policy(options.model, options.dtype, options.revision, self._device.type)
        model.config.use_cache = False
        self._multiple, self._row_tokens = 1, options.row_tokens
        if options.batching == "tree":
            prepare_for_trees(model, options.attention, self._device.type, bf16=True if options.bf16 else None)
            self._multiple, self._row_tokens = row_multiple(model), options.row_tokens or row_budget(model)
        if options.lora is not None:  # its layers are in the model; the wrapper around it is not needed
            model = with_saved_adapter(model, Path(options.lora)).get_base_model()
        self._logps = frozen(PolicyLogps(model), self._device, bf16=options.bf16)

    @torch.no_grad()
    def score_trees(self, groups: Sequence[EncodedGroup]) -> list[tuple[float, ...]]:
        """One sum per sequence; as many groups at once as a micro-batch of training has."""
        options, pad, found = self._options, self.tokenizer.pad_token_id, list[tuple[float, ...]]()
        for first in range(0, len(groups), options.groups_at_once):
            some = groups[first : first + options.groups_at_once]
            batch = collate(some, options.batching, pad, self._multiple, self._row_tokens)
            logps_S: torch.Tensor = self._logps(batch.to(self._device)).cpu()
            found += [tuple(logps.tolist()) for logps in torch.split(logps_S, [len(g.sequences) for g in some])]
        return found
