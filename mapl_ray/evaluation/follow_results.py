"""Accuracy of policies on IFEval and IFBench, from the checkers' verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.following import FollowRow, Verdict
from mapl_ray.evaluation.items import FloatArray


class FollowResults(TypedDict):
    """Prompt level: all instructions of the prompt are followed. Instruction level: each instruction counts."""

    prompt_strict: Estimate
    instruction_strict: Estimate
    prompt_loose: Estimate
    instruction_loose: Estimate
    by_kind: dict[str, Estimate]  # strict, instruction level, by the part of the id before the colon
    cut: int  # responses truncated at max_new_tokens
    failed: int  # responses on which a public checker failed; their instructions count as not followed


def follow_results(
    rows: Sequence[FollowRow], verdicts: Sequence[Verdict], cut: int, samples: int, seed: int
) -> FollowResults:
    """Results of one policy on one or more rows; intervals resample prompts."""

    def measured(flags: Callable[[Verdict], tuple[bool, ...]], prompt_level: bool) -> Estimate:
        counted = [(all(flags(v)),) if prompt_level else flags(v) for v in verdicts]
        value = estimate(
            np.array([flag for some in counted for flag in some], dtype=np.float64),
            np.array([index for index, some in enumerate(counted) for _ in some], dtype=np.int64),
            samples,
            seed,
        )
        assert value is not None  # there are rows, and each has an instruction
        return value

    return FollowResults(
        prompt_strict=measured(lambda v: v.strict, True),
        instruction_strict=measured(lambda v: v.strict, False),
        prompt_loose=measured(lambda v: v.loose, True),
        instruction_loose=measured(lambda v: v.loose, False),
        by_kind=_by_kind(rows, verdicts, samples, seed),
        cut=cut,
        failed=sum(verdict.failed for verdict in verdicts),
    )


def prompt_level(verdicts: Sequence[Verdict]) -> FloatArray:
    """1 where all instructions are followed (strict), [N]. Policies are compared by it."""
    return np.array([all(verdict.strict) for verdict in verdicts], dtype=np.float64)


def _by_kind(rows: Sequence[FollowRow], verdicts: Sequence[Verdict], samples: int, seed: int) -> dict[str, Estimate]:
    items: dict[str, list[tuple[bool, int]]] = {}
    for index, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
        for one, flag in zip(row.instruction_ids, verdict.strict, strict=True):
            items.setdefault(one.partition(":")[0], []).append((flag, index))
    found = {}
    for kind in sorted(items):
        flags, prompts = zip(*items[kind], strict=True)
        value = estimate(np.array(flags, dtype=np.float64), np.array(prompts, dtype=np.int64), samples, seed)
        if value is not None:
            found[kind] = value
    return found
