"""Synthesis throughput in one process tree: the plain function, Ray Data to Parquet, `datasets.map`.

    python benchmarks/synthesis.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --pairs 16000

Rates are pairs per second. Every way runs the same function on the same pairs. Starts are excluded: each way runs on a
fifth of the pairs and on all pairs, and the rate is computed from the difference. The plain function runs just before
and after each way, because the machine's speed drifts; shares are relative to the mean of both. `pure, 2` runs the
function in two independent processes, which is the upper bound for two cores of this machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mapl_ray.config import ClusterConfig, DataConfig, RunConfig, SynthesisConfig, parse_config
from mapl_ray.data.records import PreferencePair, RelationGroup
from mapl_ray.data.shards import write_json
from mapl_ray.instructions import features_of
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import Tally, synthesize

CONFIG = SynthesisConfig()


def load(path: str, number: int) -> list[PreferencePair]:
    """`number` pairs; the file is repeated as often as needed, each time with other ids."""
    pairs = [item for item in read_pairs(DataConfig(path=path)) if isinstance(item, PreferencePair)]
    rounds = range(-(-number // len(pairs)))
    # Also another last word, so that no cache of the previous round is used.
    return list(
        islice(
            (
                PreferencePair(f"{p.pair_id}-{n}", p.prompt, f"{p.chosen} {n}", f"{p.rejected} {n}", p.source, p.margin)
                for n in rounds
                for p in pairs
            ),
            number,
        )
    )


def pure(pairs: list[PreferencePair]) -> float:
    """Pairs per CPU second of the plain function in this process."""
    started, tally = time.process_time(), Tally()
    for pair in pairs:
        synthesize(pair, CONFIG, 0, tally)
    return len(pairs) / (time.process_time() - started)


def counting(pairs: list[PreferencePair]) -> float:
    """Pairs per CPU second when only counting words and sentences: an upper bound for anything that reads the texts."""
    started = time.process_time()
    for pair in pairs:
        for text in (pair.chosen, pair.rejected):
            features = features_of(text)
            len(features.words), len(features.sentences)
    return len(pairs) / (time.process_time() - started)


def write_pairs(pairs: list[PreferencePair], path: Path) -> Path:
    """Write pairs to a file that every way can read."""
    with path.open("w", encoding="utf-8") as lines:
        for pair in pairs:
            row = pair.to_row() | {"id": pair.pair_id}
            lines.write(json.dumps({name: row[name] for name in ("id", "prompt", "chosen", "rejected")}) + "\n")
    return path


def run_config(folder: Path, source: Path, workers: int, rows_per_shard: int) -> RunConfig:
    """The config of a run with this number of workers."""
    return parse_config(
        {
            "name": f"workers-{workers}",
            "output_dir": str(folder),
            "data": {"path": str(source), "eval_fraction": 0.0},
            "synthesis": {"rows_per_shard": rows_per_shard},
            "cluster": {"num_cpus": 2, "synthesis_workers": workers},
        },
        "benchmark",
    )


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def beyond_start(work: Callable[[list[PreferencePair]], float], pairs: list[PreferencePair]) -> float:
    """Pairs per second without the start; `work` returns wall seconds."""
    few = pairs[: len(pairs) // 5]
    started = work(few)
    return (len(pairs) - len(few)) / (work(pairs) - started)


def two_processes(pairs: list[PreferencePair]) -> float:
    """Pairs per second of the plain function in two processes, with half of the pairs each."""
    context = multiprocessing.get_context("spawn")

    def work(some: list[PreferencePair]) -> float:
        with context.Pool(2) as pool:
            pool.map(pure, [pairs[:50]] * 2, chunksize=1)  # warm-up: start both processes
            return timed(lambda: pool.map(pure, [some[::2], some[1::2]], chunksize=1))

    return beyond_start(work, pairs)


class Beside:
    """Rates of ways, each compared with the plain function just before and after it."""

    def __init__(self, pairs: list[PreferencePair]) -> None:
        self._pairs = pairs[:4000]
        self.rates: dict[str, float] = {}
        self.shares: dict[str, float] = {}  # rate per core over the plain function's rate

    def measure(self, name: str, cores: int, rate: Callable[[], float]) -> None:
        """Run one way; `rate` returns pairs per second."""
        before = pure(self._pairs)
        self.rates[name] = rate()
        after = pure(self._pairs)
        self.shares[name] = self.rates[name] / cores / ((before + after) / 2)


def ray_data(pairs: list[PreferencePair], folder: Path, beside: Beside) -> None:
    """Parquet of pairs to Parquet of groups, with one and two workers; preparation of the pairs is not timed."""
    from mapl_ray.distributed.prepare import prepare_pairs
    from mapl_ray.distributed.runtime import ray_session
    from mapl_ray.distributed.synthesis_stage import run_synthesis

    def run(some: list[PreferencePair], workers: int, rows_per_shard: int = 500) -> float:
        below = folder / f"{workers}-{len(some)}"
        below.mkdir()
        config = run_config(below, write_pairs(some, below / "pairs.jsonl"), workers, rows_per_shard)
        prepare_pairs(config)
        return timed(lambda: run_synthesis(config))

    for workers in (1, 2):
        with ray_session(ClusterConfig(num_cpus=2)):
            run(pairs[:400], workers, rows_per_shard=100)  # warm-up: start all workers
            work = partial(run, workers=workers)
            beside.measure(f"Ray Data, {workers}", workers, partial(beyond_start, work, pairs))


def _mapped(row: dict[str, Any]) -> dict[str, Any]:
    result = synthesize(PreferencePair.from_row({**row, "pair_id": row["pair_id"]}), CONFIG, 0)
    return {"group": result.to_row() if isinstance(result, RelationGroup) else None}


def datasets_map(pairs: list[PreferencePair], beside: Beside) -> None:
    """`datasets.map` with one and two processes."""
    import datasets

    datasets.disable_caching()
    datasets.disable_progress_bars()
    for workers in (1, 2):

        def work(some: list[PreferencePair], workers: int = workers) -> float:
            data = datasets.Dataset.from_list([pair.to_row() for pair in some])
            return timed(lambda: data.map(_mapped, num_proc=workers, remove_columns=data.column_names))

        beside.measure(f"datasets.map, {workers}", workers, partial(beyond_start, work, pairs))


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=16_000)
    parser.add_argument("--output", type=Path, help="a .json file for the numbers")
    args = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    pairs = load(args.data, args.pairs)
    characters = sum(len(p.chosen) + len(p.rejected) for p in pairs) / len(pairs)
    pure(pairs[:200])
    beside = Beside(pairs)
    beside.measure("words and sentences", 1, lambda: counting(pairs))
    beside.measure("pure", 1, lambda: pure(pairs))
    beside.measure("pure, 2", 2, lambda: two_processes(pairs))
    with tempfile.TemporaryDirectory() as folder:
        ray_data(pairs, Path(folder), beside)
    datasets_map(pairs, beside)
    rates = beside.rates
    print(f"{len(pairs)} pairs, {characters:.0f} characters of responses each\n")
    print("| way | pairs/s | of pure, a core |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {beside.shares[name]:.2f} |")
    print(f"\npure, 2 processes over 1: {rates['pure, 2'] / rates['pure']:.2f}")
    print(f"Ray Data, 2 workers over 1: {rates['Ray Data, 2'] / rates['Ray Data, 1']:.2f}")
    print(f"Ray Data over datasets.map, 1: {rates['Ray Data, 1'] / rates['datasets.map, 1']:.2f}")
    print(f"Ray Data over datasets.map, 2: {rates['Ray Data, 2'] / rates['datasets.map, 2']:.2f}")
    if args.output:
        write_json(args.output, {"rates": rates, "of pure, a core": beside.shares})


if __name__ == "__main__":
    main()
