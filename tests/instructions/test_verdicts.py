"""Verdicts are those of an ordinary reader, or undecided."""

import json
import random
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.instructions import REGISTRY, Features, Instruction, features_of
from mapl_ray.instructions.verdicts import Span, agreed, every, opposite, wanted


def verdict(name: str, text: str, **args: Any) -> bool | None:
    return Instruction(name, REGISTRY[name].family, args, "").verdict(text)


@cache
def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_readers_verdicts(shared_data: Path) -> None:
    rows = _rows(shared_data / "instruction_verdicts.jsonl")
    assert len(rows) >= 80
    found = [(row, verdict(row["function"], row["text"], **row["args"])) for row in rows]
    assert [row for row, said in found if said not in (None, row["reader"])] == []
    assert sum(said is not None for _, said in found) >= 35  # a verdict that is never decided would be no verdict


USE, AVOID = {"use": True}, {"use": False}


def least(n: int) -> dict[str, Any]:
    return {"direction": "at least", "n": n}


def most(n: int) -> dict[str, Any]:
    return {"direction": "at most", "n": n}


UNSPACED = (
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u73a9\u3002",  # Chinese
    "\u660e\u65e5\u306f\u53cb\u9054\u3068\u516c\u5712\u3078\u884c\u304d\u307e\u3059\u3002",  # Japanese
    "\u0e09\u0e31\u0e19\u0e44\u0e1b\u0e15\u0e25\u0e32\u0e14 \u0e41\u0e25\u0e49\u0e27\u0e01\u0e25\u0e31\u0e1a",  # Thai
    "\u1781\u17d2\u1789\u17bb\u17c6\u1791\u17c5\u1795\u17d2\u179f\u17b6\u179a",  # Khmer
)
OF_WORDS = (("word_count", most(500)), ("forbid_word", {"word": "tea"}), ("first_word", {"word": "A"}))


