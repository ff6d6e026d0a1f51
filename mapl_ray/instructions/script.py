"""Characters that can be told with certainty: ASCII, emoji."""

from __future__ import annotations

import re

from mapl_ray.instructions.builders import presence_function

_FAMILY = "script"
# Pictographs, symbols shown as such, flags; not the digits and signs that Unicode lists among emoji.
_EMOJI = re.compile("[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b]")

ascii_use = presence_function(
    "ascii_use",
    _FAMILY,
    lambda text: text.ascii,
    (
        "Use plain ASCII characters only.",
        "Your response should not contain any character beyond ASCII.",
        "Write the whole answer in ASCII (no accents, no typographic quotes or dashes).",
        "Every character of the answer must be an ASCII character.",
    ),
    (
        "Use at least one character beyond plain ASCII.",
        "Your response should contain some character beyond ASCII.",
        "Do not write the whole answer in ASCII (use an accent, a typographic quote or dash).",
        "Not every character of the answer may be an ASCII character.",
    ),
    excludes=("emoji_use", "dash"),
)

emoji_use = presence_function(
    "emoji_use",
    _FAMILY,
    lambda text: not text.ascii and _EMOJI.search(text.text) is not None,
    (
        "Use at least one emoji.",
        "Your response should contain an emoji.",
        "Put one or more emoji into the answer.",
        "There must be at least one emoji in the answer.",
    ),
    (
        "Use no emoji.",
        "Your response should not contain any emoji.",
        "Put no emoji into the answer.",
        "There must not be a single emoji in the answer.",
    ),
)
