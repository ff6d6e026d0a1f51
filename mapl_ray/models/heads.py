"""Output layers that save memory (log-probabilities computed in pieces) or keep precision (rewards in float32).

Each is an `nn.Linear` with another `forward`, and replaces a model's output layer. Weights, names and hooks stay the
same, so checkpoints and exports do not change. Dimensions: E predicted tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

PIECE = 1024  # predicted tokens whose logits are in memory at once; 12 bytes per logit: 1.9 GB for V = 152,000
Scale = Callable[[torch.Tensor], torch.Tensor]


class PiecewiseHead(nn.Linear):
    """Output layer of a policy, which can compute log-probabilities piece by piece."""

    def forward(
        self, hidden: torch.Tensor, target_E: torch.Tensor | None = None, scaled: Scale | None = None
    ) -> torch.Tensor:
        """Without targets: logits, as `nn.Linear`. With targets: log p(target) of hidden states [E, H], float32 [E], in
        nats.

        Above `PIECE` tokens, logits are computed piece by piece, and again in the backward pass, with the same values.
        ZeRO-3 gathers weights when a module is called. Pieces use the weight without calling a module, so ranks may
        have different numbers of pieces. `scaled` is the model's scaling of its logits.
        """
        if target_E is None:
            return super().forward(hidden)

        def logps(hidden_EH: torch.Tensor, target_E: torch.Tensor) -> torch.Tensor:
            logits_EV = linear(hidden_EH.to(self.weight.dtype), self.weight, self.bias)
            return token_logps(logits_EV if scaled is None else scaled(logits_EV), target_E)

        if len(target_E) <= PIECE:
            return logps(hidden, target_E)
        pieces = zip(torch.split(hidden, PIECE), torch.split(target_E, PIECE), strict=True)
        return torch.cat([checkpoint(logps, *piece, use_reentrant=False) for piece in pieces])


class Float32Head(nn.Linear):
    """Scalar head of a reward model, computed in float32 for any weight dtype.

    bfloat16 has 8 bits of precision: of rewards of about 1 that differ by 0.02, one pair in nine would be equal.
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [..., outputs]."""
        return linear(hidden.float(), self.weight.float(), None if self.bias is None else self.bias.float())


def token_logps(logits_EV: torch.Tensor, target_E: torch.Tensor) -> torch.Tensor:
    """log p(target), float32 [E], in nats."""
    return -cross_entropy(logits_EV.float(), target_E, reduction="none")


def replace_linear(layer: Any, by: type[nn.Linear]) -> bool:
    """Give a plain `nn.Linear` the `forward` of `by`. Returns False and changes nothing for another class (an adapter's
    or a quantized layer)."""
    if isinstance(layer, by):
        return True
    if type(layer) is not nn.Linear:
        return False
    layer.__class__ = by
    return True
