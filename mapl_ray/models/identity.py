"""What a base model is, in one short text: stages compare it to know whether their work still stands."""

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

_READ_WHOLE = 2**30  # bytes; of larger files samples are read
_SAMPLE = 2**12  # bytes
_LONGEST_HEADER = 10**8  # bytes, as in the safetensors library
_SAMPLES = 1024  # of a file that is not safetensors


def model_identity(path: str | Path, revision: str | None = None) -> str:
    """A digest of a directory's files (behind a URI: of their names, sizes and ETags), or a hub's `name@commit`.

    Model cards and hidden files don't count. Of a file above 1 GiB the digest covers the header and, of every tensor,
    its first, middle and last 4 KiB: copies are the same model, and training changes all of these. Where the hub can't
    be asked from here, its revision stands instead of the commit.
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
    """Raise `RunError` where a directory on this machine is not the model that the driver saw at the same path."""
    if Path(path).is_dir() and model_identity(path) != identity:
        raise RunError(
            f"{path}: on {platform.node()} this is another model than on the machine that started the run, or it was "
            "changed meanwhile. Put the same files on every node, or on storage that all of them have mounted."
        )


def _samples(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The header of a safetensors file and pieces of every tensor; pieces of any other file."""
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
