"""A thin layer over DeepSpeed's engine; beside it only `sequence_ranks` and `weight_groups` import deepspeed."""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import math
import os
import shutil
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from mapl_ray.batches import Batch
from mapl_ray.config import TrainConfig
from mapl_ray.errors import RunError, UserError
from mapl_ray.models.forward import frozen
from mapl_ray.progress import progress
from mapl_ray.training.checkpoint import difference, file_digests
from mapl_ray.training.engine_config import COLLECTIVE_TIMEOUT, LONG_WAIT, engine_config, parameter_groups
from mapl_ray.training.schedule import lr_schedule
from mapl_ray.unfinished import unfinished

# DeepSpeed would otherwise look for a GPU on its import and fail without one.
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.checkpoint import ds_to_universal

T = TypeVar("T")
_TAG = "state"  # DeepSpeed's name of the only checkpoint in a folder of ours
_WHOLE_WEIGHTS = "mp_rank_00_model_states.pt"  # below ZeRO-3, with the module's weights: rank 0 writes it
_BESIDE = ("latest", "zero_to_fp32.py", "zero_to_torch.py")  # what DeepSpeed writes beside the shards, on rank 0


class NonFiniteGradientError(Exception):
    """Raised on every rank, before the weights change."""


class Engine:
    """ZeRO over one module. Loss and gradients do not depend on the number of ranks or micro-batches."""

    def __init__(self, module: nn.Module, config: TrainConfig, total_steps: int) -> None:
        ensure_process_group()
        self.world_size, self.rank = world_size(), dist.get_rank()
        self.replica, place = divmod(self.rank, config.sequence_parallel_size)
        self.leads = place == 0  # of the ranks that share their groups, the one that counts in sums over ranks
        self._patient = dist.new_group(backend="gloo", timeout=LONG_WAIT)
        self._accumulation = config.gradient_accumulation_steps
        self._frozen = any(not parameter.requires_grad for parameter in module.parameters())
        self._micro_batches, self._norm, self._norm_known = 0, float("nan"), False
        self._peak_rate = config.learning_rate
        warmup_steps = round(config.warmup_ratio * total_steps)
        optimizer = _optimizer(module, config)

        def schedule(of: torch.optim.Optimizer) -> Any:
            return lr_schedule(config.schedule, of, warmup_steps, total_steps)

        self._engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            lr_scheduler=schedule,
            config=engine_config(config, self.world_size),
            dist_init_required=False,
        )
        optimizer.register_step_pre_hook(self._check_norm)  # now: DeepSpeed takes a step of its own when it starts

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
        """Before clipping, of the last step."""
        return self._norm

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
        """To be called after every micro-batch; the last one of a step updates the weights.

        Raises `NonFiniteGradientError` where the norm of the gradient, reduced over ranks, is not finite.
        """
        self._micro_batches += 1
        last = self._micro_batches % self._accumulation == 0
        plain = self._engine.optimizer is self._engine.basic_optimizer  # no ZeRO: the gradients are on the parameters
        if last and plain:
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            self._norm = float(torch.nn.utils.get_total_norm(gradients))
            self._check_norm()
        self._norm_known = False
        self._engine.step()
        if last and not plain:
            if not self._norm_known:
                norm = self._engine.get_global_grad_norm()
                self._norm = float("nan") if norm is None else float(norm)
            if not self._engine.was_step_applied():  # it looked by itself and left the weights as they were
                raise NonFiniteGradientError

    def _check_norm(self, *_: Any) -> None:
        """ZeRO knows the norm over all ranks before it lets the optimizer step, and some stages step in any case.

        Read from the device once a step: ZeRO-3 steps its optimizer once for every part of the weights.
        """
        if self._engine.optimizer is not self._engine.basic_optimizer and not self._norm_known:
            norm = getattr(self._engine.optimizer, "_global_grad_norm", None)
            self._norm, self._norm_known = (0.0 if norm is None else float(norm)), True
        if not math.isfinite(self._norm):
            raise NonFiniteGradientError

    def forget_module_order(self) -> None:
        """Under ZeRO-3: have the pass that comes next recorded as the order in which weights are fetched ahead."""
        coordinator = self._engine.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()

    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """All-reduced copy of a small tensor."""
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total

    def max_over_ranks(self, value: int) -> int:
        """The largest of all ranks' values."""
        largest = torch.tensor(value, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest.item())

    def barrier(self) -> None:
        """Wait for every rank, for hours where it must be: rank 0 may be writing a model."""
        dist.all_reduce(torch.zeros(1), group=self._patient)

    def from_rank_0(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0 (small, plain), on every rank; it is not called on the others.

        Its `UserError` or `RunError` is raised on every rank too: one that raised alone would leave the others waiting.
        """
        box: list[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = make()
            except (UserError, RunError) as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0, group=self._patient)
        if box[1] is not None:
            raise box[1]
        value: T = box[0]
        return value

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value (small, plain) on every rank, in order of rank."""
        values = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._patient)
        return values

    def save(self, directory: Path) -> list[Path]:
        """Trained weights, optimizer and schedule; every rank writes its share, and returns the files of it."""
        writer, files = self._engine.checkpoint_engine, []
        save = writer.save

        def noted(state_dict: Any, path: str, *args: Any, **options: Any) -> Any:
            files.append(Path(path))
            return save(state_dict, path, *args, **options)

        writer.save = noted
        try:
            self._engine.save_checkpoint(str(directory), tag=_TAG, exclude_frozen_parameters=self._frozen)
        finally:
            writer.save = save
        if self.rank == 0:
            files += [path for name in _BESIDE if (path := directory / name).is_file()]
        return files

    def files_of_weights(self, saved: Sequence[Path]) -> list[Path]:
        """Those of `save`'s files that `load_weights` needs. ZeRO-3 has weights and moments in one file per rank."""
        if self._engine.zero_optimization_stage() == 3:
            return [path for path in saved if path.parent.name == _TAG]
        return [path for path in saved if path.name == _WHOLE_WEIGHTS]

    def save_weights(self, directory: Path) -> list[Path]:
        """What `load_weights` needs, and below ZeRO-3 no more: one file, by rank 0. Returns this rank's files."""
        if self._engine.zero_optimization_stage() == 3:
            return self.save(directory)
        if self.rank != 0:
            return []
        path = directory / _TAG / _WHOLE_WEIGHTS
        path.parent.mkdir()
        torch.save({"module": self._engine.module_state_dict(exclude_frozen_parameters=self._frozen)}, path)
        return [path]

    def load_weights(self, directory: Path, world_size: int) -> None:
        """Trained weights alone, for `full_state_dict`: training can't go on. The caller has verified the files.

        A collective. Files are of `world_size` ranks; below ZeRO-3 rank 0 reads one, for any number of ranks.
        """
        if self._engine.zero_optimization_stage() == 3:
            self.load(directory, world_size)
        elif self.rank == 0:
            # DeepSpeed's file: a pickle of more than tensors.
            whole = torch.load(directory / _TAG / _WHOLE_WEIGHTS, map_location="cpu", mmap=True, weights_only=False)
            self.module.load_state_dict(whole["module"], strict=not self._frozen)

    def reads_all(self, world_size: int) -> bool:
        """Whether `load_weights` of what `world_size` ranks have written reads it on rank 0 alone, for all ranks."""
        return world_size != self.world_size or self._engine.zero_optimization_stage() < 3

    def load(self, directory: Path, world_size: int) -> None:
        """The inverse of `save`, by `world_size` ranks. The caller has verified the files: DeepSpeed unpickles them.

        Shards of another number of ranks are first merged into a universal checkpoint, which every rank reads.
        """
        stage = self._engine.zero_optimization_stage()
        if world_size == self.world_size or stage == 0:  # without ZeRO every rank holds everything
            self._load(directory)
            return
        merged = self.from_rank_0(lambda: unfinished(directory))
        with progress("merge the checkpoint's shards") if self.rank == 0 else contextlib.nullcontext():
            digests = self.from_rank_0(lambda: _to_universal(directory / _TAG, merged / _TAG))
        wrong = [text for text in self.gather(difference(merged, digests)) if text]
        if wrong:
            raise RunError(f"{merged}: the merged checkpoint is not the same on every node: {wrong[0]}.")
        optimizer = self._engine.basic_optimizer
        decay = [group["weight_decay"] for group in optimizer.param_groups]
        self._engine._config.load_universal_checkpoint = True
        try:
            self._load(merged)
            # ZeRO-3 loads the first group's settings into every group (ours differ in decay alone), and the same tensor
            # as every sub-group's count of steps, which each of them would raise.
            for group, own in zip(optimizer.param_groups, decay, strict=True):
                group["weight_decay"] = own
            for state in optimizer.state.values():
                if isinstance(step := state.get("step"), torch.Tensor):
                    state["step"] = step.clone()
        finally:
            self._engine._config.load_universal_checkpoint = False
            self.barrier()
            if self.rank == 0:
                shutil.rmtree(merged)

    def _load(self, directory: Path) -> None:
        path, _ = self._engine.load_checkpoint(str(directory), tag=_TAG, load_module_strict=not self._frozen)
        if path is None:  # DeepSpeed only warns.
            raise RunError(f"{directory}: DeepSpeed found no checkpoint there.")
        schedule = self._engine.lr_scheduler
        if set(schedule.base_lrs) != {self._peak_rate}:  # taken over from a run with another rate (`adopt_checkpoint`)
            schedule.base_lrs = [self._peak_rate] * len(schedule.base_lrs)
            for group, share in zip(schedule.optimizer.param_groups, schedule.lr_lambdas, strict=True):
                group["initial_lr"], group["lr"] = self._peak_rate, self._peak_rate * share(schedule.last_epoch)

    def full_state_dict(self) -> dict[str, torch.Tensor] | None:
        """Whole weights of the module, those trained at least, on rank 0, None elsewhere; every rank must call it."""
        if self._engine.zero_optimization_stage() == 3:
            gathered: dict[str, torch.Tensor] = self._engine._zero3_consolidated_16bit_state_dict(
                exclude_frozen_parameters=self._frozen
            )
            return gathered if self.rank == 0 else None
        return self.module.state_dict() if self.rank == 0 else None


