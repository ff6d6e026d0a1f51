"""Letter case."""

from __future__ import annotations

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import COUNT_TEMPLATES, count_function

_FAMILY = "case"

capital_word_count = count_function(
    "capital_word_count",
    _FAMILY,
    lambda text: rules.capital_words(text.words),
    (
        "word written entirely in capital letters (two letters or longer)",
        "words written entirely in capital letters (two letters or longer)",
    ),
    COUNT_TEMPLATES,
    quantity="capital_words",
    size=True,
)

capitalized_word_count = count_function(
    "capitalized_word_count",
    _FAMILY,
    lambda text: sum(word[0].isupper() for word in text.words),
    ("word that starts with a capital letter", "words that start with a capital letter"),
    COUNT_TEMPLATES,
    quantity="capital_words",
    size=True,
)
