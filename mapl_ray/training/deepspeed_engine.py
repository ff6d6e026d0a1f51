"""The one module that imports deepspeed: a thin layer over its engine."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import get_scheduler

from mapl_ray.batches import Batch
from mapl_ray.config import TrainConfig
from mapl_ray.errors import RunError

# DeepSpeed would otherwise look for a GPU on its import and fail without one.
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed

_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


class Engine:
    """ZeRO over one module. Loss and gradients do not depend on the number of ranks or micro-batches."""

    def __init__(self, module: nn.Module, config: TrainConfig, total_steps: int) -> None:
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # DeepSpeed calls collectives by names that torch is about to rename: a word a call, thousands a run.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it even where there is one rank
        ensure_process_group()
        self.world_size, self.rank = world_size(), dist.get_rank()
        self._accumulation = config.gradient_accumulation_steps
        warmup_steps = round(config.warmup_ratio * total_steps)
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)
        )

        def schedule(of: torch.optim.Optimizer) -> Any:
            return get_scheduler(_SCHEDULES[config.schedule], of, warmup_steps, total_steps)

        self._engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            lr_scheduler=schedule,
            config=engine_config(config, self.world_size),
            dist_init_required=False,
        )

    @property
    def device(self) -> torch.device:
        """Where batches belong."""
        return torch.device(self._engine.device)

    @property
    def module(self) -> nn.Module:
        """The module given, its weights partitioned under ZeRO-3."""
        module: nn.Module = self._engine.module
        return module

    @property
    def learning_rate(self) -> float:
        """Of the step to come."""
        return float(self._engine.get_lr()[0])

    @property
    def grad_norm(self) -> float:
        """Before clipping, of the last step; NaN where the stage does not tell."""
        norm = self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def __call__(self, batch: Batch) -> torch.Tensor:
        outputs: torch.Tensor = self._engine(batch)
        return outputs

    def train_mode(self, on: bool) -> None:
        """Training (True) or evaluation."""
        self._engine.train(on)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients of a loss that is a part of the step's sum.

        DeepSpeed divides by the number of micro-batches and averages over ranks; the loss is already divided by the
        global counts, so both are undone.
        """
        self._engine.backward(loss * (self._accumulation * self.world_size))

    def step(self) -> None:
        """To be called after every micro-batch; the last one of a step updates the weights."""
        self._engine.step()

    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """All-reduced copy of a small tensor."""
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.all_reduce(torch.zeros(1, device=self.device))

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value (small, plain) on every rank."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def save(self, directory: Path) -> None:
        """Weights, optimizer and schedule; every rank writes its share."""
        self._engine.save_checkpoint(str(directory), tag="state")

    def load(self, directory: Path) -> None:
        """The inverse of `save`. The caller has verified the files: DeepSpeed unpickles them."""
        path, _ = self._engine.load_checkpoint(str(directory), tag="state")
        if path is None:  # DeepSpeed only warns.
            raise RunError(f"{directory}: DeepSpeed found no checkpoint there.")

    def full_state_dict(self) -> dict[str, torch.Tensor] | None:
        """Whole weights of the module on rank 0, None elsewhere; every rank must call it."""
        if self._engine.zero_optimization_stage() == 3:
            gathered: dict[str, torch.Tensor] = self._engine._zero3_consolidated_16bit_state_dict()
            return gathered if self.rank == 0 else None
        return self.module.state_dict() if self.rank == 0 else None


def engine_config(config: TrainConfig, world_size: int) -> dict[str, Any]:
    """DeepSpeed's own configuration."""
    micro, accumulation = config.micro_batch_size, config.gradient_accumulation_steps
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro * accumulation * world_size,
        "gradient_clipping": config.max_grad_norm,
        "bf16": {"enabled": config.bf16},
        "zero_optimization": {
            "stage": config.zero_stage,
            "stage3_gather_16bit_weights_on_model_save": True,
            # A trailing allgather into a flat buffer of this size: tiny models must not pay gigabytes for it.
            "allgather_bucket_size": 5e7,
            "reduce_bucket_size": 5e7,
        },
        "steps_per_print": 10**9,
        "zero_allow_untested_optimizer": True,
    }


def ensure_process_group() -> None:
    """Ranks come from the launcher (Ray Train, torchrun); without one, a group of this process alone."""
    if dist.is_initialized():
        return
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    else:  # Met through a file of its own: no port, and runs side by side do not meet each other.
        meeting = Path(tempfile.mkdtemp(prefix="mapl-")) / "meet"
        dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=0, world_size=1)


def world_size() -> int:
    """Number of ranks of the process group."""
    return dist.get_world_size()
