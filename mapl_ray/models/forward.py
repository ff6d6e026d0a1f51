"""The forward pass of each method.

Dimensions: B rows, T tokens, H hidden, E edges, M memberships, S sequences, V vocabulary.

The forward passes are modules, because DeepSpeed wraps modules. ZeRO-3 hooks gather the weights of every submodule when
it is called, so weights may be used only inside `forward` and through submodules.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from mapl_ray.batches import Batch
from mapl_ray.models.heads import Float32Head, PiecewiseHead, replace_linear, token_logps
from mapl_ray.models.sequence_parallel import SequenceGroup
from mapl_ray.models.tree_attention import attention_mask_of


class PolicyLogps(nn.Module):
    """Computes log pi(y|x) of every sequence. `ranks`: the ranks that share each batch's tokens (`share_sequences`)."""

    def __init__(self, model: Any, ranks: SequenceGroup | None = None) -> None:
        super().__init__()
        self.model, self._ranks = model, ranks
        self._in_pieces = replace_linear(model.get_output_embeddings(), PiecewiseHead)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Log-probabilities summed over response tokens, float32 [S], in nats; the same for trees and padded rows."""
        hidden, part = _hidden(self.model, batch).flatten(0, 1), batch.part
        if part is None:
            logps_E = self._logps(hidden[batch.source_E], batch.target_E)
        else:
            own = self._logps(hidden[part.sources], batch.target_E[part.edges])
            logps_E = own.new_zeros(len(batch.target_E)).index_copy(0, part.edges, own)
        # `index_add` is not deterministic on a GPU; this is. `unsafe` skips a check that the lengths add up, which
        # would synchronize with the GPU: `collate` made the lengths.
        sums: torch.Tensor = torch.segment_reduce(logps_E[batch.edge_M], "sum", lengths=batch.lengths_S, unsafe=True)
        return _of_all_ranks(sums, batch, self._ranks)

    def _logps(self, hidden_EH: torch.Tensor, target_E: torch.Tensor) -> torch.Tensor:
        """Log-probability of each predicted token, float32 [E]. Logits are computed only for response tokens."""
        head, scaled = self.model.get_output_embeddings(), partial(_scaled, config=self.model.config.get_text_config())
        if self._in_pieces:
            logps: torch.Tensor = head(hidden_EH, target_E, scaled)
            return logps
        return token_logps(scaled(head(hidden_EH)), target_E)


class RewardScores(nn.Module):
    """Computes r(x, y) of every sequence: the scalar head at the last response token. `ranks` as in `PolicyLogps`."""

    def __init__(self, model: Any, ranks: SequenceGroup | None = None) -> None:
        super().__init__()
        self.model, self._ranks = model, ranks

    def forward(self, batch: Batch) -> torch.Tensor:
        """Rewards, float32 [S]; the same for trees and padded rows."""
        rewards: torch.Tensor = self.model.score(last_hidden(self.model, batch))[:, 0].float()
        if batch.part is not None:
            rewards = rewards.new_zeros(batch.num_sequences).index_copy(0, batch.part.sequences, rewards)
        return _of_all_ranks(rewards, batch, self._ranks)


def frozen(module: nn.Module, device: torch.device, *, bf16: bool, float32_head: bool = False) -> nn.Module:
    """Move a module to the device, in evaluation mode and without gradients.

    With `bf16`, parameters are cast to bfloat16, as DeepSpeed does for trained modules. Buffers stay in float32: rotary
    frequencies with 8 bits would rotate a token at position 1,000 wrongly by radians. With `float32_head`, the output
    layer keeps separate float32 weights, even if it is tied to the input embeddings.
    """
    module.requires_grad_(False).eval()
    kept = _own_head(module) if bf16 and float32_head else None
    for parameter in module.parameters() if bf16 else ():
        if parameter.is_floating_point() and parameter is not kept:
            parameter.data = parameter.data.to(torch.bfloat16)
    return module.to(device)


def _own_head(module: nn.Module) -> nn.Parameter | None:
    """Untie the output layer and return its float32 weight; None if the layer was not replaced by one of `heads.py`."""
    model: Any = module.model
    head = model.score if isinstance(module, RewardScores) else model.get_output_embeddings()
    if not isinstance(head, PiecewiseHead | Float32Head):
        return None
    head.weight = nn.Parameter(head.weight.detach().float().clone(), requires_grad=False)
    return head.weight


def last_hidden(model: Any, batch: Batch) -> torch.Tensor:
    """Last hidden states at the last token of every sequence, or of every sequence of the batch's part, [S, H]."""
    return _hidden(model, batch).flatten(0, 1)[batch.last_S if batch.part is None else batch.part.lasts]


def _hidden(model: Any, batch: Batch) -> torch.Tensor:
    """Last hidden states [B, T, H], or [B, T / N, H] for the batch's part."""
    tokens = batch if batch.part is None else batch.part
    # Right-padded rows have default positions. Some models take no position_ids (recurrent layers, ALiBi).
    positions = {} if batch.subtree_end is None else {"position_ids": tokens.position_ids}
    hidden: torch.Tensor = model.base_model(
        input_ids=tokens.input_ids, attention_mask=attention_mask_of(batch, model), use_cache=False, **positions
    ).last_hidden_state
    return hidden


def _of_all_ranks(values_S: torch.Tensor, batch: Batch, ranks: SequenceGroup | None) -> torch.Tensor:
    """Sum over the ranks that share the batch. Raises `ValueError` if the batch has a part and `ranks` is None."""
    if batch.part is None:
        return values_S
    if ranks is None:
        raise ValueError("a batch with a part needs the group of ranks that compute the other parts")
    return ranks.total(values_S)


def _scaled(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Apply the logit scaling or soft cap that some model families have (Cohere, Granite, Gemma 2)."""
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (scaling := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / scaling
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits
