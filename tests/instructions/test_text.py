"""The counting rules, each on literal text."""

import time

import pytest

from mapl_ray.instructions import blocks
from mapl_ray.instructions import text as rules
from mapl_ray.instructions.features import Features


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("don't", ["don", "t"]),  # as IFEval counts
        ("well-known 3.5", ["well", "known", "3", "5"]),
        ("naïve café", ["naïve", "café"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert rules.words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("One. Two! Three?", 3),
        ("Dr. Smith paid 3.50 dollars, e.g. to Mr. Jones.", 1),  # abbreviations, decimal
        ("J. R. R. Tolkien wrote it. I did not.", 2),  # initials
        ("Wait... what? Yahoo! is a name.", 2),  # a small letter follows: "Wait... what?", "Yahoo! is a name."
        ('He said "Go." Then he left.', 2),  # the quote closes with the sentence
        ("no full stop at all", 1),
        ("# Title\n\nBody text.", 1),  # headings are no sentences
        ("Items:\n- first\n- second one. And more.", 4),  # "Items:", "first", "second one.", "And more."
        ("1. first\n2. second", 2),  # the number's point ends nothing
        ("Run this:\n```\na. B. C.\n```\nDone.", 2),  # code is none
        ("A line\nthat goes on.", 1),  # a line break alone ends nothing
        ("今天天气很好。我们去公园。", 2),
    ],
)
def test_sentences(text: str, expected: int) -> None:
    assert len(Features(text).sentences) == expected


@pytest.mark.parametrize(
    ("text", "paragraphs", "bullets", "numbered"),
    [
        ("", 0, 0, 0),
        ("a\n\nb\r\n\r\nc", 3, 0, 0),
        ("\n\n  \na\nb\n \nc\n\n", 2, 0, 0),
        ("- a\n  * b\n• c\n+ d", 1, 4, 0),
        ("* * *\n- - -\n---\n**bold** text", 1, 0, 0),  # rules and bold are no bullets
        ("1. a\n2) b\nStep 3: c\n2024 was", 1, 0, 3),
        ("```\n- a\n1. b\n```", 1, 0, 0),  # code
        ("-a\n1.5 kg", 1, 0, 0),  # no white space after the marker
    ],
)
def test_blocks(text: str, paragraphs: int, bullets: int, numbered: int) -> None:
    lines = Features(text).prose_lines
    assert len(Features(text).paragraphs) == paragraphs
    assert blocks.bullet_items(lines) == bullets
    assert blocks.numbered_items(lines) == numbered


def test_numbers_headings_bold_and_capitals() -> None:
    # 1,000 / 3.5 / 2nd: three; the list number and the digit inside B2B count for nothing
    assert rules.numbers(["1. It cost 1,000 for 3.5 kg, the 2nd B2B deal"]) == 3
    assert blocks.headings(["# A", "####### seven", "#tag", "   ## B"]) == 2
    assert rules.bold_parts(["**a** and __b__ but not ** c ** nor snake__case__x"]) == 2
    assert rules.capital_words(rules.words("NASA and I saw B2B in the USA")) == 2


@pytest.mark.parametrize(
    ("text", "first", "last", "mark"),
    [
        ("", None, None, ""),
        ("...!", None, None, "!"),
        ('**"Hello"**, it\'s over.”', "Hello", "over", "."),
        ("It\u2019s done *now!*", "It's", "now", "!"),
        ("well-known end" + " " * 300, "well-known", "end", "d"),
        ("word" + "." * 300, "word", "word", "."),
    ],
)
def test_start_and_end(text: str, first: str | None, last: str | None, mark: str) -> None:
    assert (rules.first_spelled(text), rules.last_spelled(text), rules.mark_at_end(text)) == (first, last, mark)


def test_keywords_are_written_as_a_person_would() -> None:
    found = Features("However, we met in Paris. NASA doesn't well-known Rivers rivers. 我们今天去公园玩").content_words
    # No stop words, nothing joined by apostrophe or hyphen, no run of unspaced script; the small form where it occurs.
    assert found == {"paris": "Paris", "nasa": "NASA", "rivers": "rivers"}


def test_whole_words_in_any_script() -> None:
    text = Features("Art starts apart; ART. K\u0131n straße STRASSE Cafe\u0301")
    assert text.count_word("art") == 2
    assert text.count_word("strasse") == 1  # ASCII words go by IGNORECASE, as IFEval does
    assert text.count_word("straße") == 2  # others by case folding
    assert text.count_word("café") == 1  # composed and decomposed are one


@pytest.mark.parametrize(
    "unit", ["*", "\n", " ", "'", ".", ". ", "a", "a-", "1,", "- ", "**a", "__", "`", "!?", "(", "字", "a. B", "\u200b"]
)
def test_enormous_text_is_linear(unit: str) -> None:
    text = Features(unit * (400_000 // len(unit)))
    start = time.process_time()
    _ = text.sentences, text.paragraphs, text.content_words, text.first_word, text.last_word, text.ending_mark
    _ = rules.numbers(text.lines), rules.bold_parts(text.prose_lines), blocks.bullet_items(text.prose_lines)
    # Quadratic work on 400,000 signs would take hours.
    assert time.process_time() - start < 10
