"""Characters that can be told with certainty: ASCII, emoji."""

from __future__ import annotations

import re

from mapl_ray.instructions.builders import presence_function
from mapl_ray.instructions.wordings import persons

_FAMILY = "script"
# Pictographs, symbols shown as such, flags; not the digits and signs that Unicode lists among emoji.
_EMOJI = re.compile("[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b]")

ascii_use = presence_function(
    "ascii_use",
    _FAMILY,
    lambda text: text.ascii,
    persons.ASCII_USE,
    excludes=("emoji_use", "dash"),
)

emoji_use = presence_function(
    "emoji_use",
    _FAMILY,
    lambda text: not text.ascii and _EMOJI.search(text.text) is not None,
    persons.EMOJI_USE,
)
