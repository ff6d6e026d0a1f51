"""Random states of a rank: dropout is the only thing in a step that draws, and a resume must draw on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch


def seed_all(*parts: int) -> None:
    """Seed Python, NumPy and torch (all devices) from several numbers, as in `seed_all(seed, rank)`."""
    seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def save_rng(path: Path) -> None:
    """Write this process's random states."""
    generator, keys, *rest = np.random.get_state()
    torch.save(
        {
            "python": random.getstate(),
            "numpy": [str(generator), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        },
        path,
    )


def load_rng(path: Path) -> None:
    """The inverse of `save_rng`; the file holds tensors and plain values alone."""
    states: dict[str, Any] = torch.load(path, weights_only=True)
    random.setstate(states["python"])
    generator, keys, *rest = states["numpy"]
    np.random.set_state((generator, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
