"""Soft functions: the truth is a judge's, and only about texts that it has seen."""

import random
from dataclasses import replace

import pytest

from mapl_ray.data.records import InstructionRecord
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY, Case, Instruction, compatible, features_of

SOFT = sorted(name for name, function in REGISTRY.items() if function.sides == "soft")
A, B = features_of("Dear Sir, I remain yours faithfully."), features_of("hey, what's up")


def case(name: str, flags: tuple[bool, bool], p: tuple[float, float]) -> Case:
    judgements = {A.digest: {name: p[0]}, B.digest: {name: p[1]}}
    return Case(((A, flags[0]), (B, flags[1])), (), judgements)


def test_the_set() -> None:
    assert len(SOFT) >= 12
    assert all(REGISTRY[name].family.startswith("soft_") for name in SOFT)
    questions = [REGISTRY[name].question for name in SOFT]
    assert len(set(questions)) == len(questions)
    assert all(question is not None and question.endswith("?") for question in questions)
    assert all(function.question is None for name, function in REGISTRY.items() if name not in SOFT)


@pytest.mark.parametrize("name", SOFT)
def test_wording(name: str) -> None:
    sides = [REGISTRY[name].phrasings({"use": use, "judged": {}}) for use in (True, False)]
    assert len(sides[0]) == len(sides[1]) >= 4
    assert len({*sides[0], *sides[1]}) == 2 * len(sides[0])  # no wording of one side is one of the other
    assert all(text[0].isupper() and text.endswith(".") for side in sides for text in side)


@pytest.mark.parametrize("name", SOFT)
def test_drawn_as_the_judge_says(name: str) -> None:
    function, rng = REGISTRY[name], random.Random(0)
    plus = function.generate_for(case(name, (True, False), (0.9, 0.1)), rng)
    minus = function.generate_for(case(name, (False, True), (0.9, 0.1)), rng)
    assert plus is not None
    assert minus is not None
    assert (plus.args["use"], minus.args["use"]) == (True, False)
    assert plus.args["judged"] == {A.digest: 0.9, B.digest: 0.1}
    for instruction, flags in ((plus, (True, False)), (minus, (False, True))):
        restored = Instruction.from_record(instruction.to_record())
        assert restored == instruction
        assert (restored.check(A.text), restored.check(B.text)) == flags
    # Both responses are formal: an instruction that only one of them satisfies does not exist.
    assert function.generate_for(case(name, (True, False), (0.9, 0.8)), rng) is None
    assert function.generate_for(case(name, (True, True), (0.9, 0.8)), rng) is not None


def test_never_where_nothing_was_judged() -> None:
    for name in SOFT:
        rng = random.Random(0)
        assert REGISTRY[name].generate(A.text, True, rng) is None
        of_another = replace(case(name, (True, False), (0.9, 0.1)), judgements={A.digest: {name: 0.9}})
        assert REGISTRY[name].generate_for(of_another, rng) is None


def test_a_text_that_was_not_judged() -> None:
    instruction = REGISTRY["formal_tone"].generate_for(case("formal_tone", (True, False), (0.9, 0.1)), random.Random(0))
    assert instruction is not None
    for text in ("", A.text + " "):
        with pytest.raises(UserError, match=r"formal_tone.*never judged.*formal tone\?"):
            instruction.check(text)


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"use": True},
        {"use": "yes", "judged": {}},
        {"use": True, "judged": ["a"]},
        {"use": True, "judged": {"a": 1.5}},
        {"use": True, "judged": {"a": float("nan")}},
        {"use": True, "judged": {"a": "0.5"}},
        {"use": True, "judged": {}, "more": 1},
    ],
)
def test_arguments_that_are_not_ours(args: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"formal_tone.*not valid for this function"):
        Instruction.from_record(InstructionRecord("formal_tone", "x", args))


@pytest.mark.parametrize(
    ("a", "b", "together"),
    [
        ("formal_tone", "informal_tone", False),
        ("for_a_child", "for_an_expert", False),
        ("neutral_tone", "persuasive", False),
        ("neutral_tone", "friendly_tone", False),
        ("formal_tone", "for_a_child", True),
    ],
)
def test_contradictory_ones_never_meet(a: str, b: str, together: bool) -> None:
    one, two = (Instruction(name, REGISTRY[name].family, {"use": True, "judged": {}}, "x") for name in (a, b))
    assert compatible(one, two) == compatible(two, one) == together
