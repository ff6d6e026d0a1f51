"""Seconds of every stage of `mapl pipeline` on so many GPUs, and what holds each of them up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mapl_ray.config import Method, RunConfig, TrainConfig
from mapl_ray.planning.groups import Cells, GroupSize
from mapl_ray.planning.rates import Rates
from mapl_ray.planning.shape import ModelShape
from mapl_ray.scoring.judge import ORDERS, judge_questions
from mapl_ray.training.plan import total_steps
from mapl_ray.training.throughput import FlopCounter

METHODS: tuple[Method, ...] = ("rm", "dpo")
_QUESTION = 120  # characters of a judge's question with what stands around it


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage: seconds by what they are spent on, and the GPUs it holds."""

    name: str
    parts: dict[str, float]
    gpus: int

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    @property
    def bound(self) -> str:
        """What most of its time is spent on."""
        return max(self.parts, key=lambda part: self.parts[part])


@dataclass(frozen=True, slots=True)
class StageWork:
    """Everything that the seconds follow from."""

    config: RunConfig
    shape: ModelShape
    group: GroupSize
    rates: Rates
    pairs: float
    gpus: int

    def value(self, rate: str) -> float:
        return self.rates[rate].value

    @property
    def groups(self) -> float:
        """Of both splits."""
        return self.pairs * self.group.groups_per_pair

    @property
    def held_out(self) -> float:
        return self.groups * self.config.data.eval_fraction

    def counts(self, cells: Cells, *, padded: bool) -> tuple[float, float, float]:
        """Tokens, predicted tokens, tokens seen of one group."""
        each = self.value("characters_per_token")
        tokens, seen = (cells.padded, cells.seen_padded) if padded else (cells.tree, cells.seen_tree)
        return tokens / each, cells.responses / each, seen / each**2

    def seconds(self, flops: float, utilisation: str, gpus: int) -> float:
        return flops / (gpus * self.value("gpu_peak") * self.value(utilisation))

    @property
    def start(self) -> dict[str, float]:
        return {"start": self.value("start")}


def stages(work: StageWork) -> Iterator[StageTime]:
    """In the order of the pipeline."""
    config = work.config
    cores = work.config.cluster.synthesis_workers or work.gpus * work.value("cpus_per_gpu")
    yield StageTime("prepare", {"CPU cores": work.pairs / (cores * work.value("prepare"))}, 0)
    if config.scoring.scores_pairs:
        yield _score_pairs(work)
    characters = work.pairs * work.group.response_characters * config.synthesis.groups_per_pair
    yield StageTime("synthesize", {"CPU cores": characters / (cores * work.value("synthesis"))}, 0)
    if config.scoring.ref_logps or config.scoring.reward_model:
        yield _score(work)
    for method in METHODS:
        for baseline in (False, True) if config.evaluation.baseline else (False,):
            yield _train(work, method, baseline=baseline)
    yield _tune(work)
    yield _evaluate(work)


