"""Writing a checkpoint and going on from one, on all ranks together.

Random states are part of it: dropout draws in a step, and a resumed run must draw on.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mapl_ray.config import TrainConfig
from mapl_ray.errors import RunError
from mapl_ray.training.checkpoint import (
    begin_checkpoint,
    commit_checkpoint,
    damage_for_rank,
    remove_old,
    written_files,
)
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.resume import find_or_restart


@dataclass(frozen=True, slots=True)
class _Written:
    """A checkpoint that this rank has written and that is not committed yet."""

    folder: Path
    step: int
    files: Future[dict[str, str]]  # path below the folder -> sha256, once they are on the disk


@dataclass(slots=True)
class Checkpoints:
    """Those of one run.

    Training goes on while a checkpoint's files reach the disk and are digested: `save` writes them, `commit` makes
    them a checkpoint, one step later. A run that dies in between goes on from the checkpoint before.
    """

    engine: Engine
    config: TrainConfig
    directory: Path
    settings: dict[str, Any]  # what they must agree on (`run_settings`)
    _written: _Written | None = field(default=None, init=False)
    _disk: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"), init=False)

    def resume(self) -> int:
        """Load the newest whole one on every rank, or seed again; returns the steps already done.

        Rank 0 verifies the whole checkpoint, and every rank what it loads itself: nodes may see storage differently.
        Raises `UserError` on every rank where there are some and none can be used, `RunError` where a rank reads other
        bytes than rank 0.
        """
        engine, seed = self.engine, self.config.seed
        seed_all(seed, engine.rank)
        found = engine.from_rank_0(lambda: find_or_restart(self.directory, self.settings, self.config))
        if found is None:
            return 0
        path = Path(found.path)
        same_ranks = found.world_size == engine.world_size
        # Shards of another number of ranks are merged by rank 0; `Engine.load` compares the result.
        loads_shards = same_ranks or self.config.zero_stage == 0
        wrong = damage_for_rank(path, found.files, engine.rank) if loads_shards else ""
        for rank, text in enumerate(engine.gather(wrong)):
            if text:
                raise RunError(
                    f"{path}: not loaded: on rank {rank} {text}, and on rank 0 it is whole. Its node sees other bytes "
                    "than rank 0's: look at the storage, then run the same command again."
                )
        engine.load(path, found.world_size)
        if same_ranks:
            load_rng(path / _rng_file(engine.rank))
        else:  # There is no state of this rank: draw again, the same at every attempt.
            seed_all(seed, engine.rank, found.step)
        if engine.rank == 0:
            print(f"  resumed after step {found.step} from {path}", flush=True)
        return found.step

    def save(self, step: int) -> None:
        """Write the one after `step` steps; a collective, after which weights may change. See `commit`."""
        self.commit()
        engine = self.engine
        path = Path(engine.from_rank_0(lambda: str(begin_checkpoint(self.directory, step))))
        rng = path / _rng_file(engine.rank)
        files = engine.save(path)
        save_rng(rng)
        self._written = _Written(path, step, self._disk.submit(written_files, path, [*files, rng]))

    def commit(self) -> None:
        """Make a checkpoint of what `save` wrote, once it is on every rank's disk, and delete the oldest.

        A collective; nothing happens where there is nothing to commit. Raises what `written_files` and
        `commit_checkpoint` raise.
        """
        if self._written is None:
            return
        written, self._written = self._written, None
        reported = self.engine.gather(written.files.result())
        self.engine.from_rank_0(lambda: self._commit(written, reported))

    def _commit(self, written: _Written, reported: Sequence[Mapping[str, str]]) -> None:
        commit_checkpoint(
            written.folder,
            written.step,
            files=reported,
            world_size=self.engine.world_size,
            zero_stage=self.config.zero_stage,
            settings=self.settings,
        )
        remove_old(self.directory, self.config.checkpoints_to_keep)


def _rng_file(rank: int) -> str:
    return f"rng-{rank:05d}.pt"


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
