"""Person: who speaks, and to whom."""

from __future__ import annotations

from mapl_ray.instructions.builders import presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.wordings import persons

_FAMILY = "address"
_FIRST_PERSON = ("i", "me", "my", "mine", "myself")
_FIRST_PLURAL = ("we", "our", "ours", "ourselves")  # not "us": the USA would be one of us
_SECOND_PERSON = ("you", "your", "yours", "yourself", "yourselves")
_THIRD_PERSON = ("he", "him", "his", "she", "her", "hers")


# Not mapped to IFEval's forbidden words: its search ends a word at a combining mark, and finds "me" in "me\u0301".
def _any_of(words: tuple[str, ...], text: Features) -> bool:
    return any(word in text.word_counts for word in words)


first_person_use = presence_function(
    "first_person_use",
    _FAMILY,
    lambda text: _any_of(_FIRST_PERSON, text),
    persons.first_person(_FIRST_PERSON),
)

second_person_use = presence_function(
    "second_person_use",
    _FAMILY,
    lambda text: _any_of(_SECOND_PERSON, text),
    persons.second_person(_SECOND_PERSON),
)

first_person_plural_use = presence_function(
    "first_person_plural_use",
    _FAMILY,
    lambda text: _any_of(_FIRST_PLURAL, text),
    persons.first_person_plural(_FIRST_PLURAL),
)

third_person_use = presence_function(
    "third_person_use",
    _FAMILY,
    lambda text: _any_of(_THIRD_PERSON, text),
    persons.third_person(_THIRD_PERSON),
)
