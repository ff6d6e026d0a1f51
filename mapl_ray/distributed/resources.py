"""What a stage holds at once, and whether the cluster can hold it: plain arithmetic, no cluster needed.

Ray waits for ever for resources that never come; so they are counted before anything starts.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapl_ray.config import RunConfig, TrainConfig
from mapl_ray.errors import UserError


@dataclass(frozen=True, slots=True)
class Node:
    """Logical resources of one machine."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Resources:
    """Logical resources of a cluster."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        each = ", ".join(f"{node.cpus:g} CPU + {node.gpus:g} GPU" for node in self.nodes)
        return f"{len(self.nodes)} node(s): {each or 'none'}"


@dataclass(frozen=True, slots=True)
class Demand:
    """Actors or workers of the same size that must be there together, each on one node."""

    number: int
    cpus: float
    gpus: float
    keys: str  # the config keys that say so

    def __str__(self) -> str:
        return f"{self.number} x ({self.cpus:g} CPU + {self.gpus:g} GPU)"


def demand_of(stage: str, config: RunConfig) -> Demand:
    """The most that a stage holds at once.

    Stages: `score pairs`, `synthesize`, `score`, `train rm`, `train dpo`, `tune` or `evaluate`.
    """
    if stage in ("score", "score pairs"):
        scoring = config.scoring
        keys = "scoring.num_engines, scoring.cpus_per_engine, scoring.gpus_per_engine"
        return Demand(scoring.num_engines, scoring.cpus_per_engine, scoring.gpus_per_engine, keys)
    if stage in ("train rm", "train dpo"):
        return _training(config.training("rm" if stage == "train rm" else "dpo"), 1, "")
    if stage == "tune":
        trials = min(config.tune.max_concurrent_trials, config.tune.num_trials)
        return _training(config.training(config.tune.method), trials, "tune.max_concurrent_trials, ")
    if stage == "evaluate":
        return Demand(1, config.evaluation.cpus, config.evaluation.gpus, "evaluation.cpus, evaluation.gpus")
    return Demand(1, 1.0, 0.0, "cluster.num_cpus")


def check_stage(stage: str, config: RunConfig, resources: Resources) -> None:
    """Raise `UserError` if the stage could never start: what is wanted, what is there, and the cure."""
    demand = demand_of(stage, config)
    room = sum(_fitting(demand, node) for node in resources.nodes)
    if room >= demand.number:
        return
    raise UserError(
        f"{stage} wants {demand}, and the cluster has room for {room} of them ({resources}). "
        f"Lower {demand.keys}, or use a larger cluster (cluster.address)."
    )


def _training(train: TrainConfig, runs: int, keys: str) -> Demand:
    keys += "train.num_workers, train.cpus_per_worker, train.gpus_per_worker"
    return Demand(runs * train.num_workers, train.cpus_per_worker, train.gpus_per_worker, keys)


def _fitting(demand: Demand, node: Node) -> int:
    limits = [demand.number]
    # Ray counts in ten-thousandths; so does this, or 0.1 + 0.2 would not fit into 0.3.
    for want, there in ((demand.cpus, node.cpus), (demand.gpus, node.gpus)):
        if want > 0:
            limits.append(round(there * 10_000) // max(1, round(want * 10_000)))
    return min(limits)
