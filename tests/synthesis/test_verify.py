"""A doctored group never passes."""

from dataclasses import replace

import pytest

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import InstructionRecord, Level, Message, PreferencePair, Relation, RelationGroup
from mapl_ray.synthesis import synthesize, verify_group

PAIR = PreferencePair("p", (Message("user", "Count"),), "one two three " * 20, "four five six " * 60, "test")


@pytest.fixture
def group() -> RelationGroup:
    made = synthesize(PAIR, SynthesisConfig(functions=("word_count",)), 0)
    assert isinstance(made, RelationGroup)
    assert verify_group(made) == []
    return made


def test_a_wrong_flag(group) -> None:
    cells = list(group.sequences)
    cells[3] = replace(cells[3], satisfied=(True,))
    assert any("sequence 3" in problem for problem in verify_group(replace(group, sequences=tuple(cells))))


def test_another_response(group) -> None:
    assert verify_group(replace(group, responses=(group.responses[1], group.responses[0])))


def test_other_arguments(group) -> None:
    args = {"direction": "at most", "n": 10_000}  # both responses satisfy it: nothing is told apart
    records = (group.instructions[0], (replace(group.instructions[1][0], args=args),), group.instructions[2])
    assert verify_group(replace(group, instructions=records))


def test_an_unknown_function(group) -> None:
    original, plus, minus = group.instructions
    records = (original, (InstructionRecord("nothing", plus[0].text, {}),), minus)
    assert "no instruction function 'nothing'" in verify_group(replace(group, instructions=records))[0]


@pytest.mark.parametrize(
    "relation",
    [
        Relation(Level.PREF, (1,), (0,)),
        Relation(Level.PREF, (2,), (3,)),
        Relation(Level.INTRA, (4,), (2,)),  # the wrong way round
        Relation(Level.INTRA, (2,), (0,)),  # against the original prompt
        Relation(Level.INTRA, (2,), (5,)),  # two responses
        Relation(Level.INTER_WIDENING, (3, 0), (2, 1)),
        Relation(Level.INTER_WIDENING, (4, 1), (5, 0)),  # x- does not widen
        Relation(Level.INTER_NARROWING, (0, 3), (1, 2)),  # x+ does not narrow
        Relation(Level.INTER_NARROWING, (0, 5), (1, 1)),  # a sequence twice
        Relation(Level.INTRA, (2,), (9,)),  # no such sequence
    ],
)
def test_a_relation_that_does_not_hold(group, relation) -> None:
    assert verify_group(replace(group, relations=(*group.relations, relation)))


def test_prompts_that_are_not_the_original_and_its_instructions(group) -> None:
    original, plus, minus = group.prompts
    assert verify_group(replace(group, prompts=(original, (Message("user", "Other text"),), minus)))
    assert verify_group(replace(group, prompts=(original, original, minus)))  # the instruction is missing
    assert verify_group(replace(group, prompts=(original, (Message("system", "x"), *plus), minus)))
    assert verify_group(replace(group, relations=()))


def test_conditions_differ() -> None:
    config = SynthesisConfig(condition="any", min_instructions=3)
    made = [synthesize(replace(PAIR, pair_id=str(i)), config, 0) for i in range(20)]
    groups = [group for group in made if isinstance(group, RelationGroup)]
    assert len(groups) > 10
    assert all(verify_group(group, "any") == [] and verify_group(group) == [] for group in groups)
    assert any(verify_group(group, "all") for group in groups)  # the winner satisfies some, not all
