"""Output layers that keep memory and digits: log-probabilities in pieces, a reward in float32.

Each is `nn.Linear` with another `forward`, which replaces a model's own layer. Weights, their names and hooks
stay, so checkpoints and exports do not change. Dimensions: E predicted tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

PIECE = 1024  # predicted tokens whose logits are in memory at once, 12 bytes each: 1.9 GB with 152,000 words
Scale = Callable[[torch.Tensor], torch.Tensor]


class PiecewiseHead(nn.Linear):
    """The output layer of a policy."""

    def forward(
        self, hidden: torch.Tensor, target_E: torch.Tensor | None = None, scaled: Scale | None = None
    ) -> torch.Tensor:
        """Logits, as `nn.Linear` gives them; with targets log p(target), float32 [E], in nats, of hidden states [E, H].

        Above `PIECE` tokens the logits of one piece at a time are made, and made again for the backward pass; values
        are those of the whole. Pieces multiply by the weight and call no module: ZeRO-3 gathers the weights of a module
        when it is called, once here, so ranks may have different numbers of pieces. `scaled` is what the model does to
        its logits.
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
    """The scalar head of a reward model: multiplies in float32 whatever the weights are.

    bfloat16 has 8 bits: of rewards of about 1 that differ by 0.02, one pair in nine would come out equal.
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [..., outputs]."""
        return linear(hidden.float(), self.weight.float(), None if self.bias is None else self.bias.float())


def token_logps(logits_EV: torch.Tensor, target_E: torch.Tensor) -> torch.Tensor:
    """log p(target), float32 [E], in nats."""
    return -cross_entropy(logits_EV.float(), target_E, reduction="none")


def replace_linear(layer: Any, by: type[nn.Linear]) -> bool:
    """Give a plain `nn.Linear` the `forward` of `by`; False, and nothing done, where it is another class (an adapter's,
    a quantized one)."""
    if isinstance(layer, by):
        return True
    if type(layer) is not nn.Linear:
        return False
    layer.__class__ = by
    return True
