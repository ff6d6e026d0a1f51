"""Letter case."""

from __future__ import annotations

from mapl_ray.instructions import text as rules
from mapl_ray.instructions.builders import count_function
from mapl_ray.instructions.wordings import layout

_FAMILY = "case"

capital_word_count = count_function(
    "capital_word_count",
    _FAMILY,
    lambda text: rules.capital_words(text.words),
    layout.CAPITAL_WORDS,
    quantity="capital_words",
    size=True,
)
