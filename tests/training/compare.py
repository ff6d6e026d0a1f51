"""What two runs have learned, held against each other."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

Weights = Mapping[str, torch.Tensor]
# Root mean square of what float noise comes to in a few steps at a learning rate of 1e-3; measured: up to 2e-7.
NOISE = 2e-6


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Those of the exported model."""
    return load_file(run / "model" / "model.safetensors")


def largest_difference(a: Weights, b: Weights) -> float:
    """Of any weight."""
    return _differences(a, b).abs().max().item()


def typical_difference(a: Weights, b: Weights) -> float:
    """Root mean square over all weights.

    Adam divides by the square root of tiny second moments, so that of 180,000 weights one may be off by a twentieth of
    a step where the others agree to 1e-6; which one, and by how much, depends on the processor.
    """
    return _differences(a, b).pow(2).mean().sqrt().item()


def _differences(a: Weights, b: Weights) -> torch.Tensor:
    assert a.keys() == b.keys()
    return torch.cat([(a[name] - b[name]).flatten() for name in a])
