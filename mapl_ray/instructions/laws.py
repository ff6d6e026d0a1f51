"""What one count implies for others: ten lines have at least ten words, the text "No, thanks" has a comma.

A law states that each unit of one count needs `factor` units of another. Some laws are stricter than necessary (three
characters per word, one sentence per paragraph), so that limits that only an odd text meets are not combined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from mapl_ray.instructions.requests import held_by
from mapl_ray.instructions.word_lists import PRONOUNS

# Count -> (needed count, number needed per unit).
_NEEDS: Mapping[str, tuple[tuple[str, int], ...]] = MappingProxyType({
    "word": (("character", 3),),
    "sentence": (("word", 2), ("prose", 1)),
    "paragraph": (("line", 1), ("sentence", 1)),
    "line": (("word", 1),),
    "bullet": (("list", 1),),
    "numbered": (("list", 1), ("digit", 1)),
    "list": (("line", 1), ("sentence", 1), ("markdown", 1)),
    "heading": (("line", 1), ("markdown", 1)),
    "bold": (("word", 1), ("markdown", 1)),
    "table": (("line", 3), ("word", 6), ("markdown", 1)),
    "code_block": (("line", 2), ("markdown", 1)),
    "inline_code": (("markdown", 1),),
    "link": (("markdown", 1),),
    "question": (("sentence", 1), ("question_mark", 1)),
    "longest_sentence": (("word", 1), ("prose", 1)),
    "first_sentence": (("longest_sentence", 1), ("first_paragraph", 1)),
    "last_sentence": (("longest_sentence", 1), ("last_paragraph", 1)),
    "words_per_sentence": (("longest_sentence", 1),),
    "first_paragraph": (("word", 1), ("prose", 1)),
    "last_paragraph": (("word", 1), ("prose", 1)),
    "words_per_paragraph": (("word", 1), ("prose", 1)),
    "repeated_start": (("sentence", 2),),
    "unique_word": (("word", 1),),
    "long_word": (("word", 1), ("character", 10)),
    "long_word_share": (("word", 1),),
    "capital_word": (("word", 1), ("capitals", 2)),
    "most_frequent_word": (("word", 1),),
    "longest_word": (("character", 1),),
    "number": (("word", 1), ("digit", 1)),
    "year": (("number", 1),),
    "percentage": (("number", 1),),
    "emoji": (("beyond_ascii", 1),),
    "dash": (("beyond_ascii", 1),),
    "in_quotation_marks": (("quotation_mark", 2), ("ending", 1)),
    "conjunction": (("word", 1),),
    "first_person": (("pronoun", 1),),
    "second_person": (("pronoun", 1),),
    "first_person_plural": (("pronoun", 1),),
    "third_person": (("pronoun", 1),),
    "pronoun": (("word", 1),),
    "all_capitals": (("capitals", 1), ("prose", 1)),
    "section": (("paragraph", 2), ("word", 4), ("digit", 1)),
    "json_only": (("quotation_mark", 2),),
    "two_responses": (("line", 3), ("prose", 1), ("word", 4)),
    "postscript": (("ending", 1), ("capitals", 2), ("word", 3), ("prose", 1)),
})  # fmt: skip
# Counts that do not grow when a text occurs twice instead of once.
_EXTREMES = frozenset(("longest_word", "longest_sentence"))
# Count -> counts that must be 0 if it is not.
EXCLUDES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "json_only": ("list", "heading", "table", "code_block", "request_repeated"),
    "in_quotation_marks": ("request_repeated",),
})  # fmt: skip
_MARKS: Mapping[str, str] = MappingProxyType({
    "comma": ",\uff0c", "exclamation_mark": "!\uff01", "question_mark": "?\uff1f", "colon": ":\uff1a",
    "semicolon": ";\uff1b", "bracket": "()", "quotation_mark": '"\u201c\u201d\u201e\u00ab\u00bb',
    "dash": "\u2013\u2014",
})  # fmt: skip
_WORD = re.compile(r"[^\W_]+")
_TOKEN = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
# Pronoun -> the groups it belongs to.
_GROUPS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType({
    word: tuple(group for group, members in PRONOUNS.items() if word in members)
    for word in {word for members in PRONOUNS.values() for word in members}
})  # fmt: skip
NEEDED_BY_WORDS = frozenset(
    ("word", "character", "longest_word", "most_frequent_word", "long_word", "pronoun", *PRONOUNS)
)
"""Counts that a word of ASCII letters may need, except letters and initials; see `_of_plain_word`."""
_NO_NEEDS: Mapping[str, int] = MappingProxyType({})


@lru_cache(maxsize=8192)
def needs(of: str) -> Mapping[str, int]:
    """Every count that one unit of `of` needs -> minimum number, including `of` itself."""
    if is_plain_word(of):
        return MappingProxyType({of: 1} | _of_plain_word(of[5:]))
    found = {of: 1}
    for other, factor in _direct(of).items():
        for name, number in needs(other).items() if other != of else ():
            if factor * number > found.get(name, 0):
                found[name] = factor * number
    return MappingProxyType(found)


def is_plain_word(of: str) -> bool:
    """Whether `of` names the occurrences of a word of ASCII letters."""
    return of.startswith("text:") and of[5:].isalpha() and of.isascii()


def least(of: str, low: int, target: str) -> int:
    """Minimum number of `target` if there are `low` of `of`."""
    factor = needs(of).get(target, 0) if low > 0 else 0
    return factor if target in _EXTREMES and ":" in of else factor * low


def _direct(name: str) -> Mapping[str, int]:
    kind, _, value = name.partition(":")
    if not value:
        return dict(_NEEDS.get(name, ()))
    if kind == "text":
        return _of_text(value)
    if kind == "request":
        return held_by(value)
    if kind == "initial":
        return {"word": 1, f"letter:{value}": 1}
    if kind == "letter":
        return {"character": 1}
    place, _, held = value.partition("=")
    if not held:  # a place without a value
        return _NO_NEEDS
    if kind == "in":
        return {f"text:{held}": 1, "prose": 1}
    return {f"at:{place}": 1} | _of_place(place, held) if kind == "at" else _NO_NEEDS


def _of_place(place: str, held: str) -> dict[str, int]:
    if place == "ending_mark":
        marks = {"?": "question_mark", "!": "exclamation_mark"}
        return {"ending": 1, "prose": 1} | ({marks[held]: 1} if held in marks else {})
    if place == "first_letter":
        return {"prose": 1}
    tokens = _TOKEN.findall(held)
    found = {f"text:{held}": 1, "prose": 1}
    if place == "first_word":
        found |= {f"at:first_letter={held[:1]}": 1, f"in:first_sentence={held}": 1}
    elif place in ("last_word", "ending"):
        found["ending"] = 1
        if tokens:
            found |= {f"at:last_word={tokens[-1]}": 1, f"in:last_sentence={tokens[-1]}": 1}
        if place == "ending" and held[-1:] in (".", "?", "!"):
            found[f"at:ending_mark={held[-1]}"] = 1
    elif place.startswith("word_"):
        found["word"] = int(place.removeprefix("word_"))
    elif place == "last_paragraph_start":
        found["paragraph"] = 2
    return found


def _of_plain_word(word: str) -> dict[str, int]:
    """All needs of a word of ASCII letters. Most named texts are such words, and this is faster than step by step."""
    found = {"word": 1, "character": max(3, len(word)), f"initial:{word[0]}": 1, "longest_word": len(word)}
    if len(word) > 4:
        found["most_frequent_word"] = 1
    if len(word) > 9:
        found["long_word"] = 1
    for letter in word:
        name = f"letter:{letter}"
        found[name] = found.get(name, 0) + 1
    for group in _GROUPS_OF.get(word, ()):
        found[group] = found["pronoun"] = 1
    return found


def _of_text(text: str) -> dict[str, int]:
    words = _WORD.findall(text)
    found = {"character": len(text), "word": len(words)}
    if words != [text]:
        found |= {f"text:{word}": 1 for word in {*words, *_TOKEN.findall(text)} if word != text}
    for name, signs in _MARKS.items():
        if count := sum(map(text.count, signs)):
            found[name] = count
    for word in words:
        initial = f"initial:{word[0]}"
        found[initial] = found.get(initial, 0) + 1
        if word.isalpha():
            found["longest_word"] = max(found.get("longest_word", 0), len(word))
            if len(word) > 9:
                found["long_word"] = found.get("long_word", 0) + 1
            if len(word) > 4:
                found["most_frequent_word"] = 1
        elif word[0].isdigit():
            found["number"] = found.get("number", 0) + 1
        found |= dict.fromkeys(_GROUPS_OF.get(word, ()), 1)
    for letter in set(text):
        if letter.isalpha():
            found[f"letter:{letter}"] = text.count(letter)
        elif letter.isdigit():
            found["digit"] = 1
    if not text.isascii():
        found["beyond_ascii"] = 1
    return found
