"""Second pass of preparation: workers find pairs that share a key, and the driver decides which of them are kept.

An item is a range of the keys of one band (`preferences/keys.py`). The driver decides in canonical order
(`preferences/decisions.py`), because whether a pair is kept depends on the pairs before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from mapl_ray.awaited import await_files
from mapl_ray.config import RunConfig
from mapl_ray.data.shards import write_atomically
from mapl_ray.distributed.passes import Entry, Pass, run_pass
from mapl_ray.preferences.decisions import write_decisions
from mapl_ray.preferences.keys import number_of_bands
from mapl_ray.preferences.pieces import Piece, rows_with_shared_keys


def decided(config: RunConfig, work: Path, pieces: Sequence[Piece], keys: int) -> Path:
    """Write the file of pairs that are rejected because of other pairs, below `work`; returns its path.

    Args:
        keys: approximate number of keys of one band that one item compares.
    """
    path, folder = work / "decisions.arrow", work / "compare"
    if path.is_file():
        return path
    total, bands = sum(piece.pairs for piece in pieces), range(number_of_bands(config.data))
    number = -(-total // keys)
    edges = [2**64 * part // number for part in range(number + 1)]
    items = [(band, low, high) for band in bands for low, high in pairwise(edges)]
    one = Pass("compare", folder, partial(compare_keys, folder=folder, pieces=pieces))
    run_pass(one, items, config.cluster.synthesis_workers, here=total * len(bands) <= keys)
    names = [f"{index:05d}.npy" for index in range(len(items))]
    await_files(folder, names)
    rows = np.unique(np.concatenate([np.load(folder / name) for name in names]))
    write_decisions(path, pieces, rows, config.data)
    return path


def compare_keys(item: tuple[int, int, int], number: int, *, folder: Path, pieces: Sequence[Piece]) -> Entry:
    """Write the rows that share a key with another row, within the item's band and key range."""
    rows = rows_with_shared_keys(pieces, *item)

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, rows)

    write_atomically(folder / f"{number:05d}.npy", write)
    return {"rows": len(rows)}
