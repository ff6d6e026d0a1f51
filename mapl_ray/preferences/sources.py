"""What `data.path` names, opened: files here or behind a URI, a saved data set, a data set on the hub, or the demo."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from mapl_ray.config import DataConfig
from mapl_ray.data.arrow_types import refuse_duplicates, refuse_extensions
from mapl_ray.errors import RunError, UserError, first_line
from mapl_ray.preferences.files import FILE_KINDS, RawRow, file_kind, read_file
from mapl_ray.preferences.formats import COLUMNS
from mapl_ray.preferences.remote import is_uri, remote_files

DEMO = Path(__file__).parent / "demo_pairs.jsonl"
_NOT_DECODED = ("Json",)  # a feature type that is parsed from the text itself
_PACKED = (".gz", ".zst", ".xz", ".bz2", ".zip", ".lz4", ".br")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """One stream of raw rows."""

    name: str  # in messages: the path as the user gave it, or the data set's name
    label: str  # in records: the file's or data set's name, the same on every machine
    rows: Callable[[], Iterator[RawRow]]


def open_sources(config: DataConfig) -> list[Source]:
    """The sources of `config.path` in reading order, at least one.

    Raises `UserError` if there is no such thing, or it is of a kind that is not read.
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
            raise UserError(f"{path}: not a kind of file that is read. Expected {FILE_KINDS}.")
        return [_file_source(path, config)]
    if exists:
        raise UserError(f"{path}: neither a regular file nor a folder.")
    if not _HUB_NAME.fullmatch(config.path) or file_kind(path) is not None:
        raise UserError(
            f"data.path={config.path!r}: no such file or folder (looked from {Path.cwd()}). Expected a file "
            f"({FILE_KINDS}), a folder of such files, a saved data set or the name of a Hugging Face data set."
        )
    return [Source(config.path, config.path, partial(_hub_rows, config))]


def columns_of(config: DataConfig) -> frozenset[str]:
    """The columns that are read of a source, by its own names."""
    return COLUMNS.union(config.columns.values())


def _remote_sources(config: DataConfig) -> list[Source]:
    uri, columns = config.path, columns_of(config)
    all_files = remote_files(uri)
    _refuse_packed(uri, [file.path for file in all_files])
    files = [file for file in all_files if file_kind(file.path) is not None]
    if not files:
        raise UserError(f"data.path={uri!r}: holds no file that is read. Expected {FILE_KINDS}.")
    return [Source(f"{uri} ({f.path.name})", f.path.name, partial(read_file, f.path, columns, f.open)) for f in files]


def _file_source(path: Path, config: DataConfig) -> Source:
    return Source(str(path), path.name, partial(read_file, path, columns_of(config)))


def _refuse_packed(where: str, files: Sequence[PurePath]) -> None:
    """Raise `UserError` for a data file of a folder that would be passed over because of how it is packed."""
    for file in files:
        inner = PurePath(file.stem)
        if file_kind(file) is None and file.suffix.lower() in _PACKED and file_kind(inner) is not None:
            raise UserError(f"{where}: {file.name} is data that is packed and not read. Unpack it, or move it away.")


def _folder_sources(path: Path, config: DataConfig) -> list[Source]:
    label = path.resolve().name
    if (path / "dataset_dict.json").is_file():
        return [Source(str(path), label, partial(_saved_rows, path, config.split, columns_of(config)))]
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return [Source(str(path), label, partial(_saved_rows, path, None, columns_of(config)))]
    files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith((".", "_")))
    _refuse_packed(str(path), files)
    read = [f for f in files if file_kind(f) is not None]
    if not read:
        found = ", ".join(f.name for f in files[:5]) or "no files"
        raise UserError(
            f"{path}: holds no file that is read (found {found}). Expected {FILE_KINDS} files directly in it, or a "
            "folder made by save_to_disk."
        )
    return [_file_source(f, config) for f in read]


def _saved_rows(path: Path, split: str | None, columns: frozenset[str]) -> Iterator[RawRow]:
    """Rows of a `save_to_disk` folder; `split` is None for a single data set, which has none."""
    import datasets  # here: it takes most of a second, and most runs read files

    try:
        data = datasets.load_from_disk(str(path))
        if split is not None:
            if split not in data:
                raise UserError(f"{path}: has no split {split!r}. Set data.split to one of: {', '.join(data)}.")
            data = data[split]
        refuse_extensions(data.data.schema, str(path))
        refuse_duplicates(data.data.schema, str(path))
        yield from _numbered(data.with_format(None), columns, str(path))
    # A damaged folder shows as any of these, from its JSON files or from Arrow's.
    except (pa.ArrowException, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a whole save_to_disk folder ({type(error).__name__}: {first_line(error)}). "
            "Save or copy it again."
        ) from None