# What an ordinary reader says where it is plain, and None where two readers would differ.
@pytest.mark.parametrize(
    ("name", "args", "text", "expected"),
    [
        # Sentences
        ("sentence_count", least(2), "It rained. We stayed in.", True),
        ("sentence_count", most(1), "roses are red\nviolets are blue\nsugar is sweet", None),
        ("sentence_count", least(2), "Dear Ann\n14 Mill Lane\nLeeds", None),
        ("sentence_count", most(1), "See Fig. 3 of Smith et al. for more.", None),
        ("sentence_count", least(3), "यह एक घर है। वह लाल है। मैं वहाँ रहता हूँ।", True),
        ("sentence_count", least(2), "هذا بيت. هل تراه؟", True),
        ("question_count", least(1), "Tea, or coffee?", True),
        ("question_count", most(0), "See example.org/?q=tea for more.", None),
        ("longest_sentence", most(6), "Tea is hot. So is this soup.", True),
        ("last_sentence", most(3), "I went home. It was late (see p. 3).", None),
        ("repeated_start_use", USE, "We came. We saw.", True),
        ("first_sentence", most(5), "Bring these:\n- hot tea with milk\n- jam", None),
        ("longest_sentence", most(5), "We have:\n\n1. hot tea with milk\n2. jam", None),
        ("longest_sentence", most(5), "We have:\n\n1. Hot tea with milk.\n2. Some jam.", None),
        ("longest_sentence", most(5), "We have these.\n\n1. hot tea with milk\n2. jam and salt", True),
        ("last_sentence", least(5), "We have:\n- tea\n- jam\n- a loaf of bread", None),
        ("words_per_sentence", most(4), "We have:\n- hot tea\n- red jam\n- warm bread", None),
        ("first_sentence_word", {"word": "jam", **AVOID}, "Sure! Here is some jam.", None),
        ("first_sentence_word", {"word": "jam", **USE}, "Sure! Here is some jam.", None),
        ("first_sentence_word", {"word": "jam", **AVOID}, "We have:\n- tea\n- jam", None),
        ("first_sentence_word", {"word": "Price", **USE}, "| Price | Size |\n|---|---|\n| 4 | 2 |", None),
        # One-sided
        ("json_only", {}, '"Just do it"', None),
        ("json_only", {}, '{"a": [1, null]}', True),
        ("json_only", {}, "[NaN]", None),
        ("json_only", {}, '```json\n{"a": 1}\n```', None),
        ("placeholders", {}, "As shown [1], [2] and [3].", None),
        ("placeholders", AVOID, "Dear [name], we wait.", None),
        ("placeholders", AVOID, "Dear Ann, we wait.", True),
        ("placeholders", {}, "Dear [name], meet me at [place] on [date].", True),
        ("placeholders", {}, "[here](a.html) [there](b.html) [where](c.html)", None),
        ("in_quotation_marks", {}, '"Yes," she said, "and no."', None),
        ("in_quotation_marks", {}, '"All of it."', True),
        ("marked_title", {}, "<<On tea>>\n\nTea is hot.", True),
        ("marked_title", {}, "std::cout << a << (b >> 2);", None),
        # Lists
        ("numbered_count", least(2), "a) tea\nb) jam", None),
        ("numbered_count", least(2), "### 1. Tea\n\n### 2. Jam", None),
        ("list_use", AVOID, "Tea is hot. Jam is sweet.", True),
        ("list_use", USE, "- tea\n- jam", True),
        ("list_use", AVOID, "Bring 1) tea and 2) jam.", None),
        ("bullet_count", most(1), "-tea\n-jam\n-salt", None),
        ("bullet_exact", {"n": 3}, "- tea\n- jam\n- salt", True),
        ("bullet_exact", {"n": 0}, "1. tea\n2. jam", None),
        ("bullet_count", most(1), "1. tea\n2. jam\n3. salt", None),
        ("numbered_count", most(0), "- tea\n- jam", True),
        ("bullet_exact", {"n": 2}, "- tea\n    - green\n- jam", None),
        ("number_exact", {"n": 0}, "Step 1: Boil. Step 2: Wait.", None),
        # Persons
        ("first_person_use", USE, "I think so.", True),
        ("first_person_use", AVOID, "Notes for Elizabeth I and part I.", None),
        ("first_person_use", AVOID, "for i in range(3): print(i)", None),
        ("first_person_use", AVOID, "A coal mine closed.", None),
        ("first_person_plural_use", AVOID, "Let's go: it helps us.", None),
        ("third_person_use", AVOID, "The queen herself came.", None),
        ("third_person_use", USE, "She's here.", True),
        ("second_person_use", USE, "You're right.", True),
        # Code
        ("code_block_use", USE, "```py\nx = 1\n```", True),
        ("code_block_use", USE, "```x = 1```", None),
        ("code_block_use", USE, "Look:\n```\nx = 1", None),
        ("bold_use", AVOID, "Write `a ** b ** c` here.", None),
        ("bold_use", USE, "A **bold** word.", True),
        ("bullet_exact", {"n": 0}, "~~~\n- a\n~~~", True),
        # Words
        ("word_count", least(7), "He said well-known things aren't so.", None),
        ("word_count", least(6), "He said that such things are so.", True),
        ("word_count", most(4), "Fill in: ____ and ____.", None),
        ("last_word", {"word": "m"}, "Come at 5 p.m.", None),
        ("first_word", {"word": "C"}, "C++ is fast.", None),
        ("first_word", {"word": "Tea"}, "**Tea** is hot.", True),
        ("first_word", {"word": "Tea"}, "1. Tea", None),
        ("nth_word", {"n": 3, "word": "In"}, "(Verse 1) In the valley", None),
        ("nth_word", {"n": 3, "word": "walk"}, "We all walk 2 miles", True),
        ("nth_word", {"n": 2, "word": "rooms"}, "Our 3 rooms", None),
        ("word_order", {"words": ["tea", "jam"]}, "Jam and tea and jam.", None),
        ("word_order", {"words": ["tea", "jam"]}, "Jam and tea.", False),
        ("word_order", {"words": ["tea", "jam"]}, "Tea and jam and tea.", True),
        ("word_order", {"words": ["tea", "jam"]}, "Jam, _tea_ and teas\u2019", None),
        ("ending_mark", {"mark": ".", "negated": False}, "He said “yes.”", None),
        ("ending_mark", {"mark": ".", "negated": False}, "All done.", True),
        ("capital_word_count", least(1), "It is part IV of it.", None),
        ("long_word_count", most(0), "see https://example.org/internationalization", None),
        # Scripts without spaces: nothing is said of words
        *((name, args, text, None) for text in UNSPACED for name, args in OF_WORDS),
        ("comma_use", AVOID, "苹果、梨", None),
        ("character_count", most(5), unicodedata.normalize("NFD", "éàüöè"), None),
        # Signs
        ("emoji_use", AVOID, "Done ✓ ★ ➜", None),
        ("emoji_use", USE, "Done ✅", True),
        ("emoji_use", USE, "Soon ⏰", True),
        ("link_use", AVOID, "Mail me at ann@example.org.", None),
        ("link_use", AVOID, "No address here.", True),
        ("year_use", USE, "It closed in 1987.", True),
        ("year_use", AVOID, "It sends 1200 bits and costs $1500.", None),
        ("year_use", AVOID, "It costs 15 dollars.", True),
        ("heading_use", AVOID, "Title\n=====\nText.", None),
        ("paragraph_exact", {"n": 1}, "# Title\n\nText here.", None),
        ("paragraph_exact", {"n": 2}, "One here.\n\nTwo here.", True),
        ("paragraph_exact", {"n": 3}, "Dear Ann,\n\nWe came home.\n\nKind regards,\nBob", None),
        ("paragraph_exact", {"n": 1}, "Dear Ann,\n\nWe came home.\n\nSincerely,\n\nBob Hill", None),
        ("paragraph_exact", {"n": 2}, "[Your Name]\n\nWe came home.", None),
        ("paragraph_exact", {"n": 2}, "Best of all, it rained.\n\nTo be sure, we stayed in.", True),
        ("first_paragraph", least(5), "Dear Ann,\n\nWe came home late last night.", None),
        ("first_paragraph", least(5), "Bring these:\n- hot tea\n- jam\n- salt and bread", None),
        ("words_per_paragraph", least(5), "Hot tea\n\nWe came home late last night.", None),
        ("words_per_paragraph", least(5), "Bring these:\n- hot tea\n- jam\n- salt and bread", None),
        ("words_per_paragraph", most(5), "Bring these:\n- hot tea\n- jam\n- salt and bread", None),
        ("table_use", AVOID, "a | b | c\n1 | 2 | 3", None),
        ("table_use", USE, "| a | b |\n|---|---|\n| 1 | 2 |", True),
        ("percentage_use", AVOID, "x = 5 % 3", None),
        ("comma_use", USE, "It costs 1,000.", None),
        ("colon_use", AVOID, "Come at 10:30.", None),
        ("exclamation_mark_use", AVOID, "if (a != b)", None),
        # Phrases and keywords
        ("exact_phrase", {"phrase": "m sorry", "use": True}, "I'm sorry.", None),
        ("exact_phrase", {"phrase": "hot tea", "use": True}, "I like hot tea.", True),
        ("exact_phrase", {"phrase": "tea jam", "use": True}, "- tea\n- jam", None),
        ("ending_phrase", {"phrase": "late now"}, "It was late. Now", None),
        ("exact_ending", {"phrase": "m late."}, "I'm late.", None),
        ("forbid_word", {"word": "tea"}, "Two teas, please.", None),
        ("include_word", {"word": "tea"}, "A tea-time treat.", None),
        ("include_word", {"word": "tea"}, "Hot tea, please.", True),
    ],
)  # fmt: skip
def test_kinds_that_readers_differ_on(name: str, args: dict[str, Any], text: str, expected: bool | None) -> None:
    assert verdict(name, text, **args) is expected


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_normal_forms_are_one_text(form: str) -> None:
    text = unicodedata.normalize(form, "Un café très chaud. Voilà l\u2019été, naïve!")
    assert verdict("include_word", text, word="café") is True
    assert verdict("forbid_word", text, word="naïve") is False
    assert verdict("exact_phrase", text, phrase="café très", use=True) is True
    assert verdict("sentence_count", text, **most(3)) is True


