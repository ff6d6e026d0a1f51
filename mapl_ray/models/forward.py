"""One forward pass a method. Dimensions: B rows, T tokens, H hidden, E edges, M memberships, S sequences, V vocabulary.

They are modules, not functions, because DeepSpeed wraps a module: its ZeRO-3 hooks gather the weights of every
submodule as it is called, so everything that touches weights happens inside `forward`, through submodules.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from mapl_ray.batches import Batch
from mapl_ray.models.heads import PiecewiseHead, replace_linear, token_logps
from mapl_ray.models.tree_attention import attention_mask_of


class PolicyLogps(nn.Module):
    """log pi(y|x) of every sequence."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._in_pieces = replace_linear(model.get_output_embeddings(), PiecewiseHead)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Sums over response tokens, float32 [S], in nats; equal for trees and padded rows."""
        hidden = _hidden(self.model, batch)
        # Logits of response tokens alone: V is the widest dimension there is.
        hidden_EH = hidden.flatten(0, 1)[batch.source_E]
        head, scaled = self.model.get_output_embeddings(), partial(_scaled, config=self.model.config.get_text_config())
        if self._in_pieces:
            logps_E = head(hidden_EH, batch.target_E, scaled)
        else:
            logps_E = token_logps(scaled(head(hidden_EH)), batch.target_E)
        # In the order of the data; `index_add` adds in any order on a GPU. The lengths are those of the data, so the
        # check that they add up, which a GPU would wait for, is left out.
        sums: torch.Tensor = torch.segment_reduce(logps_E[batch.edge_M], "sum", lengths=batch.lengths_S, unsafe=True)
        return sums


class RewardScores(nn.Module):
    """r(x, y) of every sequence: the scalar head at the last token of the response."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        """Rewards, float32 [S]; equal for trees and padded rows."""
        rewards: torch.Tensor = self.model.score(last_hidden(self.model, batch))
        return rewards[:, 0].float()


def frozen(module: nn.Module, device: torch.device, *, bf16: bool) -> nn.Module:
    """The module on the device, in evaluation mode, without gradients.

    With `bf16` its parameters are cast, as DeepSpeed casts those of a module that it trains. Buffers stay in float32:
    rotary frequencies of 8 bits would turn a token at position 1,000 by radians.
    """
    module.requires_grad_(False).eval()
    for parameter in module.parameters() if bf16 else ():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)
    return module.to(device)


def last_hidden(model: Any, batch: Batch) -> torch.Tensor:
    """Last hidden states at the last token of every sequence [S, H]."""
    return _hidden(model, batch).flatten(0, 1)[batch.last_S]


def _hidden(model: Any, batch: Batch) -> torch.Tensor:
    """Last hidden states [B, T, H]."""
    # Padded on the right, positions are the model's own, also where it takes none (recurrent layers, ALiBi).
    positions = {} if batch.subtree_end is None else {"position_ids": batch.position_ids}
    hidden: torch.Tensor = model.base_model(
        input_ids=batch.input_ids, attention_mask=attention_mask_of(batch, model), use_cache=False, **positions
    ).last_hidden_state
    return hidden


def _scaled(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """What some families do to logits after the output layer: Cohere, Granite, Gemma 2."""
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (scaling := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / scaling
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits
