"""Atomic checkpoints: written to a temporary folder, completed with a manifest of digests, then renamed.

    .step-00000050.HOST-4f1c.tmp/   temporary folder; never read, may be left over by a killed run
    step-00000050/
        state/...            DeepSpeed's shards
        rng-00000.pt         random states, one file per rank
        manifest.json        step, settings, sha256 of every file, and sha256 of the manifest itself
    best/step-00000050/      the weights of the best step so far, in the same form (`best.py`)

Only the manifest makes a folder a checkpoint. DeepSpeed's files are pickles, so they are loaded only after their
digests were verified.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mapl_ray.awaited import await_files
from mapl_ray.data.shards import file_sha256, fingerprint_of, sync_folder
from mapl_ray.errors import RunError
from mapl_ray.unfinished import becomes, unfinished

_MANIFEST = "manifest.json"
_BEST = "best"
_STEP = re.compile(r"step-\d{8}")
_RANK = re.compile(r"(?:zero_pp_rank_(\d+)_mp_rank_\d+_\w+|(?:^|/)rng-(\d{5}))\.pt$")  # DeepSpeed's names and ours
_READERS = 8  # threads that compute digests; hashlib releases the GIL


@dataclass(frozen=True, slots=True)
class CheckpointManifest:
    """Content of a checkpoint's `manifest.json`."""

    step: int  # steps done, which also determines the position in the data (`StepPlan`)
    world_size: int
    zero_stage: int
    settings: dict[str, Any]  # settings of its run (`run_settings`)
    files: dict[str, str]  # path below the checkpoint -> sha256