def test_nothing_is_written_of_words_where_there_are_no_spaces() -> None:
    rng = random.Random(0)
    for text in UNSPACED:
        for function in REGISTRY.values():
            if function.spaced:
                assert function.generate(text, True, rng, other="Tea is hot.", prompt="Tea?") is None
        assert REGISTRY["character_count"].generate(text * 9, True, rng) is not None


def test_spans_and_verdicts() -> None:
    span = Span.over(4, Span(2, 3))
    assert span == (2, 4)
    assert [span.at_least(n) for n in (2, 3, 5)] == [True, None, False]
    assert [span.at_most(n) for n in (4, 3, 1)] == [True, None, False]
    assert [span.within(*ends) for ends in ((2, 4), (3, 9), (5, 9))] == [True, None, False]
    assert [agreed([True, True]), agreed([True, False]), agreed([None])] == [True, None, None]
    assert [every([True, None]), every([None, False])] == [None, False]
    assert [opposite(None), opposite(True), wanted(False, False)] == [None, False, True]


def test_a_reading_that_denies_the_documented_one_leaves_it_undecided() -> None:
    text = features_of("U.S. troops left.")
    function = REGISTRY["first_word"]
    assert function.check(text, {"word": "U"})
    assert function.verdict(text, {"word": "U"}) is None
    assert function.verdict(Features("You left."), {"word": "You"}) is True
