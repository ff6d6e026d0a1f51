"""`word_count_between` and IFBench's `count:word_count_range` come to the same verdict.

IFBench itself is not on PyPI; the package `if-verifiable` carries its checkers. It is not part of the project's
installation: the comparison runs where it is installed, the test of the mapping everywhere.
"""

import random
from typing import Any

import pytest

from mapl_ray.data.records import InstructionRecord, PreferencePair
from mapl_ray.instructions import REGISTRY, Instruction

NAME = "word_count_between"
ODD = (
    "",
    " ",
    "--",
    "A\u0301b",
    "\u5b57, \u5b57",
    "\u0939\u093f\u0928\u094d\u0926\u0940 " * 8,
    "don't, 3.5",
    "a_b\n\nc",
)
TRIALS = 10_000


def between(low: Any, high: Any) -> Instruction:
    return Instruction.from_record(InstructionRecord(NAME, "made up", {"low": low, "high": high}))


def test_the_range_is_handed_on() -> None:
    assert between(3, 7).to_ifeval() == ("count:word_count_range", {"min_words": 3, "max_words": 7})


@pytest.mark.parametrize(("low", "high"), [(-1, 7), (3, -7), (3.0, 7)])
def test_what_ifbench_would_draw_is_not_mapped(low: Any, high: Any) -> None:
    assert between(low, high).to_ifeval() is None


def test_verdicts_agree(pairs: list[PreferencePair]) -> None:
    registry = pytest.importorskip(
        "if_verifiable.ifbench.instructions_registry",
        reason="IFBench's checkers are not installed: pip install if-verifiable",
    )
    rng = random.Random(0)
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    trials = agreed = 0
    seen = set()
    while trials < TRIALS:
        text = rng.choice(texts)
        instruction = REGISTRY[NAME].generate(text, rng.random() < 0.5, rng, other=rng.choice(texts))
        if instruction is None:
            continue
        count = len(text.split())  # a range that is just met or missed by some of the texts
        edge = between(max(0, count - rng.randint(0, 2)), count + rng.randint(0, 20))
        for one in (instruction, edge):
            mapped = one.to_ifeval()
            assert mapped is not None
            kind, kwargs = mapped
            checker = registry.INSTRUCTION_DICT[kind](kind)
            checker.build_description(**kwargs)
            for response in (text, *rng.sample(texts, 6), *ODD):
                ours = one.check(response)
                agreed += ours == bool(checker.check_following(response))
                trials += 1
                seen.add(ours)
    assert agreed == trials
    assert seen == {True, False}
