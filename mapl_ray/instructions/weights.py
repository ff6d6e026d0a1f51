"""Weights for drawing functions within a family, and families.

Weights follow demand: the kinds in IFEval and IFBench, and phrases in real prompts (docs/instructions.md has the
counts). 1 stands for occasional requests; rarely requested functions have small weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FAMILY_WEIGHTS: Mapping[str, float] = MappingProxyType({
    "keywords": 2.0,
    "length": 2.0,
    "format": 1.5,
    "lists": 1.5,
    "paragraphs": 1.2,
    "punctuation": 1.5,
    "sentences": 1.5,
    "start_end": 1.2,
    "address": 0.8,
    "case": 0.8,
    "copying": 0.5,
    "lines": 0.5,
    "numbers": 0.8,
    "position": 0.8,
    "ratios": 0.3,
    "script": 0.8,
    "vocabulary": 0.7,
})  # fmt: skip

WEIGHTS: Mapping[str, float] = MappingProxyType({
    # length, paragraphs, lines
    "word_count": 3.0, "word_count_between": 1.5, "character_count": 0.6, "paragraph_count": 1.5,
    "paragraph_exact": 2.0,
    "first_paragraph": 0.4, "last_paragraph": 0.4, "last_paragraph_start": 0.3,
    # sentences
    "sentence_count": 4.0, "longest_sentence": 0.8, "first_sentence": 0.4, "last_sentence": 0.4,
    "repeated_start_use": 0.3,
    # lists and format
    "bullet_exact": 1.5, "bullet_count": 1.5, "bold_count": 1.2, "inline_code_use": 0.4, "ascii_use": 0.2,
    # keywords and vocabulary
    "forbid_word": 2.0, "include_word": 2.0, "word_frequency": 1.5, "all_of_words": 1.5, "some_of_words": 0.6,
    "letter_count": 3.0, "unique_word_count": 0.6, "long_word_count": 0.3, "longest_word": 0.3, "initial_count": 0.5,
    "most_frequent_word": 0.1, "long_word_share": 0.02,
    # punctuation and numbers
    "comma_use": 4.0, "comma_count": 0.6, "colon_count": 0.2, "question_mark_count": 0.4, "exclamation_mark_count": 0.4,
    "colon_use": 0.5, "bracket_use": 0.7, "dash_use": 0.7, "number_exact": 0.8, "number_count": 0.8,
    # start and end
    "exact_ending": 2.0, "first_word_not": 0.5, "first_letter": 0.5,
    # what ordinary text does not do
    "all_small_letters": 0.5, "json_only": 0.3, "marked_title": 0.3, "placeholders": 0.3, "in_quotation_marks": 0.4,
    "postscript_use": 0.4, "two_responses_use": 0.2, "section_use": 0.2, "all_capitals_use": 0.3, "english_use": 0.6,
    "request_repeated": 0.6, "pronoun_count": 0.3,
})  # fmt: skip


def weight_of(name: str) -> float:
    """The weight of a function within its family; 1 for an unlisted function, such as a user's own."""
    return WEIGHTS.get(name, 1.0)


def family_weight(family: str) -> float:
    """The weight of a family; 1 for an unlisted family."""
    return FAMILY_WEIGHTS.get(family, 1.0)
