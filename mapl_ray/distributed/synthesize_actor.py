"""The synthesis actor, in a separate module that imports neither torch nor models, so it starts in two seconds."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import GROUP_SCHEMA, PreferencePair
from mapl_ray.distributed.shard_tasks import Stage, errors_as_rows, rows_of_part, write_results
from mapl_ray.errors import UserError
from mapl_ray.progress import tracked
from mapl_ray.synthesis import Tally, module_digests, synthesize_all


class SynthesizeShard:
    """Make the groups of one part per call."""

    def __init__(self, stages: list[Stage], configs: list[SynthesisConfig], seed: int, digests: list[str]) -> None:
        """`configs` has one entry per stage; `digests` are the digests of the driver's `synthesis.modules`."""
        self._stages, self._configs, self._seed, self._digests = stages, configs, seed, digests

    @errors_as_rows
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make one part. Fails on a node with another version of the user's modules."""
        number = int(row["stage"])
        config = self._configs[number]
        if module_digests(config.modules) != self._digests:
            modules = ", ".join(config.modules)
            raise UserError(f"synthesis.modules {modules}: this node has another version. Use the same on all nodes.")
        with _without_collector():
            return _make_part(row, self._stages[number], config, self._seed)


def _make_part(row: dict[str, Any], stage: Stage, config: SynthesisConfig, seed: int) -> dict[str, Any]:
    rows, tally = rows_of_part(stage.source, int(row["index"])), Tally()
    pairs = map(PreferencePair.from_row, tracked(rows, stage.name, "pairs", len(rows)))
    results = [result for pair in pairs for result in synthesize_all(pair, config, seed, tally)]
    return write_results(stage, row, results, GROUP_SCHEMA, tally.to_json())


@contextmanager
def _without_collector() -> Iterator[None]:
    """Disable cyclic garbage collection for one part: scanning its growing results took a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
