"""Instructions on the nth word of the response."""

from __future__ import annotations

import random

from mapl_ray.instructions.claims import stands
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.phrasing import fill, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.start_end import usable
from mapl_ray.instructions.text import first_words
from mapl_ray.instructions.tokens import folded, opening_readings
from mapl_ray.instructions.types import Args, Case
from mapl_ray.instructions.verdicts import Verdict, agreed
from mapl_ray.instructions.wordings import places

_FAMILY = "position"
_ORDINALS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")  # from place 2


def _opening(text: Features) -> list[str]:
    return text.measure("opening_words", lambda text: first_words(text.text, len(_ORDINALS) + 1))


def _is_at(text: Features, place: int, word: str) -> bool:
    words = _opening(text)
    return 2 <= place <= len(words) and fold(words[place - 1]) == fold(word)


def _surely_at(text: Features, place: int, word: str) -> Verdict:
    readings = text.measure("openings", lambda text: opening_readings(text.text, len(_ORDINALS) + 1))
    return agreed(words[place - 1 : place] == [folded(word)] for words in readings)


@instruction_function(
    family=_FAMILY,
    claims=lambda args: stands(f"word_{args['n']}", args["word"]),
    check=lambda text, args: _is_at(text, args["n"], args["word"]),
    readings=lambda text, args: _surely_at(text, args["n"], args["word"]),
    spaced=True,
    phrasings=lambda args: fill(places.NTH_WORD, place=_ORDINALS[args["n"] - 2], word=quoted(args["word"])),
)
def nth_word(case: Case, rng: random.Random) -> Args | None:
    """Draw the second to tenth word of the response: a text's word at that place, or at a neighboring one."""
    sources = case.satisfied[:1] or [*case.context, *case.violated]
    places = [
        (place, words[at - 1])
        for words in map(_opening, sources)
        for at in range(2, len(words) + 1)
        for place in ((at,) if case.satisfied else (at, at + 1, at - 1))
        if 2 <= place <= len(_ORDINALS) + 1 and usable(words[at - 1])
    ]
    for place, word in rng.sample(places, len(places)):
        if all(_surely_at(text, place, word) is flag for text, flag in case.flags):
            return {"n": place, "word": word}
    return None
