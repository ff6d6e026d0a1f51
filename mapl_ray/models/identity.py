"""What a base model is, in one short text: stages compare it to know whether their work still stands."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mapl_ray.hub_models import HubUnreachableError, hub_commit, is_hub_name
from mapl_ray.model_copies import remote_model
from mapl_ray.preferences import is_uri

_READ_WHOLE = 2**30  # bytes; larger weights are told apart by size and time of change


def model_identity(path: str | Path, revision: str | None = None) -> str:
    """A digest of a directory's files (behind a URI: of their names, sizes and ETags), or a hub's `name@commit`.

    Where the hub can't be asked from here, its revision stands in the place of the commit.
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
    for file in sorted(f for f in folder.iterdir() if f.is_file()):
        status = file.stat()
        digest.update(f"{file.name}\n{status.st_size}\n".encode())
        if status.st_size <= _READ_WHOLE:
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        else:
            digest.update(str(status.st_mtime_ns).encode())
    return digest.hexdigest()
