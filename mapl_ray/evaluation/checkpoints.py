"""The models to evaluate: directories or hub names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mapl_ray.config import Method
from mapl_ray.hub_models import is_commit
from mapl_ray.models import check_model_directory, kind_of

_COMMIT_DIGITS = 12  # shown in tables


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model. A policy (`dpo`) has the implicit reward, against a reference."""

    name: str  # shown in tables
    path: str  # absolute directory, or a hub name
    revision: str | None
    method: Method


def named_checkpoints(given: Sequence[str]) -> list[Checkpoint]:
    """The models given by the user, as directories or `owner/name@revision`. Their configs give their kinds.

    A directory is named by the shortest distinct end of its path. Raises `UserError` for anything that is no model
    directory, can't be reached, or is neither a reward model nor a policy.
    """
    places = [split_revision(one) for one in given]
    names = _names([path for path, _ in places])
    return [
        Checkpoint(_shown(name, revision), path, revision, _method(path, revision))
        for name, (path, revision) in zip(names, places, strict=True)
    ]


def split_revision(given: str) -> tuple[str, str | None]:
    """Split into (absolute directory, None), or (hub name, revision)."""
    folder = Path(given).expanduser()
    if folder.is_dir():
        return str(folder.resolve()), None
    name, _, revision = given.partition("@")
    return name, revision or None


def _shown(name: str, revision: str | None) -> str:
    if revision is None:
        return name
    return f"{name}@{revision[:_COMMIT_DIGITS] if is_commit(revision) else revision}"


def _method(path: str, revision: str | None) -> Method:
    check_model_directory(path, revision)
    return "rm" if kind_of(path, revision) == "reward model" else "dpo"


def _names(paths: Sequence[str]) -> list[str]:
    parts = [[part for part in Path(path).parts if part not in ("/", "model")] or [path] for path in paths]
    names = []
    for index, (path, own) in enumerate(zip(paths, parts, strict=True)):
        if not Path(path).is_absolute():
            names.append(path)
            continue
        others = [other for place, other in enumerate(parts) if place != index]
        length = next((n for n in range(1, len(own)) if all(o[-n:] != own[-n:] for o in others)), len(own))
        names.append("/".join(own[-length:]))
    return names
