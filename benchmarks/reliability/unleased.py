"""`mapl` with leases switched off: the negative control of `second_copy`, which must detect that two copies work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mapl_ray.cli import main
from mapl_ray.distributed import run_folder


@contextmanager
def _no_lease(path: Path, *, patience_seconds: float = 0.0) -> Iterator[None]:
    yield


if __name__ == "__main__":
    vars(run_folder)["lease"] = _no_lease
    sys.exit(main())
