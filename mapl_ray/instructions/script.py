"""Instructions on characters that can be identified with certainty: ASCII and emoji."""

from __future__ import annotations

from mapl_ray.instructions import signs
from mapl_ray.instructions.builders import presence_function
from mapl_ray.instructions.wordings import persons

_FAMILY = "script"

ascii_use = presence_function(
    "ascii_use",
    _FAMILY,
    lambda text: text.ascii,
    persons.ASCII_USE,
    quantity="beyond_ascii",
    absence=True,
)

emoji_use = presence_function(
    "emoji_use",
    _FAMILY,
    lambda text: signs.emoji(text.text),
    persons.EMOJI_USE,
    surely=lambda text: signs.surely_emoji(text.text),
)
