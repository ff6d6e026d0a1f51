"""Estimated time of every stage of `mapl pipeline`, and what most of it is spent on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from mapl_ray.config import Method, RunConfig, TrainConfig
from mapl_ray.planning.groups import Cells, GroupSize
from mapl_ray.planning.rates import Rate, Rates
from mapl_ray.planning.shape import ModelShape
from mapl_ray.planning.traffic import shared_by, step_traffic
from mapl_ray.scoring.judge import ORDERS, judge_questions
from mapl_ray.training.plan import total_steps
from mapl_ray.training.throughput import FlopCounter

METHODS: tuple[Method, ...] = ("rm", "dpo")
_QUESTION = 120  # characters of a judge's question with its prompt template


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time of one stage in seconds, by what it is spent on, and the number of GPUs it uses."""

    name: str
    parts: dict[str, float]
    gpus: int
    assumed: tuple[str, ...] = ()  # names of the assumed rates that it depends on

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    @property
    def bound(self) -> str:
        """What most of its time is spent on."""
        return max(self.parts, key=lambda part: self.parts[part])


@dataclass(frozen=True, slots=True)
class StageWork:
    """Inputs of the time estimates."""

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
        """Number of groups in both splits."""
        return self.pairs * self.group.groups_per_pair

    @property
    def token_ids(self) -> float:
        """Number of kept token ids of all groups."""
        kept = any(self.config.training(method).keep_token_ids for method in METHODS)
        return self.groups * self.group.tokenized_characters / self.value("characters_per_token") if kept else 0.0

    @property
    def held_out(self) -> float:
        return self.groups * self.config.data.eval_fraction

    def counts(self, cells: Cells, *, padded: bool) -> tuple[float, float, float]:
        """Tokens, predicted tokens, and tokens seen (summed over tokens) of one group."""
        each = self.value("characters_per_token")
        tokens, seen = (cells.padded, cells.seen_padded) if padded else (cells.tree, cells.seen_tree)
        return tokens / each, cells.responses / each, seen / each**2

    def seconds(self, flops: float, utilisation: str, gpus: int) -> float:
        return flops / (gpus * self.value("gpu_peak") * self.value(utilisation))

    @property
    def start(self) -> dict[str, float]:
        return {"start": self.value("start")}


class _AskedRates(dict[str, Rate]):
    """Rates that record which of them were used."""

    def __init__(self, rates: Rates) -> None:
        super().__init__(rates)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Rate:
        self.asked.add(name)
        return super().__getitem__(name)

    def assumed(self) -> tuple[str, ...]:
        """Names of the used rates that are assumed, sorted."""
        return tuple(
            sorted(name for name in self.asked if super(_AskedRates, self).__getitem__(name).kind == "assumed")
        )


def stages(work: StageWork) -> Iterator[StageTime]:
    """Yield the time of each stage, in the order of the pipeline."""
    for timed in _timed(work.config):
        rates = _AskedRates(work.rates)
        stage = timed(replace(work, rates=rates))
        yield replace(stage, assumed=rates.assumed())


def _timed(config: RunConfig) -> Iterator[Callable[[StageWork], StageTime]]:
    yield _prepare
    if config.scoring.scores_pairs:
        yield _score_pairs
    yield _synthesize
    if config.scoring.ref_logps or config.scoring.reward_model:
        yield _score
    for method in METHODS:
        for baseline in (False, True) if config.evaluation.baseline else (False,):
            yield partial(_train, method=method, baseline=baseline)
    yield _tune
    yield _evaluate


def _prepare(work: StageWork) -> StageTime:
    return StageTime("prepare", {"CPU cores": work.pairs / (_cores(work) * work.value("prepare"))}, 0)


def _synthesize(work: StageWork) -> StageTime:
    characters = work.pairs * work.group.response_characters * work.config.synthesis.groups_per_pair
    return StageTime("synthesize", {"CPU cores": characters / (_cores(work) * work.value("synthesis"))}, 0)


def _cores(work: StageWork) -> float:
    return work.config.cluster.synthesis_workers or work.gpus * work.value("cpus_per_gpu")


