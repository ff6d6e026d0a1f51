"""What a stage holds at once, and whether the cluster can hold it: plain arithmetic, no cluster needed.

Ray waits forever for resources that never come; so they are counted before anything starts.
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
    """Actors or workers of the same size that must be there together, each on one node."""

    number: int
    cpus: float
    gpus: float
    keys: str  # the config keys that say so
    memory_gib: float = 0.0  # main memory, where it is known

    @property
    def in_all(self) -> tuple[float, float]:
        """CPUs and GPUs of all together."""
        return self.number * self.cpus, self.number * self.gpus

    def __str__(self) -> str:
        return f"{self.number} x ({_size(self.cpus, self.gpus, self.memory_gib)})"


def with_pair_scoring(stages: Sequence[str], config: RunConfig) -> tuple[str, ...]:
    """The stages with `score pairs` before `synthesize`, where the config has engines look at the pairs."""
    before = ("score pairs",) if config.scoring.scores_pairs else ()
    return tuple(one for stage in stages for one in ((*before, stage) if stage == "synthesize" else (stage,)))


def demand_of(stage: str, config: RunConfig) -> Demand:
    """The most that a stage holds at once; of one that takes what is there, the least that it starts with.

    Stages: `score pairs`, `synthesize`, `score`, `train rm`, `train dpo`, `tune` or `evaluate`.
    """
    if stage in ("score", "score pairs"):
        return _engines(config)
    if stage in ("train rm", "train dpo"):
        return _training(config.training("rm" if stage == "train rm" else "dpo"))
    if stage == "tune":  # one trial, which does not shrink; how many there are at once, `trials_at_once` works out
        return _training(config.training(config.tune.method).model_copy(update={"min_workers": None}))
    if stage == "evaluate":
        given = config.evaluation
        keys = "evaluation.concurrency, evaluation.cpus, evaluation.gpus"
        # On a GPU node the model is on the GPU, whose memory the actor looks at.
        return Demand(given.actors(1)[0], given.cpus, given.gpus, keys, 0.0 if given.gpus else evaluation_gib(config))
    return Demand(1, 1.0, 0.0, "cluster.num_cpus")


def check_stage(stage: str, config: RunConfig, resources: Resources) -> None:
    """Raise `UserError` if the stage could never start: what is wanted, what is there, and the cure."""
    demand = demand_of(stage, config)
    room = _room(demand, resources)
    if room >= demand.number:
        return
    raise UserError(
        f"{stage} wants {demand}, and the cluster has room for {room} of them ({resources}). "
        f"Lower {demand.keys}, or use a larger cluster (cluster.address)."
    )


def check_one(stage: str, config: RunConfig, resources: Resources) -> None:
    """Raise `UserError` if not even one actor of the stage has room: a pool works on with those that have."""
    demand = replace(demand_of(stage, config), number=1)
    if not any(_fitting(demand, node) for node in resources.nodes):
        raise UserError(
            f"{stage} wants {demand}, and the cluster has room for 0 of them ({resources}). Finished work is kept: "
            "once there is a node, run the same command again to go on."
        )


def trials_at_once(config: RunConfig, resources: Resources) -> int:
    """How many trials of a search run side by side without one waiting for a worker that another holds.

    A trial is `train.num_workers` workers of one size, all of them or none; the trial itself and Ray Train's controller
    take no CPU. Workers of one size leave no gaps: a node holds as many as fit, so that the trials
    are all nodes' workers over the workers of one. Raises `UserError`, as `check_stage` does, where not one fits.
    """
    check_stage("tune", config, resources)
    demand = demand_of("tune", config)
    most = config.tune.trials * demand.number
    room = _room(replace(demand, number=most), resources)
    return min(config.tune.trials, config.tune.max_concurrent_trials or config.tune.trials, room // demand.number)


def room_for(number: int, resources_of_one: Mapping[str, float], resources: Resources) -> int:
    """How many of `number` workers the nodes have room for, when nothing else runs on them."""
    one = Demand(number, resources_of_one.get("CPU", 0.0), resources_of_one.get("GPU", 0.0), "")
    return min(number, _room(one, resources))


def _room(demand: Demand, resources: Resources) -> int:
    return sum(_fitting(demand, node) for node in resources.nodes)


def _engines(config: RunConfig) -> Demand:
    """The fewest engines; further ones of `scoring.concurrency` come where there is room."""
    scoring = config.scoring
    number = "scoring.num_engines" if scoring.concurrency is None else "scoring.concurrency"
    keys = [number, "scoring.cpus_per_engine", "scoring.gpus_per_engine"]
    memory = 0.0
    if not scoring.gpus_per_engine:  # on a CPU node the cache is main memory
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
    # Ray counts in ten-thousandths; so does this, or 0.1 + 0.2 would not fit into 0.3.
    for want, there in ((demand.cpus, node.cpus), (demand.gpus, node.gpus)):
        if want > 0:
            limits.append(round(there * 10_000) // max(1, round(want * 10_000)))
    if demand.memory_gib > 0.0 and node.memory_gib < math.inf:
        limits.append(int(node.memory_gib // demand.memory_gib))
    return min(limits)
