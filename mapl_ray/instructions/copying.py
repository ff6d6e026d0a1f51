"""Instructions on repeating words of the prompt."""

from __future__ import annotations

import random

from mapl_ray.instructions.claims import absent, all_of, occurs, text_of
from mapl_ray.instructions.ifeval import forbidden_words
from mapl_ray.instructions.phrasing import quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.types import Args, Case
from mapl_ray.instructions.verdicts import agreed, wanted
from mapl_ray.instructions.wordings import words

_FAMILY = "copying"


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(*(occurs(args["word"]) if args["use"] else (absent(text_of(args["word"])),))),
    check=lambda text, args: (text.count_word(args["word"]) > 0) == bool(args["use"]),
    readings=lambda text, args: wanted(text.word_presence(args["word"]), bool(args["use"])),
    spaced=True,
    phrasings=lambda args: words.PROMPT_WORD.of(args, word=quoted(args["word"])),
    ifeval=lambda args: None if args["use"] else forbidden_words([args["word"]]),
)
def prompt_word(case: Case, rng: random.Random) -> Args | None:
    """Draw a content word of the prompt that must, or must not, occur in the response."""
    words = [] if case.prompt is None else [*case.prompt.content_words.values()]
    for word in rng.sample(words, len(words)):
        use = agreed(wanted(text.word_presence(word), flag) for text, flag in case.flags)
        if use is not None:
            return {"word": word, "use": use}
    return None
