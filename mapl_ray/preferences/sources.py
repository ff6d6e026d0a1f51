"""Open the sources that `data.path` names: local files, a URI, a saved data set, a data set on the hub, or the demo."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import BinaryIO

from mapl_ray.config import DataConfig
from mapl_ray.errors import UserError
from mapl_ray.preferences.files import FILE_KINDS, file_kind, read_file, row_groups
from mapl_ray.preferences.formats import COLUMNS
from mapl_ray.preferences.library_sources import hub_source, saved_source
from mapl_ray.preferences.remote import is_uri, remote_files
from mapl_ray.preferences.source import Slice, Source, columns_of

DEMO = Path(__file__).parent / "demo_pairs.jsonl"
_PACKED = (".gz", ".zst", ".xz", ".bz2", ".zip", ".lz4", ".br")
_PACKED_TEXT = 4  # approximate bytes of text per packed byte
_SHARED = "Put the data on storage that all nodes share, and do not change the files during the run."
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def open_sources(config: DataConfig) -> list[Source]:
    """The sources of `config.path` in reading order; at least one.

    Raises `UserError` if the path does not exist or is of an unsupported kind.
    """
    if config.path == "demo":
        return [_file_source(DEMO, config)]
    if is_uri(config.path):
        return _remote_sources(config)
    if not config.path.strip():
        raise UserError("data.path is empty. Expected a file, a folder or the name of a Hugging Face data set.")
    path = Path(config.path).expanduser()
    try:
        is_folder, is_file, exists = path.is_dir(), path.is_file(), path.exists()
    except (OSError, ValueError) as error:
        raise UserError(f"data.path={config.path!r}: not a usable path ({error}).") from None
    if is_folder:
        return _folder_sources(path, config)
    if is_file:
        if file_kind(path) is None:
            raise UserError(f"{path}: unsupported kind of file. Expected {FILE_KINDS}.")
        return [_file_source(path, config)]
    if exists:
        raise UserError(f"{path}: neither a regular file nor a folder. Set data.path to one of these.")
    if not _HUB_NAME.fullmatch(config.path) or file_kind(path) is not None:
        raise UserError(
            f"data.path={config.path!r}: no such file or folder (looked from {Path.cwd()}). Expected a file "
            f"({FILE_KINDS}), a folder of such files, a saved data set or the name of a Hugging Face data set."
        )
    return [hub_source(config)]


def _remote_sources(config: DataConfig) -> list[Source]:
    uri, columns = config.path, columns_of(config)
    all_files = remote_files(uri)
    _refuse_packed(uri, [file.path for file in all_files])
    files = [file for file in all_files if file_kind(file.path) is not None]
    if not files:
        raise UserError(f"data.path={uri!r}: has no file of a supported kind. Expected {FILE_KINDS}.")
    return [_of_file(f"{uri} ({f.path.name})", f.path, columns, f.open, f.size) for f in files]


def _file_source(path: Path, config: DataConfig) -> Source:
    size = path.stat().st_size
    # Workers start in other folders, so paths are absolute. The package may be installed elsewhere on other nodes.
    opener = _demo if path == DEMO else partial(_opened, path, path.absolute(), size)
    return _of_file(str(path), path, columns_of(config), opener, size)


def _of_file(name: str, path: PurePath, columns: frozenset[str], opener: Callable[[], BinaryIO], size: int) -> Source:
    rows = partial(read_file, path, columns, opener)
    packed = path.suffix.lower() in (".gz", ".parquet")
    cut = partial(_group_slices, path, columns, opener) if file_kind(path) == ".parquet" else None
    return Source(name, path.name, rows, size * _PACKED_TEXT if packed else size, cut)


def _group_slices(path: PurePath, columns: frozenset[str], opener: Callable[[], BinaryIO], size: int) -> list[Slice]:
    found = row_groups(path, opener, size // _PACKED_TEXT)
    return [Slice(partial(read_file, path, columns, opener, groups), size) for groups in found]


def _demo() -> BinaryIO:
    return DEMO.open("rb")


def _opened(shown: Path, path: Path, size: int) -> BinaryIO:
    """Open a local file. Raises `UserError` if it is missing on this node or has another size."""
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{shown}: not found on node {socket.gethostname()}. {_SHARED}") from None
    if (found := handle.seek(0, 2)) != size:
        handle.close()
        raise UserError(
            f"{shown}: {found:,} bytes on node {socket.gethostname()}; expected {size:,}, as when the run began. "
            f"{_SHARED}"
        )
    handle.seek(0)
    return handle


def _refuse_packed(where: str, files: Sequence[PurePath]) -> None:
    """Raise `UserError` if `files` has a compressed data file, which would otherwise be skipped silently."""
    for file in files:
        inner = PurePath(file.stem)
        if file_kind(file) is None and file.suffix.lower() in _PACKED and file_kind(inner) is not None:
            raise UserError(f"{where}: {file.name} is compressed data that is not read. Decompress it or move it.")


def _folder_sources(path: Path, config: DataConfig) -> list[Source]:
    label = path.resolve().name
    if (path / "dataset_dict.json").is_file():
        return [saved_source(path, label, config.split, config)]
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return [saved_source(path, label, None, config)]
    files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith((".", "_")))
    _refuse_packed(str(path), files)
    read = [f for f in files if file_kind(f) is not None]
    if not read:
        found = ", ".join(f.name for f in files[:5]) or "no files"
        raise UserError(
            f"{path}: has no file of a supported kind (found {found}). Expected {FILE_KINDS} files directly in it, or "
            "a folder made by save_to_disk."
        )
    return [_file_source(f, config) for f in read]


def source_identity(config: DataConfig) -> dict[str, str]:
    """Identity of every file of `config.path`, by name; empty for a data set on the hub.

    Local files are identified by sha256, so that a copy elsewhere counts as the same; remote files by size and
    modification time.
    """
    if is_uri(config.path):
        return {str(file.path): file.identity for file in remote_files(config.path)}
    folder = Path(config.path).expanduser()
    identity = {}
    for file in _local_files(config):
        # The splits of a saved data set have files with the same names, so names are relative to the folder.
        name = file.relative_to(folder).as_posix() if folder.is_dir() and config.path != "demo" else file.name
        with file.open("rb") as handle:
            identity[name] = hashlib.file_digest(handle, "sha256").hexdigest()
    return identity


def _local_files(config: DataConfig) -> list[Path]:
    if config.path == "demo":
        return [DEMO]
    path = Path(config.path).expanduser()
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return [path] if path.is_file() else []


def check_source(config: DataConfig) -> None:
    """Raise `UserError` if `config` names a source that can't be opened; reads no rows."""
    for part in config.parts():
        check_columns(part)
        open_sources(part)


def check_columns(config: DataConfig) -> None:
    """Raise `UserError` if `config.columns` declares a column that is never read."""
    for name, own in config.columns.items():
        if name not in COLUMNS or not own.strip():
            raise UserError(
                f"data.columns={{{name}: {own}}}: expected a column that is read, and its name in the data. Columns "
                f"that are read: {', '.join(sorted(COLUMNS))}."
            )
