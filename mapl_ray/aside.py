"""Rename results of other settings or data instead of overwriting them, and print the new name.

rm          the result of the current run
rm.aside-1  the earlier result of that name; nothing reads it, and it may be deleted
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mapl_ray.data.shards import MANIFEST, link_or_copy

_NAME = re.compile(r"\.aside-\d+$")
_ENTRY = re.compile(r"part-(\d+)\.json")


def set_aside(path: Path, why: str = "of a run with other settings or data") -> Path:
    """Rename a file or folder to the first free `NAME.aside-N` next to it, print that, and return the new path."""
    number = 1
    while (target := path.with_name(f"{path.name}.aside-{number}")).exists():
        number += 1
    path.rename(target)
    print(f"  {path}: {why}, kept as {target}", flush=True)
    return target


def is_aside(path: Path) -> bool:
    """Whether a file or folder has the name of one that was set aside."""
    return _NAME.search(path.name) is not None


def set_parts_aside(directory: Path, fingerprint: str, wanted: Collection[str]) -> None:
    """Set a finished or unfinished data set aside if its fingerprint is not `fingerprint`.

    Parts whose own fingerprint is in `wanted` belong to both data sets and stay in place too.
    """
    entries = {path: _read(path).get("fingerprint") for path in directory.glob("part-*.json")}
    made = _read(directory / MANIFEST).get("fingerprint")
    if made == fingerprint or (made is None and all(mark is None or mark in wanted for mark in entries.values())):
        return
    target = set_aside(directory, "of other settings or data")
    directory.mkdir()
    for entry, mark in entries.items():
        found = _ENTRY.fullmatch(entry.name)
        if found is not None and mark in wanted:
            # The entry comes last: it marks its part as complete.
            for name in (
                f"part-{found[1]}.parquet",
                f"rejected-{found[1]}.jsonl",
                f"notes-{found[1]}.json",
                entry.name,
            ):
                if (target / name).is_file():
                    link_or_copy(target / name, directory / name)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
