"""Identity of a base model as a short string. Stages compare it to know whether their results are still valid."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mapl_ray.errors import RunError
from mapl_ray.hub_models import HubUnreachableError, hub_commit, is_hub_name
from mapl_ray.model_copies import remote_model
from mapl_ray.preferences import is_uri

_READ_WHOLE = 2**30  # bytes; larger files are sampled
_SAMPLE = 2**12  # bytes
_LONGEST_HEADER = 10**8  # bytes; the limit of the safetensors library
_SAMPLES = 1024  # number of samples of a file that is not safetensors


def model_identity(path: str | Path, revision: str | None = None) -> str:
    """Digest of a directory's files (for a URI: of their names, sizes and ETags), or `name@commit` for a hub name.

    Model cards and hidden files are ignored. For a file above 1 GiB the digest covers the header and the first, middle
    and last 4 KiB of every tensor, all of which training changes. If the hub can't be reached, the revision is used in
    place of the commit.
    """
    if is_uri(str(path)):
        return remote_model(str(path)).identity
    if is_hub_name(path):
        try:
            return f"{path}@{hub_commit(str(path), revision)}"
        except HubUnreachableError:
            return f"{path}@{revision or 'main'}"
    folder = Path(path)
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.is_file() and f.suffix != ".md" and f.name[0] != "."):
        size = file.stat().st_size
        digest.update(f"{file.name}\n{size}\n".encode())
        with file.open("rb") as handle:
            if size <= _READ_WHOLE:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
            else:
                for sample in _samples(handle, size):
                    digest.update(sample)
    return digest.hexdigest()


def check_same_model(path: str | Path, identity: str) -> None:
    """Raise `RunError` if the model directory on this machine differs from the one that the driver saw at this path."""
    if Path(path).is_dir() and model_identity(path) != identity:
        raise RunError(
            f"{path}: on {platform.node()} the model differs from the one on the machine that started the run, or was "
            "changed since. Put the same files on every node, or on storage that all nodes have mounted."
        )


def _samples(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the header of a safetensors file and samples of every tensor; for another file, samples of its bytes."""
    length = int.from_bytes(file.read(8), "little")
    header = file.read(length) if length <= min(_LONGEST_HEADER, size) else b""
    yield header
    try:
        spans = sorted(entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__")
        places = [8 + length + at for low, high in spans for at in (low, (low + high) // 2, max(low, high - _SAMPLE))]
    except (ValueError, TypeError, KeyError, AttributeError):
        places = [size * number // _SAMPLES for number in range(_SAMPLES)]
    for place in places:
        file.seek(place)
        yield file.read(_SAMPLE)
