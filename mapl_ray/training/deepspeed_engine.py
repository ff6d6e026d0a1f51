"""A thin wrapper of DeepSpeed's engine. Only this module, `sequence_ranks` and `weight_groups` import deepspeed."""

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

# Without this, importing DeepSpeed fails on machines without a GPU.
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.checkpoint import ds_to_universal

T = TypeVar("T")
_TAG = "state"  # DeepSpeed's tag of the only checkpoint in one of our folders
_WHOLE_WEIGHTS = "mp_rank_00_model_states.pt"  # file with the module's weights at ZeRO stages 0 to 2, from rank 0
_BESIDE = ("latest", "zero_to_fp32.py", "zero_to_torch.py")  # further files that DeepSpeed writes on rank 0


class NonFiniteGradientError(Exception):
    """The gradient has NaN or infinity. Raised on every rank, before the weights change."""


class Engine:
    """Trains a module with DeepSpeed ZeRO. Loss and gradients do not depend on the number of ranks or micro-batches."""

    def __init__(self, module: nn.Module, config: TrainConfig, total_steps: int) -> None:
        ensure_process_group()
        self.world_size, self.rank = world_size(), dist.get_rank()
        self.replica, place = divmod(self.rank, config.sequence_parallel_size)
        self.leads = place == 0  # whether this rank, of those that share its groups, adds to sums over ranks
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
        optimizer.register_step_pre_hook(self._check_norm)  # only here, as `initialize` runs an optimizer step

    @property
    def device(self) -> torch.device:
        """Device for batches."""
        return torch.device(self._engine.device)

    @property
    def module(self) -> nn.Module:
        """The trained module. Its weights are partitioned under ZeRO-3."""
        module: nn.Module = self._engine.module
        return module

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._engine.get_lr()[0])

    @property
    def grad_norm(self) -> float:
        """Gradient norm of the last step, before clipping."""
        return self._norm

    def __call__(self, batch: Batch) -> torch.Tensor:
        outputs: torch.Tensor = self._engine(batch)
        return outputs

    def train_mode(self, on: bool) -> None:
        """Switch to training (True) or evaluation mode."""
        self._engine.train(on)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients of a loss that is one summand of the step's loss.

        DeepSpeed divides by the number of micro-batches and averages over ranks. The loss is already divided by the
        global counts, so both are reversed here.
        """
        self._engine.backward(loss * (self._accumulation * self.world_size))

    def step(self) -> None:
        """Call it after every micro-batch. After the last one of a step, it updates the weights.

        Raises `NonFiniteGradientError` if the norm of the gradient, reduced over ranks, is not finite.
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
            if not self._engine.was_step_applied():  # DeepSpeed found an overflow and skipped the step
                raise NonFiniteGradientError

    def _check_norm(self, *_: Any) -> None:
        """Raise, before the optimizer steps, if the norm over all ranks is not finite. Some ZeRO stages would step.

        The norm is read from the device once per step, as ZeRO-3 steps its optimizer once per part of the weights.
        """
        if self._engine.optimizer is not self._engine.basic_optimizer and not self._norm_known:
            norm = getattr(self._engine.optimizer, "_global_grad_norm", None)
            self._norm, self._norm_known = (0.0 if norm is None else float(norm)), True
        if not math.isfinite(self._norm):
            raise NonFiniteGradientError

    def forget_module_order(self) -> None:
        """Under ZeRO-3, record the module order of the next pass again, which is used to prefetch weights."""
        coordinator = self._engine.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()

    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a small tensor over ranks (all-reduce)."""
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total

    def max_over_ranks(self, value: int) -> int:
        """Return the maximum of a value over ranks (all-reduce)."""
        largest = torch.tensor(value, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest.item())

    def barrier(self) -> None:
        """Wait for all ranks, for hours if needed, as rank 0 may be writing a model."""
        dist.all_reduce(torch.zeros(1), group=self._patient)

    def from_rank_0(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 and return its result (small, picklable) on every rank.

        Its `UserError` or `RunError` is raised on every rank, so that the other ranks do not wait forever.
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
        """Return the values of all ranks (small, picklable) on every rank, in order of rank."""
        values = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._patient)
        return values

    def save(self, directory: Path) -> list[Path]:
        """Save trained weights, optimizer and schedule. Every rank writes its shard and returns its files."""
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
        """The files of `save` that `load_weights` needs. ZeRO-3 has weights and Adam moments in one file per rank."""
        if self._engine.zero_optimization_stage() == 3:
            return [path for path in saved if path.parent.name == _TAG]
        return [path for path in saved if path.name == _WHOLE_WEIGHTS]

    def save_weights(self, directory: Path) -> list[Path]:
        """Save what `load_weights` needs: at ZeRO stages 0 to 2 one file, by rank 0. Returns this rank's files."""
        if self._engine.zero_optimization_stage() == 3:
            return self.save(directory)
        if self.rank != 0:
            return []
        path = directory / _TAG / _WHOLE_WEIGHTS
        path.parent.mkdir()
        torch.save({"module": self._engine.module_state_dict(exclude_frozen_parameters=self._frozen)}, path)
        return [path]

    def load_weights(self, directory: Path, world_size: int) -> None:
        """Load only trained weights, for `full_state_dict`; training can't continue after it. A collective.

        The caller must have verified the files, which `world_size` ranks have written. At ZeRO stages 0 to 2, rank 0
        reads one file, for any number of ranks.
        """
        if self._engine.zero_optimization_stage() == 3:
            self.load(directory, world_size)
        elif self.rank == 0:
            # `weights_only=False`, as DeepSpeed's file is a pickle with more than tensors.
            whole = torch.load(directory / _TAG / _WHOLE_WEIGHTS, map_location="cpu", mmap=True, weights_only=False)
            self.module.load_state_dict(whole["module"], strict=not self._frozen)

    def reads_all(self, world_size: int) -> bool:
        """Whether in `load_weights` only rank 0 reads the files, if `world_size` ranks have written them."""
        return world_size != self.world_size or self._engine.zero_optimization_stage() < 3

    def load(self, directory: Path, world_size: int) -> None:
        """Load what `save` wrote with `world_size` ranks. DeepSpeed unpickles the files, so verify them before.

        With another number of ranks, rank 0 first merges the shards into a universal checkpoint, which all ranks read.
        """
        stage = self._engine.zero_optimization_stage()
        if world_size == self.world_size or stage == 0:  # without ZeRO, every rank has the whole state
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
            # ZeRO-3 loads the first group's settings into every group (ours differ only in weight decay), and shares
            # one step-count tensor between all sub-groups, each of which would increment it.
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
        if set(schedule.base_lrs) != {self._peak_rate}:  # from a run with another learning rate (`adopt_checkpoint`)
            schedule.base_lrs = [self._peak_rate] * len(schedule.base_lrs)
            for group, share in zip(schedule.optimizer.param_groups, schedule.lr_lambdas, strict=True):
                group["initial_lr"], group["lr"] = self._peak_rate, self._peak_rate * share(schedule.last_epoch)

    def full_state_dict(self) -> dict[str, torch.Tensor] | None:
        """Gather weights of the module (all, or only trained ones) on rank 0; None elsewhere. Call it on every rank."""
        if self._engine.zero_optimization_stage() == 3:
            gathered: dict[str, torch.Tensor] = self._engine._zero3_consolidated_16bit_state_dict(
                exclude_frozen_parameters=self._frozen
            )
            return gathered if self.rank == 0 else None
        return self.module.state_dict() if self.rank == 0 else None


