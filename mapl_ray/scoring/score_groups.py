"""Score whole groups with any scorer. Token ids are the same as in training (`batches.encode_group`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal

from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.data.records import Rejection, RelationGroup
from mapl_ray.errors import RunError, UserError
from mapl_ray.scoring.journal import Journal, Outcome
from mapl_ray.scoring.protocol import GroupScorer, Scorer

Column = Literal["ref_logps", "rewards"]
ScoredGroup = RelationGroup | Rejection


class BrokenEngineError(Exception):
    """The engine raised an error. Its state is unknown, so its process must be replaced."""


def score_groups(groups: Sequence[RelationGroup], scorer: Scorer | GroupScorer, column: Column) -> list[ScoredGroup]:
    """Fill one column of every group. A group that is too long or has a NaN or infinite score is rejected."""
    outcomes = _outcomes([encode_group(group, scorer.tokenizer, scorer.max_tokens) for group in groups], scorer)
    return [with_outcome(group, column, outcome) for group, outcome in zip(groups, outcomes, strict=True)]


def score_part(
    groups: Sequence[RelationGroup],
    scorer: Scorer | GroupScorer,
    journal: Journal,
    engine: AbstractContextManager[object] | None = None,
    on_scored: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """The outcome of every group, scored in the batches that `journal` gives. `on_scored` is called after every batch
    with its number of groups.

    The lock `engine` is held from the first to the last batch. If it were taken per batch, two threads would finish at
    the same time and then both read and tokenize while the engine is idle.

    Raises `BrokenEngineError` for any error of the scorer except `UserError` and `RunError`.
    """
    # Tokenize the whole part before taking the engine: meanwhile it scores another thread's part.
    encoded = [encode_group(group, scorer.tokenizer, scorer.max_tokens) for group in groups]
    with engine or nullcontext():
        while (span := journal.next()) is not None:
            journal.begin(span)
            try:
                outcomes = _outcomes(encoded[slice(*span)], scorer)
            except (UserError, RunError):
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {str(error).strip()[:500]}"
                journal.fail(span, reason)
                raise BrokenEngineError(reason) from error
            journal.end(span, outcomes)
            if on_scored is not None:
                on_scored(len(outcomes))
    return journal.outcomes()


def with_outcome(group: RelationGroup, column: Column, outcome: Outcome) -> ScoredGroup:
    """The group with the column filled, or its rejection."""
    if isinstance(outcome, str):
        return Rejection(group.source, -1, group.pair_id, "score", outcome)
    return replace(group, ref_logps=outcome) if column == "ref_logps" else replace(group, rewards=outcome)


def _outcomes(encoded: Sequence[EncodedGroup | Rejection], scorer: Scorer | GroupScorer) -> list[Outcome]:
    fitting = [group for group in encoded if isinstance(group, EncodedGroup)]
    if not fitting:
        found = []
    elif isinstance(scorer, GroupScorer):
        found = scorer.score_trees(fitting)
    else:
        found = _one_by_one(fitting, scorer)
    scores = iter(found)
    return [group.reason if isinstance(group, Rejection) else _finite(next(scores)) for group in encoded]


def _one_by_one(groups: Sequence[EncodedGroup], scorer: Scorer) -> list[tuple[float, ...]]:
    """Score group by group in prefix order, so that shared prefixes are the engine's most recent work."""
    cells = [
        (number, index, ids, group.prompt_length(index))
        for number, group in enumerate(groups)
        for ids, index in sorted((group.token_ids(index), index) for index in range(len(group.sequences)))
    ]
    found = scorer.score([ids for _, _, ids, _ in cells], [start for *_, start in cells])
    scores = {(number, index): score for (number, index, _, _), score in zip(cells, found, strict=True)}
    return [
        tuple(scores[number, index] for index in range(len(group.sequences))) for number, group in enumerate(groups)
    ]


def _finite(scores: tuple[float, ...]) -> Outcome:
    return scores if all(map(math.isfinite, scores)) else f"scores {list(scores)}: expected finite numbers"