def checkpoint_path(directory: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` steps."""
    return directory / f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Inverse of `checkpoint_path`."""
    return int(path.name.rsplit("-", 1)[-1])


def best_directory(directory: Path) -> Path:
    """Folder of the kept bests, which are not removed together with old checkpoints."""
    return directory / _BEST


def begin_checkpoint(directory: Path, step: int) -> Path:
    """Create an empty temporary folder for a checkpoint, and remove those of interrupted attempts.

    Call it on one rank, before all ranks write.
    """
    drop_unfinished(directory)
    path = unfinished(checkpoint_path(directory, step))
    path.mkdir(parents=True)
    return path


def drop_unfinished(directory: Path) -> None:
    """Remove temporary folders of killed or failed runs, including those of bests."""
    for folder in (directory, best_directory(directory)):
        for leftover in folder.iterdir() if folder.is_dir() else ():
            if _STEP.fullmatch(becomes(leftover.name) or ""):
                shutil.rmtree(leftover, ignore_errors=True)  # another rank may remove it at the same time


def written_files(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Sync files that this rank has written to `folder`. Returns path below it -> sha256."""
    return _digests(folder, sorted(files), sync=True)


def commit_checkpoint(
    written: Path,
    step: int,
    *,
    files: Sequence[Mapping[str, str]],
    world_size: int,
    zero_stage: int,
    settings: dict[str, Any],
) -> Path:
    """Turn a folder of `begin_checkpoint` into a checkpoint. Call it on one rank, after a barrier.

    Args:
        files: the files that each rank has written there (`written_files`).

    Raises `RunError` unless the folder has exactly these files; otherwise another run uses the same folder.
    """
    path = checkpoint_path(written.parent, step)
    reported = {name: digest for of_rank in files for name, digest in of_rank.items()}
    if not reported:
        raise RunError(f"{path}: not saved: no rank has written a file.")
    await_files(written, sorted(reported))
    found = {str(file.relative_to(written)) for file in _files(written)}
    if wrong := sorted(found ^ {*reported}):
        what = "is gone" if wrong[0] in reported else "was not written by this run"
        raise RunError(f"{path}: not saved: {wrong[0]} {what}. Does another run use {written.parent}?")
    with (written / _MANIFEST).open("x", encoding="utf-8") as file:
        file.write(_render(CheckpointManifest(step, world_size, zero_stage, settings, reported)))
        file.flush()
        os.fsync(file.fileno())
    for folder in (written, *(path for path in written.rglob("*") if path.is_dir())):
        sync_folder(folder)  # ranks have synced the files, this syncs their names
    if path.exists():  # from before a resume from an earlier checkpoint
        remove_folder(path)
    written.rename(path)
    for folder in (path.parent, path.parent.parent):  # the parent folder may be new too
        sync_folder(folder)
    return path


def committed(directory: Path) -> list[Path]:
    """Folders of the checkpoints, oldest first, not verified yet."""
    return sorted(path for path in directory.glob("step-*") if _STEP.fullmatch(path.name))


def read_checkpoint_manifest(path: Path) -> tuple[CheckpointManifest | None, str]:
    """Read a checkpoint's manifest and verify its digest. Returns (manifest, ""), or None and the reason."""
    try:
        text = (path / _MANIFEST).read_text(encoding="utf-8")
        values = json.loads(text)
        values.pop("sha256")
        manifest = CheckpointManifest(**values)
    except FileNotFoundError:
        return None, "its manifest is missing"
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        return None, "its manifest can't be read"
    return (manifest, "") if text == _render(manifest) else (None, "its manifest is damaged")


def damage(path: Path, manifest: CheckpointManifest) -> str:
    """Verify all files of a checkpoint by digest, without unpickling. Returns the first problem, or an empty string."""
    return difference(path, manifest.files)


def file_digests(path: Path) -> dict[str, str]:
    """Path below a folder -> sha256 of every file there."""
    return _digests(path, list(_files(path)))


def difference(path: Path, files: Mapping[str, str]) -> str:
    """First difference between a folder's files and the expected ones (`file_digests`), or an empty string."""
    await_files(path, sorted(files))
    return _difference(file_digests(path), files)


def damage_for_rank(path: Path, files: Mapping[str, str], rank: int) -> str:
    """Verify those of `files` (path below the checkpoint -> sha256) that `rank` loads, as read on this node.

    Returns the first problem, or an empty string. Does not read shards of other ranks.
    """
    return damage_of(path, {name: digest for name, digest in files.items() if _rank_of(name) in (None, rank)})


def damage_of(path: Path, files: Mapping[str, str]) -> str:
    """Verify some files of a checkpoint (path below it -> sha256). Returns the first problem, or an empty string. Does
    not read other files."""
    await_files(path, sorted(files))
    return _difference(_digests(path, [path / name for name in files if (path / name).is_file()]), files)


def _rank_of(name: str) -> int | None:
    found = _RANK.search(name)
    return None if found is None else int(found[1] or found[2])


def _difference(found: Mapping[str, str], files: Mapping[str, str]) -> str:
    for name in sorted(found.keys() | files.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in files:
            return f"{name} does not belong to it"
        if found[name] != files[name]:
            return f"{name} is damaged"
    return ""


def remove_old(directory: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    found = committed(directory)
    for path in found[: max(0, len(found) - keep)]:
        remove_folder(path)


def remove_folder(path: Path) -> None:
    """Delete a folder atomically: readers find all of it or nothing."""
    doomed = path.rename(unfinished(path))  # first, so that half a deletion is no checkpoint
    shutil.rmtree(doomed)


def _render(manifest: CheckpointManifest) -> str:
    """The manifest as JSON, with a digest of all other fields."""
    values = asdict(manifest)
    return json.dumps({**values, "sha256": fingerprint_of(values)}, indent=1, sort_keys=True) + "\n"


def _digests(path: Path, files: Sequence[Path], sync: bool = False) -> dict[str, str]:
    with ThreadPoolExecutor(_READERS) as readers:
        digests = readers.map(lambda file: _digest(file, sync), files)
        return {str(file.relative_to(path)): digest for file, digest in zip(files, digests, strict=True)}


def _files(path: Path) -> Iterator[Path]:
    yield from (file for file in sorted(path.rglob("*")) if file.is_file() and file != path / _MANIFEST)


def _digest(path: Path, sync: bool) -> str:
    if sync:
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    return file_sha256(path)
