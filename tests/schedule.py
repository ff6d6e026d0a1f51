"""How `make test` divides the files between two processes: those that share what is slow to start stay together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]


def files_with(fixture: str) -> tuple[str, ...]:
    """Test files, as in node ids, in which a test or fixture asks for the fixture."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return tuple(str(f.relative_to(ROOT)) for f in files if f"{fixture}: None" in f.read_text(encoding="utf-8"))


# Files that share a session's fixture: a Ray cluster, ranks that train, a cluster over hosts. Each group is run by one
# process, in the order of collection.
GROUPS = {"ray": files_with("local_ray"), "ranks": ("tests/training/",), "hosts": ("tests/multihost/",)}
# Longest first, so that both processes end at about the same time; the other files follow, those of many tests first.
LONGEST = (
    "ray", "ranks", "tests/distributed/test_pipeline.py", "tests/scoring/", "hosts", "tests/distributed/",
    "tests/invariants/", "tests/synthesis/", "tests/contract/", "tests/cluster/", "tests/planning/", "tests/models/",
)  # fmt: skip


def group_of(nodeid: str) -> str:
    """The group of a test, or its file."""
    file = nodeid.split("::", 1)[0]
    return next((name for name, files in GROUPS.items() if file.startswith(files)), file)


def rank_of(group: str) -> int:
    """A place in the queue; the smaller, the earlier."""
    return next((place for place, name in enumerate(LONGEST) if group.startswith(name)), len(LONGEST))


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests into the order in which the processes are given them; those of a group stay together."""
    sizes: dict[str, int] = {}
    for item in items:
        group = group_of(item.nodeid)
        sizes[group] = sizes.get(group, 0) + 1

    def place(item: pytest.Item) -> tuple[int, int, str]:
        group = group_of(item.nodeid)
        return rank_of(group), -sizes[group], group

    items.sort(key=place)


# Ends what a group's files share and leave up: idle, agents of clusters and threads of gloo take a fifth of a core.
shared: list[Callable[[], None]] = []


def end_shared(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """To be called after a test: end what is shared if it was the last of its group."""
    if nextitem is None or group_of(nextitem.nodeid) != group_of(item.nodeid):
        while shared:
            shared.pop()()


class GroupScheduling(LoadScopeScheduling):
    """One group or file at a time for each process, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
