"""Person: who speaks, and to whom."""

from __future__ import annotations

from mapl_ray.instructions.builders import presence_function
from mapl_ray.instructions.features import Features

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
    (
        'Speak in the first person singular: use "I", "me", "my", "mine" or "myself" at least once.',
        'Your response should contain at least one of the words "I", "me", "my", "mine" and "myself".',
        'Use a first-person singular word ("I", "me", "my", "mine" or "myself") somewhere.',
        'At least one of "I", "me", "my", "mine" and "myself" must occur in the answer.',
    ),
    (
        'Do not speak in the first person singular: never use "I", "me", "my", "mine" or "myself".',
        'Your response should contain none of the words "I", "me", "my", "mine" and "myself".',
        'Use no first-person singular word ("I", "me", "my", "mine" or "myself") anywhere.',
        'None of "I", "me", "my", "mine" and "myself" may occur in the answer.',
    ),
)

second_person_use = presence_function(
    "second_person_use",
    _FAMILY,
    lambda text: _any_of(_SECOND_PERSON, text),
    (
        'Address the reader: use "you", "your", "yours", "yourself" or "yourselves" at least once.',
        'Your response should contain at least one of the words "you", "your", "yours", "yourself" and "yourselves".',
        'Use a second-person word ("you", "your", "yours", "yourself" or "yourselves") somewhere.',
        'At least one of "you", "your", "yours", "yourself" and "yourselves" must occur in the answer.',
    ),
    (
        'Do not address the reader: never use "you", "your", "yours", "yourself" or "yourselves".',
        'Your response should contain none of the words "you", "your", "yours", "yourself" and "yourselves".',
        'Use no second-person word ("you", "your", "yours", "yourself" or "yourselves") anywhere.',
        'None of "you", "your", "yours", "yourself" and "yourselves" may occur in the answer.',
    ),
)

first_person_plural_use = presence_function(
    "first_person_plural_use",
    _FAMILY,
    lambda text: _any_of(_FIRST_PLURAL, text),
    (
        'Speak as "we": use "we", "our", "ours" or "ourselves" at least once.',
        'Your response should contain at least one of the words "we", "our", "ours" and "ourselves".',
        'Use a word such as "we" or "our" ("ours" and "ourselves" count too) somewhere.',
        'At least one of "we", "our", "ours" and "ourselves" must occur in the answer.',
    ),
    (
        'Do not speak as "we": never use "we", "our", "ours" or "ourselves".',
        'Your response should contain none of the words "we", "our", "ours" and "ourselves".',
        'Use no word such as "we" or "our" ("ours" and "ourselves" count too) anywhere.',
        'None of "we", "our", "ours" and "ourselves" may occur in the answer.',
    ),
)

third_person_use = presence_function(
    "third_person_use",
    _FAMILY,
    lambda text: _any_of(_THIRD_PERSON, text),
    (
        'Use "he", "him", "his", "she", "her" or "hers" at least once.',
        'Your response should contain at least one of the words "he", "him", "his", "she", "her" and "hers".',
        'Use a pronoun for him or her ("he", "him", "his", "she", "her" or "hers") somewhere.',
        'At least one of "he", "him", "his", "she", "her" and "hers" must occur in the answer.',
    ),
    (
        'Never use "he", "him", "his", "she", "her" or "hers".',
        'Your response should contain none of the words "he", "him", "his", "she", "her" and "hers".',
        'Use no pronoun for him or her ("he", "him", "his", "she", "her" or "hers") anywhere.',
        'None of "he", "him", "his", "she", "her" and "hers" may occur in the answer.',
    ),
)
