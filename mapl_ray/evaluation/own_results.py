"""Measure how many instructions of the run's own prompts each model's answers meet, before and after DPO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from mapl_ray.data.records import RelationGroup, messages_to_rows
from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.column_table import prompt_text
from mapl_ray.evaluation.items import FloatArray, IntArray
from mapl_ray.evaluation.own_prompts import Mark, asked_prompt, marks_of
from mapl_ray.evaluation.paired import Difference, paired_difference

_SHOWN = 3  # prompts whose texts are stored with the results


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to one prompt."""

    text: str
    cut: bool  # truncated at max_new_tokens


class OwnModel(TypedDict):
    """Results of one model. Instructions that are not checked are ignored; undecided ones count as not met."""

    prompt: Estimate  # share of prompts with all instructions met
    instruction: Estimate  # share of instructions that are met
    undecided: int  # number of undecided instructions
    cut: int  # answers truncated at max_new_tokens
    empty: int  # answers without text; they meet no instruction


class OwnComparison(TypedDict):
    """A comparison of two models on the same prompts."""

    model: str
    baseline: str
    prompt: Difference
    instruction: Difference


class ShownAnswer(TypedDict):
    """An answer and its marks, in the order of the prompt's instructions."""

    text: str
    cut: bool
    marks: list[Mark]


class ShownPrompt(TypedDict):
    """One prompt with all answers."""

    pair_id: str
    original: list[dict[str, str]]  # messages without the instructions
    prompt: list[dict[str, str]]  # messages with the instructions, as given to the models
    instructions: list[str]
    answers: dict[str, ShownAnswer]  # by model


class OwnResults(TypedDict):
    """Answers to the run's own prompts. Without usable prompts `models` is empty."""

    counts: dict[str, int]  # prompts, instructions that are checked, instructions that are not
    max_new_tokens: int
    before: str | None  # the one of `models` that DPO started from
    models: dict[str, OwnModel]
    comparisons: list[OwnComparison]
    left_out: dict[str, str]  # model -> why it has no answers
    notes: list[str]  # remarks on the models
    shown: list[ShownPrompt]


def own_results(
    groups: Sequence[RelationGroup],
    answers: Mapping[str, Sequence[Answer]],
    pairs: Sequence[tuple[str, str]],
    *,
    before: str | None,
    max_new_tokens: int,
    left_out: Mapping[str, str],
    notes: Sequence[str],
    samples: int,
    seed: int,
) -> OwnResults:
    """Measure every model on `groups`. `answers` maps a model to one answer per group.

    `pairs` are (model, baseline); each model is also compared with `before`. Intervals resample original prompts.
    Raises `UserError` if a checker fails.
    """
    marks = {model: _marks(groups, given) for model, given in answers.items()}
    items = _Items.of(groups, next(iter(marks.values()), []))
    compared = [*pairs, *((model, before) for model in answers if before is not None and model != before)]
    return OwnResults(
        counts={"prompts": len(groups), "instructions": items.checked, "not checked": items.unchecked},
        max_new_tokens=max_new_tokens,
        before=before if before in answers else None,
        models={model: _measured(items, marks[model], answers[model], samples, seed) for model in answers if groups},
        comparisons=[
            _compared(items, marks, model, baseline, samples, seed)
            for model, baseline in dict.fromkeys(compared)
            if model in marks and baseline in marks and groups
        ],
        left_out=dict(left_out),
        notes=list(notes),
        shown=[_shown(group, index, answers, marks) for index, group in enumerate(groups[:_SHOWN])],
    )


@dataclass(frozen=True, slots=True)
class _Items:
    """The items that are counted, the same for every model: prompts, or checked instructions."""

    prompt_G: IntArray  # index of the original prompt of every group
    checked: int
    unchecked: int

    @classmethod
    def of(cls, groups: Sequence[RelationGroup], marks: Sequence[Sequence[Mark]]) -> _Items:
        keys: dict[str, int] = {}
        prompt_G = np.array([keys.setdefault(prompt_text(group), len(keys)) for group in groups], dtype=np.int64)
        unchecked = sum(mark == "not checked" for some in marks for mark in some)
        return cls(prompt_G, sum(map(len, marks)) - unchecked, unchecked)

    def values(self, marks: Sequence[Sequence[Mark]], whole: bool) -> tuple[FloatArray, IntArray]:
        """1 for each item that is met, [N], and its original prompt. With `whole` the items are prompts."""
        checked = [[mark == "met" for mark in some if mark != "not checked"] for some in marks]
        counted = [[all(some)] if whole else some for some in checked]
        flags = np.array([flag for some in counted for flag in some], dtype=np.float64)
        return flags, np.repeat(self.prompt_G, [len(some) for some in counted])


def _marks(groups: Sequence[RelationGroup], answers: Sequence[Answer]) -> list[list[Mark]]:
    return [
        marks_of(group.instructions[asked_prompt(group)], answer.text)
        for group, answer in zip(groups, answers, strict=True)
    ]


def _measured(
    items: _Items, marks: Sequence[Sequence[Mark]], answers: Sequence[Answer], samples: int, seed: int
) -> OwnModel:
    prompt = estimate(*items.values(marks, True), samples, seed)
    instruction = estimate(*items.values(marks, False), samples, seed)
    assert prompt is not None  # there are prompts, and each has a checked instruction
    assert instruction is not None
    return OwnModel(
        prompt=prompt,
        instruction=instruction,
        undecided=Counter(mark for some in marks for mark in some)["undecided"],
        cut=sum(answer.cut for answer in answers),
        empty=sum(not answer.text.strip() for answer in answers),
    )


def _compared(
    items: _Items, marks: Mapping[str, Sequence[Sequence[Mark]]], model: str, baseline: str, samples: int, seed: int
) -> OwnComparison:
    def difference(whole: bool) -> Difference:
        values_N, prompt_N = items.values(marks[model], whole)
        baseline_N, _ = items.values(marks[baseline], whole)
        found = paired_difference(values_N, baseline_N, prompt_N, samples, seed)
        assert found is not None  # as above
        return found

    return OwnComparison(model=model, baseline=baseline, prompt=difference(True), instruction=difference(False))


def _shown(
    group: RelationGroup,
    index: int,
    answers: Mapping[str, Sequence[Answer]],
    marks: Mapping[str, Sequence[Sequence[Mark]]],
) -> ShownPrompt:
    asked = asked_prompt(group)
    given: dict[str, Any] = {model: of_model[index] for model, of_model in answers.items()}
    return ShownPrompt(
        pair_id=group.pair_id,
        original=messages_to_rows(group.prompts[0]),
        prompt=messages_to_rows(group.prompts[asked]),
        instructions=[record.text for record in group.instructions[asked]],
        answers={
            model: ShownAnswer(text=answer.text, cut=answer.cut, marks=list(marks[model][index]))
            for model, answer in given.items()
        },
    )
