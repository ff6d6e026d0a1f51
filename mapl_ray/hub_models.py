"""Download models from the Hugging Face hub: a snapshot of one commit, with only the files that this project reads.

A repository may also hold pickles, code and sub-folders. These are not downloaded, so no library can load them. The
snapshot is in the hub's own cache, and is checked and loaded like any local directory.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from mapl_ray.errors import UserError, first_line
from mapl_ray.preferences import is_uri

SMALL = (".json", ".txt", ".model", ".jinja")  # tokenizers, configs, templates
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_INDEX = "model.safetensors.index.json"


class HubUnreachableError(UserError):
    """The hub can't be reached from here, and this machine's cache does not hold the model."""


def is_hub_name(path: str | Path) -> bool:
    """Whether this names a hub repository: `owner/name` or `name`, and no URI or local directory."""
    text = str(path)
    return not is_uri(text) and _NAME.fullmatch(text) is not None and not Path(text).is_dir()


def is_commit(revision: str | None) -> bool:
    """Whether this is a commit's full hash. Branches and tags move; commits don't."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def hub_folder(name: str, revision: str | None, *, weights: bool) -> Path:
    """The snapshot's folder on this machine; without `weights`, only its small files.

    Raises `UserError` if the hub has no such model or revision, or no safetensors for it; `HubUnreachableError` if it
    can't be reached.
    """
    found = _snapshot(name, revision or "main", tuple(f"*{ending}" for ending in SMALL))
    return _snapshot(name, found.name, _weight_files(found)) if weights else found


def hub_commit(name: str, revision: str | None) -> str:
    """The commit that `revision` (None: `main`) points to now, 40 hex digits. Raises the errors of `hub_folder`."""
    return revision if revision is not None and is_commit(revision) else hub_folder(name, revision, weights=False).name


@cache  # within a process a name always means the same commit
def _snapshot(name: str, revision: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        # Sub-folders hold other formats of the same model (`original/`, `onnx/`) and are never read.
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"])
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UserError(
            f"{name}: the hub has no such model at revision {revision!r}, or it is gated ({first_line(error)}). Check "
            "the name and the revision; a gated model needs HF_TOKEN."
        ) from None
    except (OSError, ValueError) as error:
        raise HubUnreachableError(
            f"{name}: revision {revision!r} can't be downloaded from the hub and is not in this machine's cache "
            f"({first_line(error)}). Download it where the hub can be reached, or name a local directory."
        ) from None
    if not any(file for pattern in patterns for file in folder.glob(pattern)):
        raise UserError(
            f"{name}: revision {revision!r} has none of {', '.join(patterns)}. Models are safetensors with a "
            "config.json; pickles are not read."
        )
    return folder


def _weight_files(folder: Path) -> tuple[str, ...]:
    """The files that transformers would load. An index that names other files fails when the folder is checked."""
    index = folder / _INDEX
    if not index.is_file():
        return ("model.safetensors",)
    try:
        shards = {str(shard) for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index}: expected a weight index with a `weight_map`. Name another model.") from None
    return tuple(sorted(shards))
