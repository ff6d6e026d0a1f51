"""One training step with its time and memory, shared by the ways of `training.py`."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from mapl_ray.batches import EncodedGroup, collate
from mapl_ray.config import LevelWeights
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model, prepare_for_trees
from mapl_ray.models.tree_attention import row_budget, row_multiple
from mapl_ray.objective import dpo_rewards, relation_loss

BETA = 0.1
LEARNING_RATE = 0.0  # AdamW does its full work, but weights do not change: all ways have the same loss in every step
Step = Callable[[], float]


@dataclass
class Measured:
    """Measurements of one way."""

    name: str
    tokens: int  # tokens per step, without padding
    padded_tokens: int  # tokens per step, with padding
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    memory_mib: float = 0.0

    def groups_per_second(self, groups: int, clock: str) -> float:
        return groups / statistics.median(self.cpu_seconds if clock == "cpu" else self.seconds)


class Learner:
    """A model with its optimizer, which can do a step in any way."""

    def __init__(self, method: str, directory: Path, device: str, dtype: Any, pad_token_id: int) -> None:
        head = {"seed": 0} if method == "rm" else {}  # seed of the new reward head
        load = load_reward_model if method == "rm" else load_policy
        self.method, self.device, self.dtype, self.pad = method, device, dtype, pad_token_id
        self.model = load(directory, dtype, device=device, **head).to(device)
        self.model.config.use_cache = False
        self.plain = self.model.config._attn_implementation
        prepare_for_trees(self.model, device_type=device)
        self.trees = self.model.config._attn_implementation
        self.module = (RewardScores if method == "rm" else PolicyLogps)(self.model).train()
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=LEARNING_RATE)

    def collate(self, groups: Sequence[EncodedGroup], batching: Any) -> Any:
        return collate(groups, batching, self.pad, row_multiple(self.model), row_budget(self.model))

    def step(self, groups: Sequence[EncodedGroup], batching: Any) -> float:
        """Do one step and return its loss. Padded batches use the attention that the model was loaded with."""
        self.model.set_attn_implementation(self.trees if batching == "tree" else self.plain)
        batch = self.collate(groups, batching).to(self.device)
        rewards_S = self.module(batch)
        if self.method == "dpo":
            rewards_S = dpo_rewards(rewards_S, batch.ref_logps_S, BETA)
        loss = relation_loss(rewards_S, batch.relations, LevelWeights()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.item())

    def measured(self, name: str, groups: Sequence[EncodedGroup], batching: Any) -> tuple[Measured, Step]:
        self.model.set_attn_implementation(self.trees if batching == "tree" else self.plain)
        batch = self.collate(groups, batching)
        return Measured(name, batch.num_tokens, batch.input_ids.numel()), lambda: self.step(groups, batching)


class Peak:
    """Context manager that measures the growth of memory, in MiB."""

    def __init__(self, device: str) -> None:
        self.cuda, self.mib = device == "cuda", 0.0

    def __enter__(self) -> Peak:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # release free memory, so that the next step does not reuse it
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.process, self.done = psutil.Process(), threading.Event()
            self.before = self.peak = self.process.memory_info().rss
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.01):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self.done.set()
            self.thread.join()
        self.mib = (self.peak - self.before) / 2**20


@contextlib.contextmanager
def timed(into: Measured, device: str) -> Iterator[None]:
    """Record wall seconds and CPU seconds of one step."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    into.seconds.append(time.perf_counter() - wall)
    into.cpu_seconds.append(time.process_time() - cpu)


@contextlib.contextmanager
def remembered(into: Measured, device: str) -> Iterator[None]:
    """Record the memory of one step."""
    with Peak(device) as peak:
        yield
    into.memory_mib = peak.mib
