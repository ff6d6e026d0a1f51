"""Weak scaling of synthesis on one machine: n pairs on one raylet, 2n pairs on two.

    python benchmarks/weak_scaling.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --pairs 4000

Each raylet has one logical CPU. A round measures both sizes one after the other on the same cluster, to which the
second raylet is added and removed. Starts are excluded: each runs on a fifth of the pairs and on all pairs, and the
rate is computed from the difference. `efficiency` is the rate of two raylets over twice the rate of one, per round; 1
is ideal. The plain function runs before and after each, because the machine's speed drifts, and once per round in two
independent processes, which is the upper bound for two cores of this machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path

from synthesis import Beside, beyond_start, load, pure, run_config, timed, two_processes, write_pairs

from mapl_ray.data.records import PreferencePair

_RAYLET = {"num_cpus": 1, "object_store_memory": 200_000_000}
_LIMITS = (
    "Both raylets, the control store and the driver share this machine's {cores} cores without a network between them, "
    "so this does not show the scaling of two machines."
)


def synthesis_seconds(pairs: list[PreferencePair], folder: Path, raylets: int, rows_per_shard: int) -> float:
    """Parquet of pairs to Parquet of groups on the current cluster; preparation of the pairs is not timed."""
    from mapl_ray.distributed.prepare import prepare_pairs
    from mapl_ray.distributed.synthesis_stage import run_synthesis

    with tempfile.TemporaryDirectory(dir=folder) as below:
        config = run_config(Path(below), write_pairs(pairs, Path(below) / "pairs.jsonl"), raylets, rows_per_shard)
        prepare_pairs(config)
        return timed(lambda: run_synthesis(config))


def measure(pairs: list[PreferencePair], rounds: int, folder: Path, rows_per_shard: int) -> dict[str, list[float]]:
    """Rates, shares per core of the plain rate, and efficiency, one value per round. `pairs` are for two raylets."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import
    import ray
    from ray.cluster_utils import Cluster

    from mapl_ray.private_files import cluster_token, private_folder

    own = ExitStack()
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(own.enter_context(cluster_token(private_folder("mapl"))))
    found: dict[str, list[float]] = defaultdict(list)
    cluster = Cluster(initialize_head=True, head_node_args={**_RAYLET, "include_dashboard": False})
    ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        for _ in range(rounds):
            beside = Beside(pairs)
            for raylets in (1, 2):
                second = cluster.add_node(**_RAYLET) if raylets == 2 else None
                cluster.wait_for_nodes()
                work = partial(synthesis_seconds, folder=folder, raylets=raylets, rows_per_shard=rows_per_shard)
                work(pairs[: 4 * rows_per_shard])  # warm-up: start the workers
                some = pairs[: len(pairs) * raylets // 2]
                beside.measure(f"{raylets}", raylets, partial(beyond_start, work, some))
                if second is not None:
                    cluster.remove_node(second)
            beside.measure("two processes", 2, lambda: two_processes(pairs))
            one, two = beside.rates["1"], beside.rates["2"]
            plain = beside.rates["two processes"] / (2 * statistics.mean([pure(pairs[:2000]), pure(pairs[:2000])]))
            values = {f"{name}, rate": rate for name, rate in beside.rates.items()}
            values |= {f"{name}, share": share for name, share in beside.shares.items()}
            values |= {"efficiency": two / (2 * one), "of two processes": plain}
            for name, value in values.items():
                found[name].append(value)
    finally:
        ray.shutdown()
        cluster.shutdown()
        own.close()
    return found


def report(found: dict[str, list[float]], pairs: int) -> str:
    """The results as a Markdown table, medians with their range."""
    rounds, cores = len(found["efficiency"]), len(os.sched_getaffinity(0))

    def cell(name: str, digits: int) -> str:
        values = found[name]
        return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    lines = [f"{date.today()}, {cores} cores ({platform.machine()}), medians of {rounds} rounds (least to most)\n"]
    lines += ["| | pairs | pairs/s | of pure, a core |", "|---|---|---|---|"]
    ways = (("1", "1 raylet", pairs // 2), ("2", "2 raylets", pairs), ("two processes", "two plain processes", pairs))
    for name, shown, number in ways:
        lines.append(f"| {shown} | {number} | {cell(f'{name}, rate', 0)} | {cell(f'{name}, share', 2)} |")
    lines.append(f"\nWeak scaling from one raylet to two: {cell('efficiency', 2)}")
    lines.append(f"Two plain processes, over twice one: {cell('of two processes', 2)}")
    return "\n".join([*lines, f"\n{_LIMITS.format(cores=cores)}"])


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=4_000, help="pairs per raylet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows-per-shard", type=int, default=250)
    parser.add_argument("--output", type=Path, help="a .json file for the numbers")
    args = parser.parse_args()
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    pairs = load(args.data, 2 * args.pairs)
    pure(pairs[:200])
    with tempfile.TemporaryDirectory() as folder:
        found = measure(pairs, args.rounds, Path(folder), args.rows_per_shard)
    print(report(found, len(pairs)))
    if args.output:
        args.output.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