def _engines(work: StageWork) -> int:
    """Number of GPUs used by whole engines."""
    each = max(1, work.config.scoring.gpus_per_engine)
    return max(1, work.gpus // each) * min(each, work.gpus)


def _score(work: StageWork) -> StageTime:
    config, scoring, flops, gpus = work.config, work.config.scoring, 0.0, _engines(work)
    if scoring.ref_logps:  # vLLM computes every sequence in full, as its prefix cache has no log-probabilities
        trees = scoring.ref_logps_by == "trainer" and config.training("dpo").batching == "tree"
        flops += work.shape.flops("dpo", None).forward(*work.counts(work.group.all, padded=not trees))
    if scoring.reward_model is not None:  # assumed to be as large as the policy
        counts = work.counts(work.group.all, padded=not scoring.prefix_caching)
        flops += work.shape.flops("rm", None).forward(*counts)
    return StageTime(
        "score", {"compute": work.seconds(flops * work.groups, "scoring_utilisation", gpus), **work.start}, gpus
    )


def _score_pairs(work: StageWork) -> StageTime:
    """Estimate the scoring of pairs. Judge and reward model are assumed to be as large as the policy."""
    scoring, gpus, flops = work.config.scoring, _engines(work), 0.0
    counter = work.shape.flops("rm", None)
    if scoring.judge.model is not None:
        asked = len(judge_questions(work.config.synthesis, scoring.judge.functions)) * len(ORDERS) * _QUESTION
        characters = work.group.response_characters + 2 * asked  # each response once, as it is cached
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
    spans = step_traffic(work.shape, train, method, workers, train.zero_stage, counts[0])
    evaluated = counter.forward(*work.counts(work.group.all, padded=padded)) * work.held_out
    return _Step(
        compute=work.seconds(flops * of_a_worker, "training_utilisation", 1),
        network=sum(sent / _link(work, span) for span, sent in spans.items()),
        held_out=work.seconds(evaluated, "evaluation_utilisation", workers),
        total=total_steps(train, max(1, round(work.groups - work.held_out)), workers),
    )


def _link(work: StageWork, span: int) -> float:
    return work.value("link_in_node" if span <= work.value("gpus_per_node") else "link_between_nodes")


def checkpoint_bytes(shape: ModelShape, train: TrainConfig) -> float:
    """Bytes of a checkpoint: weights and Adam's states; with LoRA, those of adapters only."""
    return shape.trained(train.lora) * (14.0 if train.in_bf16 else 12.0)


def best_bytes(shape: ModelShape, train: TrainConfig) -> float:
    """Bytes of the kept best until its export. An upper limit, as it shares files with checkpoints.

    ZeRO stages 1 and 2 keep only weights; at other stages, Adam's states are in the same files. Doubled if a step may
    be evaluated without a checkpoint, as the previous best is kept until the next checkpoint.
    """
    if train.best_by is None:
        return 0.0
    weights = shape.trained(train.lora) * (2.0 if train.in_bf16 else 4.0)
    copies = 1 if train.eval_every_steps % train.checkpoint_every_steps == 0 else 2
    return copies * (weights if train.zero_stage in (1, 2) else checkpoint_bytes(shape, train))


def _train(work: StageWork, *, method: Method, baseline: bool) -> StageTime:
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
    """Estimate the evaluation: a pool of actors with one GPU each computes the parts of all models."""
    evaluation = work.config.evaluation
    models = len(METHODS) * (2 if evaluation.baseline else 1)
    gpus = min(evaluation.actors(models)[1], work.gpus)
    counts = work.counts(work.group.all, padded=False)
    flops = work.held_out * _mean_forward(work.shape.flops("rm", None), work.shape.flops("dpo", None), counts)
    seconds = models * work.seconds(flops, "evaluation_utilisation", gpus)
    return StageTime("evaluate", {"compute": seconds, **work.start}, gpus)


def _mean_forward(first: FlopCounter, second: FlopCounter, counts: tuple[float, float, float]) -> float:
    return (first.forward(*counts) + second.forward(*counts)) / 2
