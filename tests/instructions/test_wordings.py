"""How instructions are worded: enough ways, each direction its own, in correct English."""

import random
import re
from typing import Any

import pytest

from mapl_ray.data.records import InstructionRecord, PreferencePair, canonical_json
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY, Instruction

MIN_WORDINGS = 6
MAX_CHARS = 260  # with six keywords quoted
NUMBERS = (1, 2, 5, 120)
SIDES = {"use", "negated"}  # arguments that turn an instruction into its opposite
# What no sentence may have; the values that a person's text brings in are taken out first.
FAULTS = {
    "double punctuation": r"[.,;:!?]\s*[.,;:](?!\w)|\.\"\.|!\"\.|\?\"\.",
    "double or missing space": r"  |[,;:]\w",
    "unfilled field": r"[{}]",
    "plural for one": r"\b(?:1|one) (?:words|sentences|times|commas|paragraphs|letters|characters|lines|questions|"
    r"numbers|colons|parts|headings|bullet points|list items)\b",
    "singular for several": r"\b(?:[02-9]|\d\d+) (?:word|sentence|time|comma|paragraph|letter|character|line|"
    r"question(?! mark)|number|colon|part|heading|bullet point)\b",
    "fewer with less": r"\bless than\b|\bless\b",
    "fewer than one": r"fewer than (?:one|1)\b",
    "a plural verb for one": r"\b(?:one|1) (?:\w+ of your answer|of the words [^.]*?) (?:appear|begin|start|occur)\b",
    "a first one of some length": r"\ba (?:first|last) (?:sentence|paragraph) of\b",
    "a before a vowel": r"\ba (?:[aeio]|un(?!i))\w+|\ban (?:[bcdfgjklmnpqrstvwxyz])\w+",
    "a percentage of words": r"percent of|% of",
    "a command to include an upper bound": r"^(?:Include|Use|Write|Give) \S+ or (?:fewer|less)",
    "the same word twice": r"\b(\w+) \1\b",
}


