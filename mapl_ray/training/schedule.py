"""Learning rate schedules: linear warmup, then cosine, linear or no decay.

The formulas are those of transformers' `get_scheduler`, which is not used because it imports transformers' trainer,
PEFT and bitsandbytes, which takes seconds on every rank.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["cosine", "linear", "constant"]


def lr_schedule(schedule: Schedule, optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Create a scheduler that scales the optimizer's learning rate by `lr_share` after every step."""
    share = partial(lr_share, schedule=schedule, warmup_steps=warmup_steps, total_steps=total_steps)
    return LambdaLR(optimizer, share)


def lr_share(step: int, *, schedule: Schedule, warmup_steps: int, total_steps: int) -> float:
    """Share of the peak learning rate at `step` (0 is the first), in [0, 1]."""
    if step < warmup_steps:
        return step / warmup_steps
    if schedule == "constant":
        return 1.0
    decaying = max(1, total_steps - warmup_steps)
    if schedule == "linear":
        return max(0.0, (total_steps - step) / decaying)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((step - warmup_steps) / decaying))))
