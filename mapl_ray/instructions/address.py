"""Instructions on grammatical person: first, second and third person."""

from __future__ import annotations

import re
from collections.abc import Callable

from mapl_ray.instructions.builders import presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.verdicts import Verdict
from mapl_ray.instructions.word_lists import PRONOUNS
from mapl_ray.instructions.wordings import persons

_FAMILY = "address"
_FIRST_PERSON = PRONOUNS["first_person"]
_FIRST_PLURAL = PRONOUNS["first_person_plural"]
_SECOND_PERSON = PRONOUNS["second_person"]
_THIRD_PERSON = PRONOUNS["third_person"]


# Excludes words that some or all readers do not take for the first person: numerals ("World War I", "I."), "i.e.", a
# loop variable "i", a coal mine, the state ME.
_SURELY_FIRST = re.compile(
    r"\b(?:[Mm]yself|[Mm]y|me|MY)\b(?![\w.])|(?<![\w.*#] )(?<![\w.'])I(?:['\u2019](?:m|ve|ll|d)\b|,? [a-z]{2})|"
    r"\b(?:and|that|if|when|as|but|so|because|what|how|where|while|than|do|did|can|could|should|am|was|have|may) I\b"
    r"(?![.)])"
)
_LIKE_FIRST = ("im", "ive", "us", "we", "our")
_LIKE_PLURAL = ("us", "ourself", "let", "lets")
_LIKE_SECOND = ("u", "ya", "ye", "y", "thou", "thee", "thy", "youre", "youll", "youve", "yall")
_LIKE_THIRD = ("himself", "herself")


def _surely(words: tuple[str, ...], like: tuple[str, ...]) -> Callable[[Features], Verdict]:
    """True for one of the words by itself or in a contraction; None for a compound with it or a word of `like`."""
    clear = re.compile(rf"(?<![\w'\u2019\-\\/.@])(?:{'|'.join(words)})(?![\w\-/@]|\.\w)")

    def surely(text: Features) -> Verdict:
        if _any_of(words, text):
            return True if clear.search(text.text.casefold()) else None
        return None if _any_of(like, text) else False

    return surely


def _surely_first_person(text: Features) -> Verdict:
    if _any_of(_FIRST_PERSON, text):
        return True if _SURELY_FIRST.search(text.punctuated) else None
    return None if _any_of(_LIKE_FIRST, text) else False


# Not mapped to IFEval's forbidden words: its search ends a word at a combining mark, so it finds "me" in "me\u0301".
def _any_of(words: tuple[str, ...], text: Features) -> bool:
    return any(word in text.word_counts for word in words)


first_person_use = presence_function(
    "first_person_use",
    _FAMILY,
    lambda text: _any_of(_FIRST_PERSON, text),
    persons.first_person(_FIRST_PERSON),
    surely=_surely_first_person,
)

second_person_use = presence_function(
    "second_person_use",
    _FAMILY,
    lambda text: _any_of(_SECOND_PERSON, text),
    persons.second_person(_SECOND_PERSON),
    surely=_surely(_SECOND_PERSON, _LIKE_SECOND),
)

first_person_plural_use = presence_function(
    "first_person_plural_use",
    _FAMILY,
    lambda text: _any_of(_FIRST_PLURAL, text),
    persons.first_person_plural(_FIRST_PLURAL),
    surely=_surely(_FIRST_PLURAL, _LIKE_PLURAL),
)

third_person_use = presence_function(
    "third_person_use",
    _FAMILY,
    lambda text: _any_of(_THIRD_PERSON, text),
    persons.third_person(_THIRD_PERSON),
    surely=_surely(_THIRD_PERSON, _LIKE_THIRD),
)
