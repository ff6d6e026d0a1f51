"""Weights that a result vouches for: on the disk before it says that they are there, and the same when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from mapl_ray.shards import file_sha256, sync_tree

_PATTERNS = ("*.safetensors", "*.safetensors.index.json")  # cards and configs are people's to edit


class WeightFile(TypedDict):
    """One file of weights."""

    bytes: int
    sha256: str


def vouched_for(folder: Path) -> dict[str, WeightFile]:
    """Size and digest of every file of weights, after all files of the folder were brought to the disk."""
    sync_tree(folder)
    return {
        file.name: WeightFile(bytes=file.stat().st_size, sha256=file_sha256(file))
        for pattern in _PATTERNS
        for file in sorted(folder.glob(pattern))
    }


def weight_damage(folder: Path, files: Mapping[str, WeightFile]) -> str:
    """What is wrong with the weights of a model; empty where nothing is. Sizes are looked at before bytes are read.

    A result of an earlier release names no files: then every file of weights must hold something.
    """
    if not (folder / "config.json").is_file():
        return "config.json is missing"
    sizes = {file.name: file.stat().st_size for pattern in _PATTERNS for file in folder.glob(pattern)}
    if not sizes or not all(sizes.values()):
        return "there are no weights" if not sizes else f"{min(sizes, key=lambda name: sizes[name])} is empty"
    for name, file in files.items():
        if sizes.get(name) != file["bytes"]:
            return f"{name} is missing" if name not in sizes else f"{name} has {sizes[name]} bytes of {file['bytes']}"
    return next(
        (f"{name} is damaged" for name, file in files.items() if file_sha256(folder / name) != file["sha256"]), ""
    )