def _engines(work: StageWork) -> int:
    """GPUs that engines use: those of whole engines."""
    each = max(1, work.config.scoring.gpus_per_engine)
    return max(1, work.gpus // each) * min(each, work.gpus)


def _score(work: StageWork) -> StageTime:
    config, scoring, flops, gpus = work.config, work.config.scoring, 0.0, _engines(work)
    if scoring.ref_logps:  # vLLM computes every sequence whole: its cache gives no log-probabilities
        trees = scoring.ref_logps_by == "trainer" and config.training("dpo").batching == "tree"
        flops += work.shape.flops("dpo", None).forward(*work.counts(work.group.all, padded=not trees))
    if scoring.reward_model is not None:  # taken to be as large as the policy
        counts = work.counts(work.group.all, padded=not scoring.prefix_caching)
        flops += work.shape.flops("rm", None).forward(*counts)
    return StageTime(
        "score", {"compute": work.seconds(flops * work.groups, "scoring_utilisation", gpus), **work.start}, gpus
    )


def _score_pairs(work: StageWork) -> StageTime:
    """Other models than the policy are taken to be as large as it is."""
    scoring, gpus, flops = work.config.scoring, _engines(work), 0.0
    counter = work.shape.flops("rm", None)
    if scoring.judge.model is not None:
        asked = len(judge_questions(work.config.synthesis, scoring.judge.functions)) * len(ORDERS) * _QUESTION
        characters = work.group.response_characters + 2 * asked  # the response of either side once: it is cached
        flops += counter.forward(characters / work.value("characters_per_token"), 0.0, 0.0)
    if scoring.pair_reward_model is not None:
        flops += counter.forward(*work.counts(work.group.pref, padded=False))
    seconds = work.seconds(flops * work.pairs, "scoring_utilisation", gpus)
    return StageTime("score pairs", {"compute": seconds, **work.start}, gpus)


@dataclass(frozen=True, slots=True)
class _Step:
    """Seconds of one optimizer step and of one evaluation on the held-out groups."""

    compute: float
    network: float
    held_out: float
    total: int  # steps of a run


def _step(work: StageWork, train: TrainConfig, method: Method, gpus: int, *, baseline: bool) -> _Step:
    cells = work.group.pref if baseline else work.group.all
    padded = train.batching == "padded"
    counter = work.shape.flops(method, train.lora)
    counts = work.counts(cells, padded=padded)
    flops = counter.of_counts(*counts)
    if train.gradient_checkpointing:
        flops += counter.forward(*counts)
    if method == "dpo" and train.reference in ("frozen", "adapter"):
        flops += counter.forward(*counts)
    workers = max(1, math.floor(gpus / max(1.0, train.gpus_per_worker)))
    of_a_worker = train.micro_batch_size * train.gradient_accumulation_steps / shared_by(train, workers)
    evaluated = counter.forward(*work.counts(work.group.all, padded=padded)) * work.held_out
    return _Step(
        compute=work.seconds(flops * of_a_worker, "training_utilisation", 1),
        network=sent_bytes(work.shape, train, workers, train.zero_stage) / _link(work, workers)
        + exchanged_bytes(work.shape, train, workers, counts[0]) / _link(work, shared_by(train, workers)),
        held_out=work.seconds(evaluated, "evaluation_utilisation", workers),
        total=total_steps(train, max(1, round(work.groups - work.held_out)), workers),
    )


def sent_bytes(shape: ModelShape, train: TrainConfig, workers: int, zero_stage: int) -> float:
    """Bytes that a worker sends in a step for gradients and weights (Rajbhandari et al. 2020, section 7).

    As DeepSpeed 0.19.8 does it: tests/training/test_traffic.py counts them on two ranks at every stage. Of n bytes on N
    ranks a ring's all-reduce sends 2 n (N - 1) / N, any other collective half of that.

    Gradients are reduced in float32 (`communication_data_type`): all-reduced once a step at stages 0 and 1, to the rank
    that keeps them after every micro-batch at stages 2 and 3. From stage 1 on the weights are gathered: once a step, at
    stage 3 twice a micro-batch, for the forward and the backward pass. Weights that stay gathered at stage 3 (below
    `stage3_param_persistence_threshold`) are counted as the others.
    """
    if workers == 1:
        return 0.0
    size = 2.0 if train.in_bf16 else 4.0
    trained = shape.trained(train.lora)
    reduced, gathered, each = 4.0 * trained, size * trained, train.gradient_accumulation_steps
    volume = {
        0: 2 * reduced,
        1: 2 * reduced + gathered,
        2: each * reduced + gathered,
        3: each * (reduced + 2 * size * shape.parameters),
    }[zero_stage]
    return volume * (workers - 1) / workers


def shared_by(train: TrainConfig, workers: int) -> int:
    """Workers that share the tokens of a row."""
    return min(train.sequence_parallel_size, workers)


def exchanged_bytes(shape: ModelShape, train: TrainConfig, workers: int, tokens: float) -> float:
    """Bytes that a worker sends in a step for attention over shared rows (`train.sequence_parallel_size`).

    All-to-alls of queries, keys, values and outputs of its own tokens, forward and backward, and forward once more with
    gradient checkpointing; of each, all but the worker's own share goes to others. `tokens`: of a group.
    """
    size, ranks = (2.0 if train.in_bf16 else 4.0), shared_by(train, workers)
    own = tokens * train.micro_batch_size * train.gradient_accumulation_steps / ranks
    passes = 3 if train.gradient_checkpointing else 2
    width = 2 * (shape.attention + shape.key_value)
    return passes * shape.layers * width * size * own * (ranks - 1) / ranks


def _link(work: StageWork, workers: int) -> float:
    return work.value("link_in_node" if workers <= work.value("gpus_per_node") else "link_between_nodes")


def checkpoint_bytes(shape: ModelShape, train: TrainConfig) -> float:
    """Weights and Adam's states; of adapters alone where these are trained."""
    return shape.trained(train.lora) * (14.0 if train.in_bf16 else 12.0)


def _train(work: StageWork, method: Method, *, baseline: bool) -> StageTime:
    train = work.config.training(method)
    step = _step(work, train, method, work.gpus, baseline=baseline)
    steps = step.total
    saves = steps // train.checkpoint_every_steps + 1
    parts = {
        "compute": steps * step.compute,
        "network": steps * step.network,
        "held-out evaluations": (steps // train.eval_every_steps + 1) * step.held_out,
        "checkpoints": saves * checkpoint_bytes(work.shape, train) / work.value("shared_storage"),
        **work.start,
    }
    return StageTime(f"train {method}{'-baseline' if baseline else ''}", parts, work.gpus)


def _tune(work: StageWork) -> StageTime:
    tune = work.config.tune
    train = work.config.training(tune.method).model_copy(
        update={"max_steps": tune.max_steps, "eval_every_steps": tune.eval_every_steps}
    )
    each = min(work.gpus, max(1, math.ceil(train.num_workers * max(1.0, train.gpus_per_worker))))
    at_once = max(1, min(tune.max_concurrent_trials or tune.trials, tune.trials, work.gpus // each))
    step = _step(work, train, tune.method, each, baseline=False)
    steps, turns = step.total, math.ceil(tune.trials / at_once)
    parts = {
        "compute": turns * steps * step.compute,
        "network": turns * steps * step.network,
        "held-out evaluations": turns * (steps // tune.eval_every_steps + 1) * step.held_out,
        "start": turns * work.value("start"),
    }
    return StageTime("tune", parts, each * at_once)


def _evaluate(work: StageWork) -> StageTime:
    """A pool of actors of one GPU each, which take the parts of all models."""
    evaluation = work.config.evaluation
    models = len(METHODS) * (2 if evaluation.baseline else 1)
    gpus = min(evaluation.actors(models)[1], work.gpus)
    counts = work.counts(work.group.all, padded=False)
    flops = work.held_out * _mean_forward(work.shape.flops("rm", None), work.shape.flops("dpo", None), counts)
    seconds = models * work.seconds(flops, "evaluation_utilisation", gpus)
    return StageTime("evaluate", {"compute": seconds, **work.start}, gpus)


def _mean_forward(first: FlopCounter, second: FlopCounter, counts: tuple[float, float, float]) -> float:
    return (first.forward(*counts) + second.forward(*counts)) / 2