def _hub_rows(config: DataConfig) -> Iterator[RawRow]:
    """Rows of a data set on the hub, streamed. Loading scripts never run: `trust_remote_code` is not passed."""
    import datasets  # here: it takes most of a second, and most runs read files
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as BUILDERS

    if config.path in BUILDERS:
        # Not a data set: a builder, which would read whatever lies in the folder that the command was started in.
        raise UserError(f"data.path={config.path!r}: no such file or folder, and not a data set. Expected owner/name.")
    started = False
    try:
        data = datasets.load_dataset(config.path, split=config.split, revision=config.revision, streaming=True)
        for raw in _numbered(data, columns_of(config), f"hub data set {config.path!r}"):
            started = True
            yield raw
    except UserError:
        raise
    # Whatever HTTP client and file format stand behind it: there is no closed list of what they raise.
    except Exception as error:
        if started:
            raise RunError(f"hub data set {config.path!r}: reading stopped ({first_line(error)}).") from error
        raise UserError(_hub_message(config, error)) from None


def _hub_message(config: DataConfig, error: Exception) -> str:
    what = f"data.path={config.path!r}: no such file or folder here, so taken for a Hugging Face data set, "
    if isinstance(error, ConnectionError):
        return (
            f"{what}but the hub cannot be reached ({first_line(error)}). Check the path, the network and "
            "HF_HUB_OFFLINE; or, where there is a network, run "
            f"`datasets.load_dataset({config.path!r}, split={config.split!r}).save_to_disk(FOLDER)`, copy FOLDER "
            "here and set data.path to it."
        )
    return (
        f"{what}but split {config.split!r}, revision {config.revision or 'main'!r} cannot be read "
        f"({first_line(error)}). Check data.path, data.split and data.revision; a gated data set needs "
        "`hf auth login`."
    )


def _numbered(data: Any, columns: frozenset[str], where: str) -> Iterator[RawRow]:
    # Only the columns that are used: others may be images that take long to decode.
    known = [name for name in data.column_names or [] if name in columns]
    refuse_decoding({name: kind for name, kind in (data.features or {}).items() if not known or name in known}, where)
    for row, values in enumerate(data.select_columns(known) if known else data):
        yield RawRow(row, values)


def source_identity(config: DataConfig) -> dict[str, str]:
    """What every file that `config.path` stands for is known by; empty for a data set on the hub.

    Local files by their sha256, so that a copy elsewhere is the same; remote ones by size and time of change.
    """
    if is_uri(config.path):
        return {str(file.path): file.identity for file in remote_files(config.path)}
    folder = Path(config.path).expanduser()
    identity = {}
    for file in _local_files(config):
        # The splits of a saved data set hold files of the same names.
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
    """Raise `UserError` if `config` names a source that can't be read; reads nothing itself."""
    for part in config.parts():
        check_columns(part)
        open_sources(part)


def check_columns(config: DataConfig) -> None:
    """Raise `UserError` if `config.columns` declares a column that is never read."""
    for name, own in config.columns.items():
        if name not in COLUMNS or not own.strip():
            raise UserError(
                f"data.columns={{{name}: {own}}}: expected a column that is read, and its name in the data. Those that "
                f"are read: {', '.join(sorted(COLUMNS))}."
            )


def refuse_decoding(features: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` if any feature, however nested, is of a kind that decodes its values.

    A value of `Image`, `Audio`, `Video` and the like may be a path or an address, which the `datasets` library opens
    when the row is read: whoever wrote the data would choose what this machine reads or fetches.
    """
    for column, feature in features.items():
        waiting = [feature]
        while waiting:
            kind = waiting.pop()
            if isinstance(kind, Mapping):
                waiting += kind.values()
            elif isinstance(kind, list | tuple):
                waiting += kind
            elif (inner := getattr(kind, "feature", None)) is not None:  # List, LargeList
                waiting.append(inner)
            elif _decodes(kind):
                raise UserError(
                    f"{where}: column {column!r} is of the feature type {type(kind).__name__}, whose values the "
                    "datasets library decodes from paths and addresses in the data. Expected text: write the column "
                    "as text, or leave it out (remove_columns)."
                )


def _decodes(kind: Any) -> bool:
    return hasattr(kind, "decode_example") and getattr(kind, "decode", True) and type(kind).__name__ not in _NOT_DECODED
