"""Compute the resources that a stage needs at once, and whether a cluster has them.

Ray waits forever for missing resources, so they are counted before anything starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mapl_ray.config import RunConfig, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.scoring import engine_needs, evaluation_gib

ALL_STAGES = ("synthesize", "score", "train rm", "train dpo", "tune", "evaluate")  # in the order of the pipeline


@dataclass(frozen=True, slots=True)
class Node:
    """Logical resources of one machine."""

    cpus: float
    gpus: float
    memory_gib: float = math.inf  # main memory


@dataclass(frozen=True, slots=True)
class Resources:
    """Logical resources of a cluster."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        each = ", ".join(_size(node.cpus, node.gpus, node.memory_gib) for node in self.nodes)
        return f"{len(self.nodes)} node(s): {each or 'none'}"


@dataclass(frozen=True, slots=True)
class Demand:
    """A number of equal actors or workers that must run at the same time, each within one node."""

    number: int
    cpus: float
    gpus: float
    keys: str  # the config keys that set it
    memory_gib: float = 0.0  # main memory; 0: unknown

    @property
    def in_all(self) -> tuple[float, float]:
        """Total CPUs and GPUs."""
        return self.number * self.cpus, self.number * self.gpus

    def __str__(self) -> str:
        return f"{self.number} x ({_size(self.cpus, self.gpus, self.memory_gib)})"


def with_pair_scoring(stages: Sequence[str], config: RunConfig) -> tuple[str, ...]:
    """The stages with `score pairs` before `synthesize`, if the config scores pairs."""
    before = ("score pairs",) if config.scoring.scores_pairs else ()
    return tuple(one for stage in stages for one in ((*before, stage) if stage == "synthesize" else (stage,)))


def demand_of(stage: str, config: RunConfig) -> Demand:
    """The resources that a stage holds at once; for a stage that scales with the cluster, its minimum.

    Stages: `score pairs`, `synthesize`, `score`, `train rm`, `train dpo`, `tune` or `evaluate`.
    """
    if stage in ("score", "score pairs"):
        return _engines(config)
    if stage in ("train rm", "train dpo"):
        return _training(config.training("rm" if stage == "train rm" else "dpo"))
    if stage == "tune":  # one trial, which is not elastic; `trials_at_once` computes how many run at once
        return _training(config.training(config.tune.method).model_copy(update={"min_workers": None}))
    if stage == "evaluate":
        given = config.evaluation
        keys = "evaluation.concurrency, evaluation.cpus, evaluation.gpus"
        # With GPUs the model is in GPU memory, which the actor checks.
        return Demand(given.actors(1)[0], given.cpus, given.gpus, keys, 0.0 if given.gpus else evaluation_gib(config))
    return Demand(1, 1.0, 0.0, "cluster.num_cpus")


def check_stage(stage: str, config: RunConfig, resources: Resources) -> None:
    """Raise `UserError` if the stage could never start, with needed and available resources and the fix."""
    demand = demand_of(stage, config)
    room = _room(demand, resources)
    if room >= demand.number:
        return
    raise UserError(
        f"{stage} needs {demand}, and the cluster has room for {room} of them ({resources}). "
        f"Lower {demand.keys}, or use a larger cluster (cluster.address)."
    )


def check_one(stage: str, config: RunConfig, resources: Resources) -> None:
    """Raise `UserError` if not even one actor of the stage has room. A pool can work with fewer actors."""
    demand = replace(demand_of(stage, config), number=1)
    if not any(_fitting(demand, node) for node in resources.nodes):
        raise UserError(
            f"{stage} needs {demand}, and the cluster has room for 0 of them ({resources}). Finished work is kept: "
            "once there is a node, run the same command again to go on."
        )


def trials_at_once(config: RunConfig, resources: Resources) -> int:
    """Number of trials of a search that can run concurrently without waiting for each other's workers.

    A trial needs all of its `train.num_workers` equal workers; the trial itself and Ray Train's controller take no CPU.
    So the number is the total of workers that fit on the nodes, divided by the workers of one trial. Raises `UserError`
    like `check_stage` if no trial fits.
    """
    check_stage("tune", config, resources)
    demand = demand_of("tune", config)
    most = config.tune.trials * demand.number
    room = _room(replace(demand, number=most), resources)
    return min(config.tune.trials, config.tune.max_concurrent_trials or config.tune.trials, room // demand.number)


def room_for(number: int, resources_of_one: Mapping[str, float], resources: Resources) -> int:
    """How many of `number` workers fit on the nodes if nothing else runs there."""
    one = Demand(number, resources_of_one.get("CPU", 0.0), resources_of_one.get("GPU", 0.0), "")
    return min(number, _room(one, resources))


def _room(demand: Demand, resources: Resources) -> int:
    return sum(_fitting(demand, node) for node in resources.nodes)


def _engines(config: RunConfig) -> Demand:
    """The minimum number of engines; more, up to `scoring.concurrency`, start if there is room."""
    scoring = config.scoring
    number = "scoring.num_engines" if scoring.concurrency is None else "scoring.concurrency"
    keys = [number, "scoring.cpus_per_engine", "scoring.gpus_per_engine"]
    memory = 0.0
    if not scoring.gpus_per_engine:  # on CPUs the KV cache is in main memory
        memory = max((needs.memory_gib(scoring) for needs in engine_needs(config)), default=0.0)
        keys.append("scoring.kv_cache_gib")
    return Demand(scoring.engines[0], scoring.cpus_per_engine, scoring.gpus_per_engine, ", ".join(keys), memory)


def _size(cpus: float, gpus: float, memory_gib: float) -> str:
    memory = f" + {memory_gib:.1f} GiB" if 0.0 < memory_gib < math.inf else ""
    return f"{cpus:g} CPU + {gpus:g} GPU{memory}"


def _training(train: TrainConfig) -> Demand:
    number = "train.num_workers" if train.min_workers is None else "train.min_workers"
    keys = f"{number}, train.cpus_per_worker, train.gpus_per_worker"
    return Demand(train.fewest_workers, train.cpus_per_worker, train.gpus_per_worker, keys)


def _fitting(demand: Demand, node: Node) -> int:
    limits = [demand.number]
    # Ray counts in units of 1/10,000; without this 0.1 + 0.2 would not fit into 0.3.
    for want, there in ((demand.cpus, node.cpus), (demand.gpus, node.gpus)):
        if want > 0:
            limits.append(round(there * 10_000) // max(1, round(want * 10_000)))
    if demand.memory_gib > 0.0 and node.memory_gib < math.inf:
        limits.append(int(node.memory_gib // demand.memory_gib))
    return min(limits)