def frozen_forward(module: nn.Module, config: TrainConfig, device: torch.device) -> Callable[[Batch], torch.Tensor]:
    """A module that is not trained, on the engine's device; under ZeRO-3 its weights are partitioned too."""
    if config.zero_stage < 3:  # the stages below partition what a frozen model does not have
        return frozen(module, device, bf16=config.in_bf16)
    module.requires_grad_(False)
    settings = engine_config(config, world_size())
    settings["zero_optimization"].pop("offload_optimizer", None)
    engine, *_ = deepspeed.initialize(model=module, config=settings, dist_init_required=False)
    engine.eval()
    forward: Callable[[Batch], torch.Tensor] = engine
    return forward


def _optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    groups = parameter_groups(module, config.weight_decay)
    options: dict[str, Any] = {"lr": config.learning_rate, "betas": (0.9, 0.95)}
    if config.offload != "none" and torch.cuda.is_available():
        from deepspeed.ops.adam import DeepSpeedCPUAdam  # compiled when it is first used

        of: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, adamw_mode=True, **options)
        return of
    return torch.optim.AdamW(groups, fused=True, **options)  # one pass over memory, no temporaries


def _to_universal(shards: Path, target: Path) -> dict[str, str]:
    """Merge ZeRO's shards, whatever their number, into one file per parameter and state; returns their digests."""
    shutil.rmtree(target.parent, ignore_errors=True)
    options = Namespace(
        input_folder=str(shards),
        output_folder=str(target),
        num_extract_workers=1,  # in this process: a fork of one that holds a GPU is not safe
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)
    return file_digests(target.parent)


def ensure_process_group() -> None:
    """Ranks come from the launcher (Ray Train, torchrun); without one, a group of this process alone."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch is about to rename: one line per call, thousands per run.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it even where there is one rank
    # Serves inference on CPUs alone, takes a compiler, and a run that is killed while it compiles leaves a lock on
    # which every later one waits forever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        _start_process_group()
    # DeepSpeed takes itself for one rank until it knows of the group, and a model is partitioned before its engine.
    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False, verbose=False)


def _start_process_group() -> None:
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        if torch.cuda.is_available():
            dist.init_process_group("nccl", timeout=COLLECTIVE_TIMEOUT)
        else:
            dist.init_process_group("gloo")
    else:  # Met through a file of its own: no port, and runs side by side do not meet each other.
        folder = unfinished(Path(tempfile.gettempdir()) / "mapl-ranks")
        folder.mkdir(mode=0o700)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        meeting = folder / "meet"
        dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=0, world_size=1)


def world_size() -> int:
    """Number of ranks of the process group."""
    return dist.get_world_size()
