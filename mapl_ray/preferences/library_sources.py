"""Read rows with the `datasets` library: `save_to_disk` folders and data sets on the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mapl_ray.config import DataConfig
from mapl_ray.data.arrow_types import refuse_duplicates, refuse_extensions
from mapl_ray.errors import RunError, UserError, first_line
from mapl_ray.preferences.files import RawRow
from mapl_ray.preferences.source import Slice, Source, columns_of

_NOT_DECODED = ("Json",)  # a feature type that is parsed from the text itself
_UNKNOWN_SIZE = 2**62


def saved_source(path: Path, label: str, split: str | None, config: DataConfig) -> Source:
    """A `save_to_disk` folder as a source; `split` is None for a folder without splits."""
    below = path if split is None else path / split
    size = sum(file.stat().st_size for file in below.glob("*.arrow"))
    rows = partial(_saved_rows, path, path.absolute(), split, columns_of(config))
    return Source(str(path), label, rows, size, partial(_saved_slices, path.absolute(), split, rows, size))


def _saved_slices(
    folder: Path, split: str | None, rows: Callable[..., Iterator[RawRow]], whole: int, size: int
) -> list[Slice]:
    """Slices by row number: the Arrow files are memory-mapped, so any row is found quickly."""
    import datasets  # imported here: it takes most of a second, and most runs read files

    try:
        data = datasets.load_from_disk(str(folder))
        number = len(data if split is None else data[split])
    except Exception:  # reading the rows later raises the proper error
        return []
    each = max(1, number * size // whole)
    return [Slice(partial(rows, range(at, min(at + each, number))), size) for at in range(0, number, each)]


def _saved_rows(
    path: Path, folder: Path, split: str | None, columns: frozenset[str], taken: range | None = None
) -> Iterator[RawRow]:
    """Rows of a `save_to_disk` folder; `split` is None for a folder without splits. Messages show `path`."""
    import datasets  # imported here: it takes most of a second, and most runs read files

    try:
        data = datasets.load_from_disk(str(folder))
        if split is not None:
            if split not in data:
                raise UserError(f"{path}: has no split {split!r}. Set data.split to one of: {', '.join(data)}.")
            data = data[split]
        refuse_extensions(data.data.schema, str(path))
        refuse_duplicates(data.data.schema, str(path))
        data = data if taken is None else data.select(taken)
        yield from _numbered(data.with_format(None), columns, str(path), taken.start if taken else 0)
    # A damaged folder raises any of these, from its JSON files or its Arrow files.
    except (pa.ArrowException, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: incomplete or damaged save_to_disk folder ({type(error).__name__}: {first_line(error)}). "
            "Save or copy it again."
        ) from None


def hub_source(config: DataConfig) -> Source:
    """A data set on the hub as a source."""
    return Source(config.path, config.path, partial(_hub_rows, config), _UNKNOWN_SIZE, partial(_hub_slices, config))


def _hub_slices(config: DataConfig, size: int) -> list[Slice]:
    """One slice per file of the data set."""
    import datasets

    try:
        data = datasets.load_dataset(config.path, split=config.split, revision=config.revision, streaming=True)
        number = int(data.num_shards)
    except Exception:  # reading the rows later raises the proper error
        return []
    return [Slice(partial(_hub_rows, config, (number, index)), size, numbered=False) for index in range(number)]


def _hub_rows(config: DataConfig, shard: tuple[int, int] | None = None) -> Iterator[RawRow]:
    """Stream the rows of a data set on the hub; `shard` is (number of files, index) to read only one of its files.

    Loading scripts never run: `trust_remote_code` is not passed.
    """
    import datasets  # imported here: it takes most of a second, and most runs read files
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as BUILDERS

    if config.path in BUILDERS:
        # The name of a builder, not of a data set: it would read any files in the current folder.
        raise UserError(f"data.path={config.path!r}: no such file or folder, and not a data set. Expected owner/name.")
    started = False
    try:
        data = datasets.load_dataset(config.path, split=config.split, revision=config.revision, streaming=True)
        data = data if shard is None else data.shard(*shard)
        for raw in _numbered(data, columns_of(config), f"hub data set {config.path!r}"):
            started = True
            yield raw
    except UserError:
        raise
    # HTTP clients and file formats raise many kinds of errors: there is no closed list.
    except Exception as error:
        if started:
            raise RunError(f"hub data set {config.path!r}: reading stopped ({first_line(error)}).") from error
        raise UserError(_hub_message(config, error)) from None


def _hub_message(config: DataConfig, error: Exception) -> str:
    what = f"data.path={config.path!r}: no such file or folder here, so read as a Hugging Face data set, "
    if isinstance(error, ConnectionError):
        return (
            f"{what}but the hub cannot be reached ({first_line(error)}). Check the path, the network and "
            "HF_HUB_OFFLINE. Or, on a machine with a network, run "
            f"`datasets.load_dataset({config.path!r}, split={config.split!r}).save_to_disk(FOLDER)`, copy FOLDER "
            "here and set data.path to it."
        )
    return (
        f"{what}but split {config.split!r}, revision {config.revision or 'main'!r} cannot be read "
        f"({first_line(error)}). Check data.path, data.split and data.revision. A gated data set needs "
        "`hf auth login`."
    )


def _numbered(data: Any, columns: frozenset[str], where: str, first: int = 0) -> Iterator[RawRow]:
    # Select only the used columns: others may be images, which are slow to decode.
    known = [name for name in data.column_names or [] if name in columns]
    refuse_decoding({name: kind for name, kind in (data.features or {}).items() if not known or name in known}, where)
    for row, values in enumerate(data.select_columns(known) if known else data, first):
        yield RawRow(row, values)


def refuse_decoding(features: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` if any feature, at any nesting depth, is of a type that decodes its values.

    A value of `Image`, `Audio`, `Video` and the like may be a path or a URL, which the `datasets` library opens when
    the row is read. The author of the data could choose what this machine reads or fetches.
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
                    "datasets library decodes from paths and URLs in the data. Expected text: write the column "
                    "as text, or leave it out (remove_columns)."
                )


def _decodes(kind: Any) -> bool:
    return hasattr(kind, "decode_example") and getattr(kind, "decode", True) and type(kind).__name__ not in _NOT_DECODED
