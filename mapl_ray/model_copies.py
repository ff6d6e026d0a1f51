"""Copy models from a URI (s3://, gs://, hdfs://, file://) or hub to a local directory, once per machine.

A copy of a URI is identified by the names, sizes and ETags of its files (modification times if a store has no ETags),
so another model at the same URI gets a new copy. Each file is written under a temporary name and renamed when it is
complete. Weights are copied when they are loaded; checks before a run need only the small files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from mapl_ray.errors import RunError, UserError, first_line
from mapl_ray.hub_models import SMALL, hub_folder, is_hub_name
from mapl_ray.preferences import RemoteFile, is_uri, remote_files
from mapl_ray.unfinished import leftovers, unfinished

# Copied in addition to SMALL. Pickles and code are never copied.
_WEIGHTS = ".safetensors"
_CHUNK = 2**24  # bytes
# An unfinished copy that was not written to for this long counts as abandoned. Not all network storage shares locks
# between hosts.
_LEFT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """The model files at a URI, and the folder of this machine's copy."""

    uri: str
    identity: str
    folder: Path
    files: tuple[RemoteFile, ...]

    @property
    def weight_bytes(self) -> int:
        """Size of the weights at the URI, copied or not."""
        return sum(file.size for file in self.files if file.path.suffix == _WEIGHTS)


_seen: dict[str, RemoteModel] = {}  # within a process a URI always means the same model


def local_directory(path: str | Path, *, weights: bool, revision: str | None = None) -> Path | str:
    """The path itself, or the folder with the local copy of a URI or hub name; without `weights`, only small files.

    Raises `UserError` for a URI that can't be reached or holds no safetensors, `HubUnreachableError` if the hub can't
    be reached, `RunError` if copying fails.
    """
    if is_hub_name(path):
        return hub_folder(str(path), revision, weights=weights)
    if not is_uri(str(path)):
        return path
    model = remote_model(str(path))
    model.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(model.folder.with_suffix(".lock")):  # many workers of one machine start at once
        for file in model.files:
            there = model.folder / file.path.name
            whole = there.is_file() and there.stat().st_size == file.size
            if (weights or file.path.suffix != _WEIGHTS) and not whole:
                _copy(file, there, model.uri)
    return model.folder


def remote_model(uri: str) -> RemoteModel:
    """The model at the URI, looked up once per process. Raises `UserError` like `local_directory`."""
    if uri not in _seen:
        found = [file for file in remote_files(uri, "model") if file.path.suffix in (*SMALL, _WEIGHTS)]
        if not any(file.path.suffix == _WEIGHTS for file in found):
            raise UserError(
                f"model={uri!r}: no safetensors there. Save the model with save_pretrained; pickles are not read."
            )
        digest = hashlib.sha256()
        for file in found:
            digest.update(f"{file.path.name}\n{file.size}\n{_known_by(file, uri)}\n".encode())
        identity = digest.hexdigest()
        _seen[uri] = RemoteModel(uri, identity, cache_folder() / "models" / identity[:32], tuple(found))
    return _seen[uri]


def known_model(uri: str) -> RemoteModel | None:
    """The cached result of `remote_model`; None if this process has not called it yet. Contacts no server."""
    return _seen.get(uri)


def cache_folder() -> Path:
    """`MAPL_CACHE`, else `mapl_ray` in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "mapl_ray"
    return Path(os.environ.get("MAPL_CACHE") or user).expanduser()


def _known_by(file: RemoteFile, uri: str) -> str:
    try:
        return file.etag() or file.modified
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"model={uri!r}: {file.path.name} can't be read ({first_line(error)}).") from None


def _copy(file: RemoteFile, target: Path, uri: str) -> None:
    for leftover in leftovers(target, _LEFT_SECONDS):
        leftover.unlink(missing_ok=True)
    aside = unfinished(target)
    try:
        with file.open() as source, aside.open("wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
            copy.flush()
            os.fsync(copy.fileno())
            size = copy.tell()
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{uri}: copying {target.name} to {target.parent} stopped ({first_line(error)}).") from error
    if size != file.size:
        raise RunError(f"{uri}: {target.name} has {size} bytes, expected {file.size}. Did it change during the copy?")
    aside.replace(target)
