"""Checkpoints that are whole or not there: written aside, committed by a manifest with digests, then renamed.

    .step-00000050.HOST-4f1c.tmp/   being written; a killed run leaves it behind, nobody reads it
    step-00000050/
        state/...            DeepSpeed's shards
        rng-00000.pt         random states, one file per rank
        manifest.json        what it is, sha256 of every file, and of itself
    best/step-00000050/      the weights of the best step so far, in the same form (`best.py`)

A checkpoint is trusted by its manifest alone. DeepSpeed's files are pickles, so they are never loaded before their
digests agree.
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
_READERS = 8  # files digested at once; hashlib lets other threads run


@dataclass(frozen=True, slots=True)
class CheckpointManifest:
    """What a checkpoint is."""

    step: int  # steps done; the place in the data follows from it (`StepPlan`)
    world_size: int
    zero_stage: int
    settings: dict[str, Any]  # of the run it belongs to (`run_settings`)
    files: dict[str, str]  # path below the checkpoint -> sha256


def checkpoint_path(directory: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` steps."""
    return directory / f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The inverse of `checkpoint_path`."""
    return int(path.name.rsplit("-", 1)[-1])


def best_directory(directory: Path) -> Path:
    """Folder beside the checkpoints, in which old ones are not removed with theirs."""
    return directory / _BEST


def begin_checkpoint(directory: Path, step: int) -> Path:
    """The folder to write into, empty, and this run's alone; what interrupted attempts left is removed.

    One rank calls it, before all.
    """
    drop_unfinished(directory)
    path = unfinished(checkpoint_path(directory, step))
    path.mkdir(parents=True)
    return path


def drop_unfinished(directory: Path) -> None:
    """Remove what killed or failed runs began to write or to remove, of the best step too."""
    for folder in (directory, best_directory(directory)):
        for leftover in folder.iterdir() if folder.is_dir() else ():
            if _STEP.fullmatch(becomes(leftover.name) or ""):
                shutil.rmtree(leftover, ignore_errors=True)  # another rank may be at it too


def written_files(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Path below `folder` -> sha256 of files that this rank has written there, each of them on the disk."""
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
    """Make a folder of `begin_checkpoint` a checkpoint; one rank calls it, after a barrier.

    Args:
        files: what each rank says that it has written there (`written_files`).

    Raises `RunError` unless exactly these files are there: another run would be at work in the same place.
    """
    path = checkpoint_path(written.parent, step)
    reported = {name: digest for of_rank in files for name, digest in of_rank.items()}
    if not reported:
        raise RunError(f"{path}: not saved: no rank has written a file.")
    await_files(written, sorted(reported))
    found = {str(file.relative_to(written)) for file in _files(written)}
    if wrong := sorted(found ^ {*reported}):
        what = "is gone" if wrong[0] in reported else "was not written by this run"
        raise RunError(f"{path}: not saved: {wrong[0]} {what}. Does another run work in {written.parent}?")
    with (written / _MANIFEST).open("x", encoding="utf-8") as file:
        file.write(_render(CheckpointManifest(step, world_size, zero_stage, settings, reported)))
        file.flush()
        os.fsync(file.fileno())
    for folder in (written, *(path for path in written.rglob("*") if path.is_dir())):
        sync_folder(folder)  # the names of files that ranks have synced
    if path.exists():  # of a longer run that went back to an earlier checkpoint
        remove_folder(path)
    written.rename(path)
    for folder in (path.parent, path.parent.parent):  # whose own name may be new
        sync_folder(folder)
    return path


def committed(directory: Path) -> list[Path]:
    """Folders of the checkpoints, oldest first; not yet verified."""
    return sorted(path for path in directory.glob("step-*") if _STEP.fullmatch(path.name))


def read_checkpoint_manifest(path: Path) -> tuple[CheckpointManifest | None, str]:
    """The manifest of a checkpoint, verified against its own digest; or None and the reason."""
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
    """What is wrong with the files of a checkpoint; empty where nothing is. Reads every byte, unpickles nothing."""
    return difference(path, manifest.files)


def file_digests(path: Path) -> dict[str, str]:
    """Path below a folder -> sha256 of every file there."""
    return _digests(path, list(_files(path)))


def difference(path: Path, files: Mapping[str, str]) -> str:
    """The first difference between the files of a folder and those expected (`file_digests`); empty for none."""
    await_files(path, sorted(files))
    return _difference(file_digests(path), files)


def damage_for_rank(path: Path, files: Mapping[str, str], rank: int) -> str:
    """What is wrong with those of `files` (path below the checkpoint -> sha256) that `rank` loads, as its node sees
    them; empty where nothing is. Shards of other ranks are not read."""
    return damage_of(path, {name: digest for name, digest in files.items() if _rank_of(name) in (None, rank)})


def damage_of(path: Path, files: Mapping[str, str]) -> str:
    """What is wrong with some files of a checkpoint (path below it -> sha256); empty where nothing is. Others are not
    read."""
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
    """Delete a folder; a reader finds all of it or nothing."""
    doomed = path.rename(unfinished(path))  # first, so that half a deletion is no checkpoint
    shutil.rmtree(doomed)


def _render(manifest: CheckpointManifest) -> str:
    """Text that changes with every byte of its content: the digest covers all other fields."""
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
