"""`python -m tests.multihost.small_items ...`: the command `mapl ...`, its preparation divided as that of large data.

A few megabytes are one item by the shipped sizes, which the driver reads itself. Here they are dozens of items, for
workers. The files of the passes stay, so that a test can ask who made them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mapl_ray import cli
from mapl_ray.distributed import prepare

SIZES = prepare.Sizes(item_bytes=1, piece_chars=60_000, range_bytes=100_000, keys=2_000)


def main() -> int:
    """Run the command; its exit code."""
    prepare.SIZES = SIZES
    prepare._remove_work = _keep_work
    return cli.main()


def _keep_work(folder: Path, but: Path | None = None) -> None:
    """In place of the function that removes the passes' files."""


if __name__ == "__main__":
    sys.exit(main())