def frozen_forward(module: nn.Module, config: TrainConfig, device: torch.device) -> Callable[[Batch], torch.Tensor]:
    """Prepare the forward pass of a frozen module on the engine's device. Under ZeRO-3 its weights are partitioned."""
    if config.zero_stage < 3:  # other stages only partition gradients and optimizer states
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
        from deepspeed.ops.adam import DeepSpeedCPUAdam  # compiled on first use

        of: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, adamw_mode=True, **options)
        return of
    return torch.optim.AdamW(groups, fused=True, **options)  # one pass over memory, no temporaries


def _to_universal(shards: Path, target: Path) -> dict[str, str]:
    """Merge any number of ZeRO shards into one file per parameter and state; returns the files' digests."""
    shutil.rmtree(target.parent, ignore_errors=True)
    options = Namespace(
        input_folder=str(shards),
        output_folder=str(target),
        num_extract_workers=1,  # in this process, as forking a process that uses a GPU is not safe
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)
    return file_digests(target.parent)


def ensure_process_group() -> None:
    """Start the process group with the launcher's ranks (Ray Train, torchrun), or with this process as only rank."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed uses deprecated names of collectives: one warning per call, thousands per run.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed needs it even with one rank
    # This op is only for inference on CPUs and needs a compiler. A run that is killed during compilation leaves a lock,
    # and all later runs would wait for it forever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        _start_process_group()
    # A model may be partitioned before its engine is created. Without this, DeepSpeed would assume a single rank.
    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False, verbose=False)


def _start_process_group() -> None:
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        if torch.cuda.is_available():
            dist.init_process_group("nccl", timeout=COLLECTIVE_TIMEOUT)
        else:
            dist.init_process_group("gloo")
    else:  # Rendezvous by a private file: needs no port, and concurrent runs do not interfere.
        folder = unfinished(Path(tempfile.gettempdir()) / "mapl-ranks")
        folder.mkdir(mode=0o700)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        meeting = folder / "meet"
        dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=0, world_size=1)


def world_size() -> int:
    """Number of ranks of the process group."""
    return dist.get_world_size()
