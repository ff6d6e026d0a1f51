"""Instructions of one prompt fit together: over thousands of prompts of real pairs, and not by `compatible` alone."""

from itertools import combinations
from pathlib import Path

import pytest

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.instructions import REGISTRY, Instruction, compatible
from mapl_ray.instructions.features import fold
from mapl_ray.preferences import read_pairs
from mapl_ray.records import PreferencePair, RelationGroup
from mapl_ray.synthesis import synthesize

FILES = ("alpaca_eval_pairs.jsonl.gz", "hh_harmless_base_test.jsonl.gz")
PAIRS = 500  # of a file
# What an instruction asks for word by word, and what it forbids altogether; written down here once more.
WANTED = {
    "include_word": "word", "all_of_words": "words", "word_order": "words", "first_word": "word", "last_word": "word",
    "nth_word": "word", "last_paragraph_start": "word", "exact_phrase": "phrase", "ending_phrase": "phrase",
    "exact_ending": "phrase", "first_sentence_word": "word", "last_sentence_word": "word", "prompt_word": "word",
}  # fmt: skip
FORBIDDEN = {"forbid_word": "word", "any_of_words": "words", "exact_phrase": "phrase", "prompt_word": "word"}
MARKS = {
    "comma_use": ",", "exclamation_mark_use": "!", "question_mark_use": "?", "colon_use": ":", "semicolon_use": ";",
    "quotation_mark_use": '"\u201c\u201d', "dash_use": "\u2013\u2014", "digit_use": "0123456789",
}  # fmt: skip


def _texts(instruction: Instruction, keys: dict[str, str]) -> list[str]:
    value = instruction.args[keys[instruction.name]]
    return [fold(one) for one in ([value] if isinstance(value, str) else value)]


def wanted(instructions: list[Instruction]) -> list[str]:
    asking = [i for i in instructions if i.name in WANTED and i.args.get("use", True)]
    return [text for i in asking for text in _texts(i, WANTED)]


def forbidden(instructions: list[Instruction]) -> list[str]:
    barring = [i for i in instructions if i.name in FORBIDDEN and not i.args.get("use", False)]
    return [text for i in barring for text in _texts(i, FORBIDDEN)]


def prompts_of(path: Path, condition: str) -> list[tuple[list[Instruction], str]]:
    """(instructions, the response they were written for) of every instructed prompt."""
    found = [pair for pair in read_pairs(DataConfig(path=str(path))) if isinstance(pair, PreferencePair)]
    config = SynthesisConfig.model_validate({"condition": condition, "min_instructions": 2, "max_instructions": 5})
    groups = [synthesize(pair, config, 3) for pair in found[:: len(found) // PAIRS]]
    return [
        ([Instruction.from_record(record) for record in group.instructions[prompt]], group.responses[prompt - 1])
        for group in groups
        if isinstance(group, RelationGroup)
        for prompt in (1, 2)
    ]


@pytest.mark.parametrize("condition", ["all", "any"])
@pytest.mark.parametrize("file", FILES)
def test_instructions_of_one_prompt_fit(file: str, condition: str, shared_data: Path) -> None:
    prompts = prompts_of(shared_data / file, condition)
    assert len(prompts) >= 1.8 * PAIRS
    assert sum(bool(wanted(instructions)) for instructions, _ in prompts) >= 100
    for instructions, response in prompts:
        for a, b in combinations(instructions, 2):
            f, g = REGISTRY[a.name], REGISTRY[b.name]
            assert f.quantity != g.quantity, (a, b)
            assert f.quantity not in g.excludes, (a, b)
            assert g.quantity not in f.excludes, (a, b)
        avoided = [MARKS[i.name] for i in instructions if i.name in MARKS and not i.args["use"]]
        for text in wanted(instructions):
            assert not any(barred in text for barred in forbidden(instructions)), instructions
            assert not any(mark in text for marks in avoided for mark in marks), instructions
        verdicts = [instruction.check(response) for instruction in instructions]
        assert all(verdicts) if condition == "all" else any(verdicts)


def _instruction(name: str, **args: object) -> Instruction:
    return Instruction(name, REGISTRY[name].family, args, "x")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("exact_ending", {"phrase": "right, my friend!"}), ("comma_use", {"use": False})),
        (("exact_ending", {"phrase": "right, my friend!"}), ("first_person_use", {"use": False})),
        (("include_word", {"word": "photosynthesis"}), ("longest_word", {"direction": "at most", "n": 8})),
        (("include_word", {"word": "caf\u00e9"}), ("ascii_use", {"use": True})),
        (("all_of_words", {"words": ["river", "stone"], "use": True}), ("forbid_word", {"word": "stone"})),
        (("exact_phrase", {"phrase": "old stone", "use": True}), ("any_of_words", {"words": ["stone"], "use": False})),
        (("include_word", {"word": "stone"}), ("exact_phrase", {"phrase": "old stone", "use": False})),
        (("exact_ending", {"phrase": "in 40 days."}), ("number_exact", {"n": 0})),
        (("word_count", {"direction": "at most", "n": 90}), ("first_paragraph", {"direction": "at most", "n": 120})),
        (("word_count", {"direction": "at least", "n": 50}), ("last_sentence", {"direction": "at least", "n": 60})),
    ],
)
def test_never_together(one: tuple[str, dict[str, object]], other: tuple[str, dict[str, object]]) -> None:
    a, b = _instruction(one[0], **one[1]), _instruction(other[0], **other[1])
    assert not compatible(a, b)
    assert not compatible(b, a)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("exact_ending", {"phrase": "right, my friend!"}), ("comma_use", {"use": True})),
        (("exact_ending", {"phrase": "right, my friend!"}), ("comma_count", {"direction": "at most", "n": 4})),
        (("any_of_words", {"words": ["photosynthesis", "leaf"], "use": True}),
         ("longest_word", {"direction": "at most", "n": 8})),  # a leaf will do
        (("forbid_word", {"word": "photosynthesis"}), ("longest_word", {"direction": "at most", "n": 8})),
        (("word_count", {"direction": "at most", "n": 90}), ("first_paragraph", {"direction": "at most", "n": 40})),
        (("word_count", {"direction": "at most", "n": 90}), ("first_paragraph", {"direction": "at least", "n": 40})),
        (("include_word", {"word": "photosynthesis"}), ("long_word_share", {"direction": "at most", "n": 30})),
    ],
)  # fmt: skip
def test_may_meet(one: tuple[str, dict[str, object]], other: tuple[str, dict[str, object]]) -> None:
    a, b = _instruction(one[0], **one[1]), _instruction(other[0], **other[1])
    assert compatible(a, b)
    assert compatible(b, a)
