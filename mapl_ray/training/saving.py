"""Saving checkpoints, keeping the best, and resuming, on all ranks together.

A checkpoint includes random states, so that a resumed run continues the random numbers, for example of dropout.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mapl_ray.config import TrainConfig
from mapl_ray.errors import RunError
from mapl_ray.training.best import (
    Best,
    By,
    KeptBest,
    drop_best,
    find_best,
    keep_files,
    remove_bests,
    remove_other_bests,
)
from mapl_ray.training.checkpoint import (
    begin_checkpoint,
    best_directory,
    commit_checkpoint,
    damage_for_rank,
    damage_of,
    remove_old,
    written_files,
)
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.resume import find_or_restart

_Digests = dict[str, str]  # path below the folder -> sha256


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """Files that one rank has synced to disk."""

    files: _Digests  # of the checkpoint
    best_files: _Digests
    copied: bool  # whether files were copied, as hard links are not supported


@dataclass(frozen=True, slots=True)
class _Written:
    """Files that this rank has written after a step, not committed yet."""

    step: int
    folder: Path | None  # of the checkpoint, if one is due
    best_folder: Path | None  # of the kept best, if this step is the best so far
    on_disk: Future[_OnDisk]


@dataclass(slots=True)
class Checkpoints:
    """Checkpoints of one run, and the weights of its best step so far.

    Training continues while a checkpoint's files are synced and digested: `save` writes files, and `commit` turns them
    into a checkpoint one step later. A run that dies in between resumes from the previous checkpoint.
    """

    engine: Engine
    config: TrainConfig
    directory: Path
    settings: dict[str, Any]  # settings that must be equal (`run_settings`)
    _reached: int = field(default=0, init=False)  # step of the newest loaded or committed checkpoint
    _written: _Written | None = field(default=None, init=False)
    _copies_reported: bool = field(default=False, init=False)
    _disk: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"), init=False)

    def resume(self) -> int:
        """Load the newest valid checkpoint on every rank, or seed the generators. Returns the number of steps done.

        Rank 0 verifies the whole checkpoint, and every rank the files that it loads, as storage may differ between
        nodes. Raises `UserError` on every rank if there are checkpoints but none can be used, `RunError` if a rank
        reads other bytes than rank 0.
        """
        engine, seed = self.engine, self.config.seed
        seed_all(seed, engine.rank)
        found = engine.from_rank_0(lambda: find_or_restart(self.directory, self.settings, self.config))
        if found is None:
            return 0
        path = Path(found.path)
        same_ranks = found.world_size == engine.world_size
        # For another number of ranks, rank 0 merges the shards, and `Engine.load` verifies the result on every rank.
        loads_shards = same_ranks or self.config.zero_stage == 0
        wrong = damage_for_rank(path, found.files, engine.rank) if loads_shards else ""
        for rank, text in enumerate(engine.gather(wrong)):
            if text:
                raise RunError(
                    f"{path}: not loaded: on rank {rank} {text}, but not on rank 0. Its node reads other bytes "
                    "than rank 0's: check the storage, then run the same command again."
                )
        engine.load(path, found.world_size)
        if same_ranks:
            load_rng(path / _rng_file(engine.rank))
        else:  # There is no state for this rank, so seed again, the same way at every attempt.
            seed_all(seed, engine.rank, found.step)
        if engine.rank == 0:
            print(f"  resumed after step {found.step} from {path}", flush=True)
        self._reached = found.step
        return found.step

    def resume_best(self, by: By | None) -> Best | None:
        """Find, after `resume`, the best evaluation with kept weights up to the resumed step; None if there is none.

        A collective: the ranks share the verification of files. A damaged one is removed, with a message, and the
        previous one is used, if it still exists.
        """
        engine = self.engine
        while True:
            found = engine.from_rank_0(lambda: self._find_best(by, self._reached))
            if found is None:
                return None
            path, names = Path(found.path), sorted(found.files)
            share = {name: found.files[name] for name in names[engine.rank :: engine.world_size]}
            wrong = [text for text in engine.gather(damage_of(path, share)) if text]
            if not wrong:
                return found.best
            engine.from_rank_0(partial(drop_best, path, wrong[0]))

    def load_best(self, best: Best) -> None:
        """Load the kept weights of the best step for export; training can't continue after it. A collective.

        Raises `RunError` on every rank if the weights are missing or damaged.
        """
        engine = self.engine
        found = engine.from_rank_0(lambda: self._find_best(best.by, best.step))
        if found is None or found.best.step != best.step:
            raise RunError(f"{best_directory(self.directory)}: the best model, of step {best.step}, is missing.")
        path = Path(found.path)
        if not engine.reads_all(found.world_size):
            wrong = damage_for_rank(path, found.files, engine.rank)
        else:
            wrong = damage_of(path, found.files) if engine.rank == 0 else ""
        for rank, text in enumerate(engine.gather(wrong)):
            if text:
                raise RunError(
                    f"{path}: the best model is not exported: on rank {rank} {text}. Check the storage, then run the "
                    "same command again: if these weights are lost, the best of the last steps is exported instead."
                )
        engine.load_weights(path, found.world_size)

    def save(self, step: int, *, due: bool = True, best: Best | None = None) -> None:
        """Write the state after `step` steps. A collective, after which weights may change. See `commit`.

        Args:
            due: whether to write a checkpoint.
            best: the evaluation of this step if it is the best so far. Its weights are kept until `remove_bests`, as
                hard links to the checkpoint's files or, without a checkpoint, as separate files.
        """
        self.commit()
        engine = self.engine
        folder, best_folder = engine.from_rank_0(lambda: self._begin(step, due, best is not None))
        files, weights = list[Path](), list[Path]()
        if folder is not None:
            rng = folder / _rng_file(engine.rank)
            files = engine.save(folder)
            weights = engine.files_of_weights(files) if best_folder is not None else []
            save_rng(rng)
            files.append(rng)
        elif best_folder is not None:
            weights = engine.save_weights(best_folder)
        marks = [best.mark(best_folder)] if best is not None and best_folder is not None and engine.rank == 0 else []
        on_disk = self._disk.submit(_bring_to_disk, folder, files, best_folder, weights, marks)
        self._written = _Written(step, folder, best_folder, on_disk)

    def commit(self) -> None:
        """Turn the files of `save` into a checkpoint, after all ranks have synced them, and delete the oldest one.

        A collective. Does nothing if there is nothing to commit. Raises as `written_files`, `keep_files` and
        `commit_checkpoint` do.
        """
        if self._written is None:
            return
        written, self._written = self._written, None
        reported = self.engine.gather(written.on_disk.result())
        self.engine.from_rank_0(lambda: self._commit(written, reported))
        if written.folder is not None:
            self._reached = written.step

    def _find_best(self, by: By | None, step: int) -> KeptBest | None:
        if by is None:
            remove_bests(self.directory)
            return None
        return find_best(self.directory, by, self.settings, step)

    def _begin(self, step: int, due: bool, is_best: bool) -> tuple[Path | None, Path | None]:
        folder = begin_checkpoint(self.directory, step) if due else None
        if not is_best:
            return folder, None
        # Bests after the newest checkpoint are not needed for a resume, and this one replaces them.
        remove_other_bests(self.directory, self._reached)
        return folder, begin_checkpoint(best_directory(self.directory), step)

    def _commit(self, written: _Written, reported: Sequence[_OnDisk]) -> None:
        def commit(folder: Path, files: Sequence[_Digests]) -> None:
            commit_checkpoint(
                folder,
                written.step,
                files=files,
                world_size=self.engine.world_size,
                zero_stage=self.config.zero_stage,
                settings=self.settings,
            )

        # The best first: a run that resumes from this checkpoint does not evaluate its step again.
        if written.best_folder is not None:
            commit(written.best_folder, [one.best_files for one in reported])
        if written.folder is not None:
            commit(written.folder, [one.files for one in reported])
        best_step = None if written.best_folder is None else written.step
        remove_other_bests(self.directory, self._reached if written.folder is None else written.step, best_step)
        remove_old(self.directory, self.config.checkpoints_to_keep)
        if any(one.copied for one in reported) and not self._copies_reported:
            self._copies_reported = True
            print(f"  {self.directory}: no hard links there: the best checkpoint is copied", flush=True)


def _bring_to_disk(
    folder: Path | None, files: Sequence[Path], best_folder: Path | None, weights: Sequence[Path], marks: Sequence[Path]
) -> _OnDisk:
    """Sync and digest files, in a thread. `weights` are in `folder` if there is one, else in `best_folder`."""
    digests = {} if folder is None else written_files(folder, files)
    if best_folder is None:
        return _OnDisk(digests, {}, copied=False)
    if folder is None:
        return _OnDisk({}, written_files(best_folder, [*weights, *marks]), copied=False)
    kept = {name: digests[name] for name in (str(path.relative_to(folder)) for path in weights)}
    copied = keep_files(folder, best_folder, kept)
    return _OnDisk(digests, kept | written_files(best_folder, marks), copied)


def _rng_file(rank: int) -> str:
    return f"rng-{rank:05d}.pt"


def seed_all(*parts: int) -> None:
    """Seed Python, NumPy and torch (all devices) from several numbers, such as `seed_all(seed, rank)`."""
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
    """Inverse of `save_rng`. The file has only tensors and plain values."""
    states: dict[str, Any] = torch.load(path, weights_only=True)
    random.setstate(states["python"])
    generator, keys, *rest = states["numpy"]
    np.random.set_state((generator, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
