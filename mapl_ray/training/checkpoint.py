"""Checkpoints that are whole or not there: files first, a manifest with their digests last.

A checkpoint is trusted by its manifest alone; a damaged one is passed over for the one before. DeepSpeed's files are
pickles, so they are never loaded before their digests agree.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from mapl_ray.errors import UserError
from mapl_ray.shards import write_json
from mapl_ray.training.deepspeed_engine import Engine

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class CheckpointManifest:
    """What a checkpoint is."""

    step: int  # steps done
    fingerprint: str  # of the run it belongs to
    world_size: int
    zero_stage: int
    files: dict[str, str]  # path below the checkpoint -> sha256


def checkpoint_path(directory: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` steps."""
    return directory / f"step-{step:08d}"


def commit_checkpoint(path: Path, step: int, fingerprint: str, world_size: int, zero_stage: int) -> None:
    """Write the manifest over the files that all ranks have written; one rank calls it, after a barrier."""
    files = {str(file.relative_to(path)): _sha256(file) for file in sorted(path.rglob("*")) if file.is_file()}
    write_json(path / _MANIFEST, asdict(CheckpointManifest(step, fingerprint, world_size, zero_stage, files)))


def latest_checkpoint(directory: Path, fingerprint: str) -> tuple[Path, CheckpointManifest] | None:
    """The newest whole checkpoint of this run, or None. Prints a word about those passed over."""
    for path in sorted(directory.glob("step-*"), reverse=True):
        manifest, reason = _verified(path)
        if manifest is not None and manifest.fingerprint == fingerprint:
            return path, manifest
        print(f"  checkpoint {path.name} passed over: {reason or 'of a run with other settings'}", flush=True)
    return None


def resume(engine: Engine, directory: Path, fingerprint: str) -> int:
    """Load the newest whole checkpoint of this run on every rank; returns the steps already done.

    Rank 0 decides, so that all ranks load the same one. Raises `UserError` where another number of workers wrote it.
    """
    found = latest_checkpoint(directory, fingerprint) if engine.rank == 0 else None
    chosen = engine.broadcast(None if found is None else (str(found[0]), found[1].step, found[1].world_size))
    if chosen is None:
        return 0
    path, step, world_size = chosen
    if world_size != engine.world_size:
        raise UserError(
            f"{path}: written by {world_size} workers, and there are {engine.world_size}. "
            f"Set train.num_workers={world_size}, or delete the folder to start again."
        )
    engine.load(Path(path))
    if engine.rank == 0:
        print(f"  resumed after step {step} from {path}", flush=True)
    return int(step)


def remove_old(directory: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    found = sorted(path for path in directory.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))
    for path in found[: max(0, len(found) - keep)]:
        (path / _MANIFEST).unlink(missing_ok=True)  # first, so that half a deletion is no checkpoint
        shutil.rmtree(path)


def start_afresh(path: Path) -> None:
    """Remove what an interrupted attempt left of the checkpoint that is about to be written."""
    if path.exists():
        (path / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)


def _verified(path: Path) -> tuple[CheckpointManifest | None, str]:
    try:
        manifest = CheckpointManifest(**json.loads((path / _MANIFEST).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None, "unfinished"
    except (ValueError, TypeError) as error:
        return None, f"its manifest can't be read ({error})"
    for name, digest in manifest.files.items():
        file = path / name
        if not file.is_file() or _sha256(file) != digest:
            return None, f"{name} is missing or damaged"
    return manifest, ""


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
