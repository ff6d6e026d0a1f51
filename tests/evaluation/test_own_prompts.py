"""Instructions that answers to the run's own prompts meet: marks and rates by hand, which prompts, what is printed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.data.records import InstructionRecord, Level, Message, PreferencePair, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.evaluation.column_table import columns_table
from mapl_ray.evaluation.own_prompts import asked_prompt, candidates, marks_of
from mapl_ray.evaluation.own_results import Answer, OwnResults, own_results
from mapl_ray.evaluation.own_text import answers_text, own_counts, own_table
from mapl_ray.instructions import Args, Case, Features, instruction_function
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import synthesize
from tests.evaluation.conftest import GroupMaker

NO_COMMA = InstructionRecord("comma_use", "Do not use commas.", {"use": False})
FOUR_WORDS = InstructionRecord("word_count", "Use at least 4 words.", {"direction": "at least", "n": 4})
FORMAL = InstructionRecord("formal_tone", "Be formal.", {"use": True, "judged": {}})
REMOVED = InstructionRecord("prompt_run", "Repeat it.", {})


def with_instructions(group: RelationGroup, *records: InstructionRecord) -> RelationGroup:
    """The group with these in x+; its x- is not looked at."""
    return replace(group, instructions=((), records, group.instructions[2]))


def results_of(groups: Sequence[RelationGroup], answers: Mapping[str, Sequence[str]], **options: Any) -> OwnResults:
    given = {model: [Answer(text, False) for text in texts] for model, texts in answers.items()}
    values: dict[str, Any] = {
        "before": "before DPO", "max_new_tokens": 9, "left_out": {}, "notes": [], "samples": 200, "seed": 0,
    }  # fmt: skip
    return own_results(groups, given, [("dpo", "dpo-baseline")], **{**values, **options})


@pytest.fixture
def three(make_group: GroupMaker) -> list[RelationGroup]:
    """Two of them have the same original prompt."""
    return [
        with_instructions(make_group("a", "Tell me."), NO_COMMA, FOUR_WORDS, FORMAL),
        with_instructions(make_group("b", "Tell me."), NO_COMMA),
        with_instructions(make_group("c", "Why?"), FOUR_WORDS),
    ]


ANSWERS = {
    "before DPO": ["Yes, no", "fine", "two words"],  # not met, not met; met; not met
    "dpo": ["one two three four", "a, b", "well-known old man"],  # met, met; not met; undecided: three words or four
}


@pytest.mark.parametrize(
    ("answer", "marks"),
    [
        ("one two three four", ["met", "met", "not checked", "not checked"]),
        ("Yes, no", ["not met", "not met", "not checked", "not checked"]),
        ("well-known old man", ["met", "undecided", "not checked", "not checked"]),
        (" \n", ["not met", "not met", "not checked", "not checked"]),
    ],
)
def test_marks(answer: str, marks: list[str]) -> None:
    assert marks_of([NO_COMMA, FOUR_WORDS, FORMAL, REMOVED], answer) == marks


def test_rates_by_hand(three: list[RelationGroup]) -> None:
    results = results_of(three, ANSWERS)
    assert results["counts"] == {"prompts": 3, "instructions": 4, "not checked": 1}
    assert results["before"] == "before DPO"
    before, after = results["models"]["before DPO"], results["models"]["dpo"]
    assert before["instruction"]["value"] == 1 / 4
    assert after["instruction"]["value"] == 2 / 4
    assert before["prompt"]["value"] == after["prompt"]["value"] == 1 / 3
    assert (before["undecided"], after["undecided"]) == (0, 1)
    # Two original prompts: with replacement both, the first twice, or the second twice.
    assert after["instruction"]["prompts"] == 2
    assert (after["instruction"]["low"], after["instruction"]["high"]) == (0.0, 2 / 3)
    (difference,) = results["comparisons"]  # there is no baseline
    assert (difference["model"], difference["baseline"]) == ("dpo", "before DPO")
    assert difference["instruction"]["accuracy"]["value"] == 1 / 4
    assert difference["prompt"]["accuracy"]["value"] == 0.0
    assert (difference["prompt"]["only_model"], difference["prompt"]["only_baseline"]) == (1, 1)


def test_an_empty_answer_meets_nothing(three: list[RelationGroup]) -> None:
    model = results_of(three, {"dpo": ["", "  ", "\n"]})["models"]["dpo"]
    assert model["empty"] == 3
    assert model["instruction"]["value"] == 0.0


def test_a_checker_that_breaks_off_is_named() -> None:
    def check(text: Features, args: Args) -> bool:
        return bool(1 // len(text.text.removeprefix("fine")) if text.text else True)

    @instruction_function(family="own", check=check, phrasings=lambda args: ["Do it."])
    def broken_one(case: Case, rng: random.Random) -> Args | None:
        return {}

    with pytest.raises(UserError, match="'broken_one': its checker failed on the answer 'fine': ZeroDivisionError"):
        marks_of([InstructionRecord("broken_one", "Do it.", {})], "fine")


@pytest.fixture(scope="module")
def real_groups() -> list[RelationGroup]:
    pairs = [pair for pair in read_pairs(DataConfig()) if isinstance(pair, PreferencePair)][:40]
    made = [synthesize(pair, SynthesisConfig(), 0) for pair in pairs]
    return [group for group in made if isinstance(group, RelationGroup)]


def test_responses_as_answers_meet_what_synthesis_says_of_them(real_groups: list[RelationGroup]) -> None:
    """x+ is drawn so that the chosen response meets all of it and the rejected one does not; its flags are stored."""
    assert len(real_groups) > 30
    responses = {name: [group.responses[index] for group in real_groups] for index, name in enumerate(("dpo", "other"))}
    results = results_of(real_groups, responses)
    assert results["models"]["dpo"]["instruction"]["value"] == 1.0
    assert results["models"]["dpo"]["prompt"]["value"] == 1.0
    flags = [flag for group in real_groups for flag in group.sequences[3].satisfied]  # (x+, rejected)
    assert results["models"]["other"]["instruction"]["value"] == pytest.approx(sum(flags) / len(flags))
    assert results["models"]["other"]["prompt"]["value"] == 0.0
    assert results["counts"]["instructions"] == sum(len(group.instructions[1]) for group in real_groups)


def test_several_instructions_come_first_and_nothing_but_ids_and_seed_decides(
    real_groups: list[RelationGroup], make_group: GroupMaker
) -> None:
    soft = with_instructions(make_group("soft"), FORMAL)
    one = with_instructions(make_group("one"), FORMAL, NO_COMMA)
    groups = [soft, one, *real_groups]

    def order(some: Sequence[RelationGroup], seed: int = 0) -> list[str]:
        rows = columns_table(some).select(["prompt_kinds"]).to_pylist()
        given = [
            {**row, "pair_id": group.pair_id, "instructions": group.to_row()["instructions"]}
            for row, group in zip(rows, some, strict=True)
        ]
        return [some[index].pair_id for _, index in sorted(candidates(given, seed))]

    found = order(groups)
    assert sorted(found) == sorted(group.pair_id for group in groups[1:])
    several = {group.pair_id for group in real_groups if len(group.instructions[asked_prompt(group)]) > 1}
    assert several
    assert {*found[: len(several)]} == several
    assert found == order(groups[::-1]) != order(groups, seed=1)


def test_x_plus_is_asked_in_every_layout(real_groups: list[RelationGroup]) -> None:
    pair = next(pair for pair in read_pairs(DataConfig()) if isinstance(pair, PreferencePair))
    grid, independent = real_groups[0], synthesize(pair, SynthesisConfig(layout="independent"), 0)
    assert isinstance(independent, RelationGroup)
    assert (asked_prompt(grid), asked_prompt(independent)) == (1, 5)
    without_inter = replace(
        independent, relations=tuple(r for r in independent.relations if r.level in (Level.PREF, Level.INTRA))
    )
    assert asked_prompt(without_inter) == 1
    with pytest.raises(ValueError, match="no prompt with instructions"):
        asked_prompt(replace(grid, prompts=grid.prompts[:1], instructions=((),), relations=()))


def test_the_block_is_short_and_nothing_in_it_moves_the_cursor(make_group: GroupMaker) -> None:
    question = (Message("user", "Why is\n\nthe \x1b[2Jsky blue?"), Message("tool", "21"))
    group = with_instructions(make_group("a"), NO_COMMA, FOUR_WORDS)
    group = replace(group, prompts=(question, question, question))
    long = "word " * 100
    text = answers_text(results_of([group], {"before DPO": ["Yes, no"], "dpo": [long]}, notes=["Noise"]))
    lines = text.splitlines()
    assert lines[:3] == [
        "Answers before and after DPO (after DPO: dpo)",
        "  greedy, at most 9 tokens; ✓ met, ✗ not met",
        "  Noise",
    ]
    assert lines[3] == "1. Why is ↵ the [2Jsky blue?"
    assert lines[4:7] == ["   ✗ → ✓  Do not use commas.", "   ✗ → ✓  Use at least 4 words.", "   before: Yes, no"]
    shown = " ".join(lines[7:]).split("word")
    assert len(lines) == 9
    left_out = 499 - len(" ".join(["word"] * (len(shown) - 1)))
    assert lines[8].endswith(f"[{left_out} more characters]")
    assert "\x1b" not in text


def test_without_the_model_before_there_is_one_sign(three: list[RelationGroup]) -> None:
    given = {"dpo-baseline": ANSWERS["before DPO"], "dpo": ANSWERS["dpo"]}
    results = results_of(three, given, left_out={"before DPO": "it is gone"})
    assert results["before"] is None
    lines = answers_text(results).splitlines()
    assert "   ✓  Use at least 4 words." in lines
    assert not any("before:" in line for line in lines)
    assert "? undecided: readings differ, - not checked: needs a judge" in lines[1]
    head, rows, differences = own_table(results)
    assert [row[0] for row in rows] == ["dpo-baseline", "dpo"]
    assert [row[0] for row in differences] == ["dpo - dpo-baseline"]
    assert len(head) == len(rows[0])
    assert own_counts(results) == "3 held-out prompts, 4 instructions checked, 1 not (soft ones, which need a judge)"
