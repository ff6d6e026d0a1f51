"""List files at a URI (s3://, gs://, hdfs://, file://) and open them as streams, with pyarrow's file systems.

pyarrow takes credentials from the environment, a profile or the instance role, never from the URI.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import SplitResult, parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from mapl_ray.addresses import is_metadata_service
from mapl_ray.errors import UserError, first_line

_SCHEMES = ("s3", "gs", "gcs", "hdfs", "viewfs", "file")
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a remote file system."""

    path: PurePosixPath
    size: int
    modified: str
    open: Callable[[], BinaryIO]
    etag: Callable[[], str]  # the store's ETag of the content, or "" if it has none; sends a request

    @property
    def identity(self) -> str:
        """Size and modification time, which identify the file together with its path; reads no content."""
        return f"{self.size} {self.modified}"


def is_uri(path: str) -> bool:
    """Whether the path names a scheme, known or not."""
    return _URI.match(path) is not None


def check_address(uri: str, key: str) -> None:
    """Raise `UserError`, naming the config's `key`, for a URI that is malformed or has a password, an unsupported
    scheme, a `file://` host, or the address of a cloud's metadata service.

    Sends no request. The message never shows a password.
    """
    scheme = uri.split("://", 1)[0].lower()
    try:
        address = urlsplit(uri)
        secret, _ = address.password is not None, address.port
    except ValueError:
        # An unescaped "/" in a secret ends the host early, and the rest looks like a port. So the URI is not shown.
        raise UserError(
            f"{key}: not a valid {scheme}:// address (host or port). Expected one like s3://bucket/folder/pairs.jsonl, "
            "without credentials: these are taken from the environment."
        ) from None
    if secret:
        raise UserError(
            f"{key}: a password in a {scheme}:// address ends up in configs and logs. Remove it, and set the "
            "credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
        )
    if scheme not in _SCHEMES:
        raise UserError(
            f"{key}={uri!r}: {scheme}:// is not read. Expected {', '.join(f'{s}://' for s in _SCHEMES)}, a local "
            "path, or the name of a Hugging Face data set as owner/name."
        )
    if scheme == "file" and address.netloc:
        raise UserError(f"{key}={uri!r}: file:// takes no host. Expected a local file as in file:///folder/a.jsonl.")
    for host in _hosts(address):
        if is_metadata_service(host):
            raise UserError(f"{key}={uri!r}: {host} is an address of a cloud's metadata service, and holds no data.")


def _hosts(address: SplitResult) -> Iterator[str]:
    """Every host that may receive a request: the URI's own, and endpoints and proxies in its query."""
    yield address.hostname or ""
    for name, value in parse_qsl(address.query):
        if "endpoint" in name.lower() or "proxy" in name.lower():
            yield urlsplit(value if "://" in value else f"//{value}").hostname or ""


def remote_files(uri: str, key: str = "data.path") -> list[RemoteFile]:
    """The file at a URI, or the files directly in that folder, sorted by name, without hidden files.

    Raises `UserError`, naming the config's `key`, as `check_address` does, and if the URI can't be reached or does not
    exist.
    """
    check_address(uri, key)
    try:
        system, path = fs.FileSystem.from_uri(uri)
        info = system.get_file_info(path)
        if info.type == fs.FileType.Directory:
            inside = [i for i in system.get_file_info(fs.FileSelector(path)) if i.type == fs.FileType.File]
            found = [i for i in inside if not i.base_name.startswith((".", "_"))]  # same rule as for local folders
        else:
            found = [info] if info.type == fs.FileType.File else []
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{key}={uri!r}: can't be reached ({first_line(error)}). Check it and the credentials."
        ) from None
    if not found:
        raise UserError(f"{key}={uri!r}: no such file or folder there, or the folder is empty.")
    return [_file(system, one) for one in sorted(found, key=lambda one: str(one.path))]


def _file(system: Any, info: Any) -> RemoteFile:
    opener, etag = partial(_open, system, info.path), partial(_etag, system, info.path)
    return RemoteFile(PurePosixPath(info.path), int(info.size), str(info.mtime_ns), opener, etag)


def _open(system: Any, path: str) -> BinaryIO:
    # A large buffer, because every read is a request.
    return cast(BinaryIO, io.BufferedReader(system.open_input_file(path), buffer_size=4 * 2**20))


def _etag(system: Any, path: str) -> str:
    with system.open_input_stream(path) as stream:
        found = {name.lower(): value for name, value in (stream.metadata() or {}).items()}
    return bytes(found.get("etag", b"")).decode("ascii", "replace").strip('"')