@pytest.fixture(scope="module")
def drawn(pairs: list[PreferencePair]) -> dict[str, list[dict[str, Any]]]:
    """Arguments of every function, as real responses give them, and those numbers that are hard to word."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, function in REGISTRY.items():
        of_name = found.setdefault(name, {})
        if function.sides == "soft":
            of_name.update({str(use): {"use": use, "judged": {}} for use in (True, False)})
            continue
        for seed, pair in enumerate(pairs[:60]):
            rng = random.Random(seed)
            made = function.generate(
                pair.chosen, seed % 2 == 0, rng, other=pair.rejected, prompt=pair.prompt[-1].content
            )
            if made is None:
                continue
            args = dict(made.args)
            variants = [args]
            if "words" in args and len(args["words"]) > 2 and name != "some_of_words":
                variants += [{**args, "words": args["words"][:2]}]
            variants += [
                {**one, side: value} for one in variants for side in SIDES & set(one) for value in (True, False)
            ]
            if "direction" in args:
                variants += [{**args, "n": n, "direction": d} for n in NUMBERS for d in ("at least", "at most")]
                variants += [{**args, "n": 0, "direction": "at most"}]
            elif name.endswith("_exact"):
                variants += [{**args, "n": n} for n in (0, *NUMBERS)]
            for one in variants:
                of_name[canonical_json(one)] = one
    return {name: [*variants.values()] for name, variants in found.items()}


def without_values(text: str, args: dict[str, Any]) -> str:
    """The text, with a neutral word instead of every value that comes from a text."""
    values = [*args.get("words", ()), *(args[key] for key in ("word", "phrase", "letter") if key in args)]
    for value in values:
        text = text.replace(f'"{value}"', '"x"')
    return text


def test_all_functions_are_looked_at_in_both_directions(drawn: dict[str, list[dict[str, Any]]]) -> None:
    assert drawn.keys() == REGISTRY.keys()
    for name, variants in drawn.items():
        assert variants, name
        for side in {*SIDES, "direction"} & variants[0].keys():
            assert len({args[side] for args in variants}) == 2, (name, side)


def test_every_function_has_six_wordings_a_direction(drawn: dict[str, list[dict[str, Any]]]) -> None:
    for name, variants in drawn.items():
        counts = {len(REGISTRY[name].phrasings(args)) for args in variants}
        assert len(counts) == 1, name  # as many for any arguments: an index says nothing about them
        assert counts.pop() >= MIN_WORDINGS, name


def test_wordings_are_correct_english(drawn: dict[str, list[dict[str, Any]]]) -> None:
    seen = 0
    for name, variants in drawn.items():
        for args in variants:
            if args.get("n") == 0 and len(set(REGISTRY[name].phrasings(args))) == 1:
                continue  # an empty answer is never asked for
            wordings = [*REGISTRY[name].phrasings(args)]
            assert len(set(wordings)) == len(wordings), (name, args)
            for text in wordings:
                seen += 1
                plain = without_values(text, args)
                assert not re.search(r"[.!?]\"[.,;:!?]", text), (name, text)  # a mark after a quoted one
                assert len(plain) <= MAX_CHARS, (name, text)
                assert text[0].isupper(), (name, text)
                assert text.endswith("."), (name, text)
                assert text[-2].isalnum() or text[-2] in "\"'`)]*>%", (name, text)
                for fault, pattern in FAULTS.items():
                    assert not re.search(pattern, plain), (name, fault, text)
    assert seen > 5_000


def test_directions_are_worded_apart(drawn: dict[str, list[dict[str, Any]]]) -> None:
    """An upper limit says so, and what is allowed to be missing is not commanded."""
    for name, variants in drawn.items():
        for args in variants:
            if args.get("direction") != "at most" or not args["n"]:
                continue
            upper = [*REGISTRY[name].phrasings(args)]
            lower = [*REGISTRY[name].phrasings({**args, "direction": "at least"})]
            assert set(upper).isdisjoint(lower)
            limit = (
                r"at most|no more than|not? .*more than|not? .*longer than|exceed|maximum|or fewer|[Ll]imit|more than"
            )
            for text in upper:
                assert re.search(limit, text), text
                assert not re.search(
                    r"at least(?! \w+ letters)|minimum|no fewer|(?<!seven )or more (?!letters)",
                    text.replace("ten or more", "").replace("five or more", ""),
                ), text


def test_what_is_asked_for_and_what_is_ruled_out_are_worded_apart(drawn: dict[str, list[dict[str, Any]]]) -> None:
    sides = [
        (name, args, side) for name, variants in drawn.items() for args in variants for side in SIDES & args.keys()
    ]
    assert len({name for name, _, _ in sides}) > 40
    for name, args, side in sides:
        wordings = [{*REGISTRY[name].phrasings({**args, side: value})} for value in (True, False)]
        assert wordings[0].isdisjoint(wordings[1]), (name, args)


@pytest.mark.parametrize("n", [1, 4, 50])
def test_wording_does_not_change_the_truth(n: int) -> None:
    """Every wording of "at least n" or "at most n" is about n itself: none says "over", "under" or "fewer than n"."""
    for name in ("word_count", "sentence_count", "bullet_count", "comma_count", "paragraph_count", "word_frequency"):
        for direction in ("at least", "at most"):
            args = {"direction": direction, "n": n, "word": "river"}
            for text in REGISTRY[name].phrasings(args):
                assert re.search(rf"\b{'one' if n == 1 else n}\b", text), text
                assert not re.search(r"\b(?:over|under|above|below)\b|(?<!no )\b(?:fewer|less) than", text), text
                assert len(re.findall(r"\bmore than\b", text)) <= (direction == "at most"), text


@pytest.mark.parametrize("phrase", ["Take the metro.", "Are you sure?", "Good luck!"])
def test_no_full_stop_follows_a_quoted_one(phrase: str) -> None:
    for text in REGISTRY["exact_ending"].phrasings({"phrase": phrase}):
        assert f'"{phrase}".' not in text
        assert f'"{phrase}" ' in text


@pytest.mark.parametrize("name", ["prompt_run", "unique_share", "longest_line", "capitalized_word_count"])
def test_functions_that_were_removed_are_named_in_the_error(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*was removed.*mapl synthesize"):
        Instruction.from_record(InstructionRecord(name, "x", {"direction": "at least", "n": 5}))
