"""Ray Data actors that score parts, each with one vLLM engine or the trainer's forward pass.

An actor takes two parts at once: while the engine works on one, the other is read, tokenized or written. Ray restarts
an actor that dies and gives it its parts again; the journal next to the part records its progress.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import ray.data

from mapl_ray.config import ScoringConfig
from mapl_ray.data.records import SCORE_SCHEMA, Rejection, RelationGroup
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, errors_as_rows, rows_of_part, write_rows
from mapl_ray.errors import RunError, UserError
from mapl_ray.progress import progress
from mapl_ray.scoring import BrokenEngineError, ColumnScorer, EngineOptions, Journal, Outcome, TreeOptions, score_part

# Limit per actor and run. A group that kills engines costs one death per halving of its batch and two more; more deaths
# are not caused by the data.
MAX_DEATHS = 64
_PARTS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Actors:
    """Number of actors at once, and the resources of each."""

    fewest: int
    most: int
    cpus: float
    gpus: float

    @classmethod
    def of(cls, scoring: ScoringConfig, options: EngineOptions | TreeOptions) -> Self:
        """Actors with one engine each, or with one forward pass each for `TreeOptions`."""
        if isinstance(options, TreeOptions):
            return cls(*scoring.trainer_actors)
        return cls(*scoring.engines, scoring.cpus_per_engine, scoring.gpus_per_engine)


def on_engines(
    shards: ray.data.Dataset, stages: list[Stage], scorers: list[ColumnScorer], actors: Actors, batch_groups: int
) -> ray.data.Dataset:
    """Score every part of every stage; stage i uses `scorers[i]`."""
    return shards.map(
        ScoreShard,
        fn_constructor_kwargs={
            "stages": stages,
            "scorers": scorers,
            "batch_groups": batch_groups,
            "run": uuid.uuid4().hex,
        },
        compute=engine_pool(shards, actors.fewest, actors.most),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
        max_restarts=MAX_DEATHS,
        max_task_retries=MAX_DEATHS,
    )


def engine_pool(shards: ray.data.Dataset, fewest: int, most: int) -> ray.data.ActorPoolStrategy:
    """Actor pool for mapping `shards`, with two parts queued per actor; also changes settings of `shards.context`."""
    context = shards.context
    # An engine's death during its start is usually a problem of the machine; Ray Data would give up at the first one.
    context.max_consecutive_actor_init_deaths = MAX_RETRIES
    # Ratio of tasks to slots. Ray Data's default of 1.75 is never reached here, and the pool would never grow.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    return ray.data.ActorPoolStrategy(
        min_size=fewest,
        max_size=most,
        max_concurrent_calls_per_actor=_PARTS_AT_ONCE,
        max_tasks_in_flight_per_actor=_PARTS_AT_ONCE,
        enable_true_multi_threading=True,
    )


def start_scorer(
    kind: Literal["ref_logps", "rewards", "judgements"], options: EngineOptions | TreeOptions
) -> tuple[Any, UserError | RunError | None]:
    """The scorer of that kind, or None and the error. If it were raised here, Ray would restart the actor forever."""
    try:
        if isinstance(options, TreeOptions):
            from mapl_ray.scoring.trees import TreeScorer

            return TreeScorer(options), None
        from mapl_ray.scoring.engine import JudgeScorer, LogprobScorer, RewardScorer

        made = {"ref_logps": LogprobScorer, "rewards": RewardScorer, "judgements": JudgeScorer}[kind]
        return made(options), None
    except (UserError, RunError) as error:
        return None, error


class EngineTurn:
    """Lock of the thread that uses the engine. A broken engine ends the process before another thread can use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BrokenEngineError):
            print(f"  the scoring engine is restarted: {error}", file=sys.stderr, flush=True)
            os._exit(1)  # the only way to free everything that an engine holds; Ray restarts the actor
        self._lock.release()


class ScoreShard:
    """Score one part per call, with one vLLM engine that is started once, or with the model of the part's stage.

    Models for the trainer's forward pass are loaded with their first part; only one is in memory at a time.
    """

    def __init__(self, stages: list[Stage], scorers: list[ColumnScorer], batch_groups: int, run: str) -> None:
        self._stages, self._scorers, self._batch_groups, self._run = stages, scorers, batch_groups, run
        self._turn = EngineTurn()
        self._trees: Any = None
        self._engine: Any = None
        self._error: UserError | RunError | None = None
        first = scorers[0]
        if isinstance(first.options, TreeOptions):
            from mapl_ray.scoring.trees import TreesInTurn

            self._trees = TreesInTurn()
        else:  # not with the first part, because the main thread must start vLLM
            self._engine, self._error = start_scorer(first.column, first.options)

    @errors_as_rows
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._error is not None:
            raise self._error
        stage, index = self._stages[int(row["stage"])], int(row["index"])
        scorer = self._scorers[int(row["stage"])]
        groups = [RelationGroup.from_row(item) for item in rows_of_part(stage.source, index)]
        journal, outcomes = self._outcomes(scorer, groups, stage, row)
        named = list(zip(groups, outcomes, strict=True))
        try:
            for group, outcome in named:
                scorer.check(group, outcome)
        except RunError:
            journal.remove()  # otherwise the next run would repeat this outcome
            raise
        written = write_rows(
            stage,
            row,
            [
                {"pair_id": group.pair_id, "scores": list(scores)}
                for group, scores in named
                if isinstance(scores, tuple)
            ],
            [Rejection(group.source, -1, group.pair_id, "score", why) for group, why in named if isinstance(why, str)],
            SCORE_SCHEMA,
        )
        journal.remove()
        return written

    def _outcomes(
        self, scorer: ColumnScorer, groups: list[RelationGroup], stage: Stage, row: dict[str, Any]
    ) -> tuple[Journal, list[Outcome]]:
        """One outcome per group: its existing scores or new ones."""
        stored = [scorer.stored(group) for group in groups]
        left = [group for group, scores in zip(groups, stored, strict=True) if scores is None]
        index, options, found = int(row["index"]), scorer.options, list[Outcome]()
        path = stage.target / f"part-{index:05d}.journal"
        journal = Journal(path, row["fingerprint"], len(left), self._batch_groups, self._run)
        with progress(f"{scorer.name} of part {index}", len(left), "groups") as work:
            if left:
                engine = self._trees.scorer(options) if isinstance(options, TreeOptions) else self._engine
                found = score_part(left, engine, journal, self._held(options), work.advance)
        new = iter(found)
        return journal, [next(new) if scores is None else scores for scores in stored]

    @contextmanager
    def _held(self, options: EngineOptions | TreeOptions) -> Iterator[None]:
        """Hold the engine for this thread, with the model in memory."""
        with self._turn:
            if isinstance(options, TreeOptions):
                self._trees.take(options)
            yield
