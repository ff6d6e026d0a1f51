"""Detect files whose first bytes do not match the kind that their name says."""

from __future__ import annotations

import codecs
from pathlib import PurePath
from typing import Any, BinaryIO

from mapl_ray.errors import UserError

_HEAD = 512  # bytes
_UTF_16 = ("UTF-16 text", "Convert it to UTF-8: iconv -f UTF-16 -t UTF-8.")
# The order matters: the UTF-32 byte order mark begins with the UTF-16 one.
_BY_FIRST_BYTES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip", "Give it a name that ends in .gz, or unpack it: gunzip."),
    (b"\x28\xb5\x2f\xfd", "zstd", "Unpack it: zstd -d."),
    (b"\xfd7zXZ\x00", "xz", "Unpack it: xz -d."),
    (b"BZh", "bzip2", "Unpack it: bzip2 -d."),
    (b"PK\x03\x04", "a zip archive or an Office file", "Unpack it, or save it as CSV."),
    (b"PAR1", "Parquet", "Give it a name that ends in .parquet."),
    (b"ARROW1", "an Arrow file", "Read it with pyarrow and write it as Parquet."),
    (b"SQLite format 3\x00", "an SQLite database", "Export its table as CSV."),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch it: git lfs pull."),
    (codecs.BOM_UTF32_LE, "UTF-32 text", "Convert it to UTF-8: iconv -f UTF-32 -t UTF-8."),
    (codecs.BOM_UTF32_BE, "UTF-32 text", "Convert it to UTF-8: iconv -f UTF-32 -t UTF-8."),
    (codecs.BOM_UTF16_LE, *_UTF_16),
    (codecs.BOM_UTF16_BE, *_UTF_16),
)
_OWN = {".gz": "gzip", ".parquet": "Parquet"}


def refuse_other_content(path: PurePath, handle: BinaryIO, kind: str) -> None:
    """Raise `UserError` if the next bytes are known to be of another kind than `kind`, the suffix in the name.

    `handle` must be buffered; nothing is consumed.
    """
    peek: Any = handle
    found = content_of(bytes(peek.peek(_HEAD))[:_HEAD])
    if found is not None and found[0] != _OWN.get(kind):
        raise UserError(f"{path}: this is {found[0]}, but its name says {kind}. {found[1]}")


def content_of(head: bytes) -> tuple[str, str] | None:
    """(what the file is, what to do) for a file that begins with `head`; None for text and unknown content."""
    for first, what, cure in _BY_FIRST_BYTES:
        if head.startswith(first):
            return what, cure
    # UTF-16 without a mark: every other byte is 0 where the text is ASCII, and the syntax of JSON and CSV is ASCII.
    if len(head) >= 8 and (not any(head[1:64:2]) or not any(head[:64:2])) and any(head[:64]):
        return _UTF_16
    begins = head.removeprefix(codecs.BOM_UTF8).lstrip()[:20].lower()
    if begins.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page or XML", "Download the file itself."
    return None
