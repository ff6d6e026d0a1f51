"""Write training groups of a seed as JSON lines, with the version of the project that is on the path.

`benchmarks.evidence.labels` runs this file with an earlier checkout in PYTHONPATH, and with the current one.
"""

from __future__ import annotations

import json
import random
import sys
from itertools import count
from pathlib import Path

from benchmarks.evidence.arms import BY_NAME
from benchmarks.evidence.pairs import load_pairs
from benchmarks.evidence.scale import SCALES
from mapl_ray.data.records import RelationGroup
from mapl_ray.synthesis import synthesize

_EPOCHS = 1000  # each epoch of a seed has its own seed, as in `GroupStream`


def write_groups(data: Path, target: Path, seed: int, number: int, scale: str) -> None:
    """Write `number` groups of the arm "mapl", in the order of its stream."""
    pairs = load_pairs(data, SCALES[scale]).train
    config = BY_NAME["mapl"].synthesis.for_training()
    made = 0
    partial = target.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as handle:
        for epoch in count(1):
            order = list(pairs)
            random.Random(f"{seed} {epoch - 1}").shuffle(order)
            for pair in reversed(order):
                group = synthesize(pair, config, seed * _EPOCHS + epoch)
                if isinstance(group, RelationGroup):
                    handle.write(json.dumps(group.to_row()) + "\n")
                    made += 1
                    if made == number:
                        partial.rename(target)
                        return


if __name__ == "__main__":
    write_groups(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
