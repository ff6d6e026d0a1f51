"""The rules of single functions, each on literal text: what counts, and what does not."""

import re

import pytest

from mapl_ray.instructions import REGISTRY, Features


def holds(name: str, text: str, **args: object) -> bool:
    return REGISTRY[name].check(Features(text), args)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("table_use", "| a | b |\n|---|:-:|\n| 1 | 2 |", True),
        ("table_use", "a | b\n--- | ---\n1 | 2", True),
        ("table_use", "---\na | b", False),  # a rule, and a sign
        ("table_use", "```\n|---|---|\n```", False),  # code
        ("link_use", "See https://example.org.", True),
        ("link_use", "See www.example.org", True),
        ("link_use", "See [here](page.html).", True),
        ("link_use", "The www. is a [b] (c) web", False),
        ("inline_code_use", "Call `run`.", True),
        ("inline_code_use", "```\n`run`\n```", False),
        ("year_use", "In 1987.", True),
        ("year_use", "In 1,987 or 19870 or 2100 or 1999% or 0.1987", False),
        ("percentage_use", "It is 40 percent.", True),
        ("percentage_use", "It is 7%.", True),
        ("percentage_use", "Forty percent.", False),  # in words
        ("emoji_use", "Good \U0001f642", True),
        ("emoji_use", "Good :) 3\u20e3", False),  # a digit in a frame is a digit
        ("repeated_start_use", "We came. We saw.", True),
        ("repeated_start_use", "We came. They saw. We left.", False),
        ("first_person_plural_use", "OUR house", True),
        ("first_person_plural_use", "In the US", False),
        ("third_person_use", "Hers it is", True),
        ("ascii_use", "plain", True),
        ("ascii_use", "it\u2019s", False),
    ],
)
def test_presence(name: str, text: str, expected: bool) -> None:
    assert holds(name, text, use=True) == expected
    assert holds(name, text, use=False) != expected


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("question_count", 'Why? He asked "How?" And then.', 2),
        ("line_count", "a\n\n  \r\nb", 2),
        ("long_word_count", "photosynthesis internationally tenletters", 3),
        ("most_frequent_word", "Stone by stone by STONE by by by", 3),  # of five letters or more
        ("words_per_sentence", "One two three. Four.", 2),
        ("words_per_paragraph", "One two\n\nthree", 2),  # 1.5, rounded
        ("long_word_share", "morning sun", 50),
    ],
)
def test_counts(name: str, text: str, value: int) -> None:
    assert holds(name, text, direction="at least", n=value)
    assert holds(name, text, direction="at most", n=value)
    assert not holds(name, text, direction="at least", n=value + 1)
    assert not holds(name, text, direction="at most", n=value - 1)


def test_places_and_ends() -> None:
    assert holds("nth_word", "**Don't** go, there's rain", n=3, word="There's")
    assert not holds("nth_word", "One two", n=3, word="two")
    assert holds("exact_ending", 'So it ends "here, my friend!" \n', phrase="HERE, my friend!")
    assert not holds("exact_ending", "here, my friend", phrase="here, my friend!")
    assert holds("ending_phrase", "here, my friend! **", phrase="My Friend")
    assert holds("first_word_not", "The end", word="a")
    assert not holds("first_word_not", "**The** end", word="the")
    assert holds("bullet_exact", "no list", n=0)
    assert not holds("bullet_exact", "- a\n- b", n=1)


# What IFEval searches, here found in linear time.
@pytest.mark.parametrize(
    "text",
    [
        "[a] [b][c",
        "[[a]] ]",
        "[\n]",
        "[a\n] [b]",
        "<<a>>",
        "<<>>>",
        ">> <<",
        "<<<>>> x",
        "<< b >> <<",
        "<< b\n>>",
        "<<a>> <<>>",
    ],
)
def test_placeholders_and_titles_as_searched(text: str) -> None:
    padded = text + " [x] [y]"
    assert holds("placeholders", padded) == (len(re.findall(r"\[.*?\]", padded)) >= 3)
    titles = re.findall(r"<<[^\n]+>>", text)
    assert holds("marked_title", text) == any(title.lstrip("<").rstrip(">").strip() for title in titles)
