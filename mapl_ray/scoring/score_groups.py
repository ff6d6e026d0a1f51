"""Scores of whole groups, from any scorer. Token ids are those of training: `batches.encode_group` makes both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.records import Rejection, RelationGroup
from mapl_ray.scoring.protocol import Scorer

Column = Literal["ref_logps", "rewards"]
ScoredGroup = RelationGroup | Rejection


def score_groups(groups: Sequence[RelationGroup], scorer: Scorer, column: Column) -> list[ScoredGroup]:
    """Fill one column of every group; a group that is too long or scores NaN or infinity is rejected, with why."""
    encoded = [encode_group(group, scorer.tokenizer, scorer.max_tokens) for group in groups]
    fitting = [group for group in encoded if isinstance(group, EncodedGroup)]
    ids = [group.token_ids(i) for group in fitting for i in range(len(group.sequences))]
    starts = [group.prompt_length(i) for group in fitting for i in range(len(group.sequences))]
    scores = iter(scorer.score(ids, starts) if ids else [])
    results: list[ScoredGroup] = []
    for group, made in zip(groups, encoded, strict=True):
        if isinstance(made, Rejection):
            results.append(replace(made, stage="score"))
            continue
        of_group = tuple(next(scores) for _ in group.sequences)
        if not all(map(math.isfinite, of_group)):
            reason = f"{column}={list(of_group)}: expected finite numbers"
            results.append(Rejection(group.source, -1, group.pair_id, "score", reason))
        elif column == "ref_logps":
            results.append(replace(group, ref_logps=of_group))
        else:
            results.append(replace(group, rewards=of_group))
    return results
