"""Instructions on the exact characters that a response ends with."""

from __future__ import annotations

import random

from mapl_ray.instructions.claims import stands
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.phrasing import fill, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.types import Args, Case, IfEval
from mapl_ray.instructions.verdicts import Verdict
from mapl_ray.instructions.word_lists import ENDINGS
from mapl_ray.instructions.wordings import places

_MAX_CHARS = 60
_SPOILERS = frozenset('"\u201c\u201d\u201e\u00ab\u00bb\\`|*_<>{}[]#')  # characters that need escapes, or are markup


def _tail(text: Features) -> str:
    return text.measure("tail", lambda text: text.text.strip().strip('"').lower())


def _holds(text: Features, phrase: str) -> bool:
    # As in IFEval: strip white space and double quotes around the response, and ignore case.
    return _tail(text).endswith(phrase.strip().lower())


def surely_ends_with(text: Features, phrase: str) -> Verdict:
    """Verdict on the ending; None if quotes or Markdown marks follow, it starts within a word, or spaces differ."""
    sought = " ".join(fold(phrase).split())
    end = fold(text.text.rstrip()[-4 * len(phrase) - 200 :])
    if end.endswith(sought):
        before = end[: -len(sought)][-1:]
        return True if not before or not (before.isalnum() or before in "'\u2019-_") else None
    loose = " ".join(end.rstrip("\"'\u201c\u201d\u2019*_`~)] \n").split())
    return None if loose.endswith(sought.rstrip("\"'\u201c\u201d\u2019*_`~)]")) else False


def _ifeval(args: Args) -> IfEval:
    return "startend:end_checker", {"end_phrase": args["phrase"]}


def _ending(line: str, number: int) -> str | None:
    """The last `number` words of a line with their marks, as written; None if nobody would ask for them."""
    phrase = " ".join(line[-200:].split()[-number:])
    fits = len(phrase) <= _MAX_CHARS and line.endswith(phrase) and any(sign.isalpha() for sign in phrase)
    return phrase if fits and " " in phrase and _SPOILERS.isdisjoint(phrase) else None


@instruction_function(
    family="start_end",
    quantity="ending",
    claims=lambda args: stands("ending", args["phrase"]),
    check=lambda text, args: _holds(text, args["phrase"]),
    readings=lambda text, args: surely_ends_with(text, args["phrase"]),
    phrasings=lambda args: fill(places.EXACT_ENDING, phrase=quoted(args["phrase"])),
    ifeval=_ifeval,
)
def exact_ending(case: Case, rng: random.Random) -> Args | None:
    """Draw the last two to five words of the response with their punctuation; letter case is ignored."""
    number = rng.randint(2, 5)
    lines = [text.text.strip().rsplit("\n", 1)[-1] for text in (case.satisfied[:1] or case.context)]
    if not case.satisfied:
        lines += [sentence for text in case.violated for sentence in text.sentences[:6]]
        lines += rng.sample(ENDINGS, 2)
    phrases = [phrase for line in lines if (phrase := _ending(line, number)) is not None]
    fitting = [phrase for phrase in phrases if all(surely_ends_with(text, phrase) is flag for text, flag in case.flags)]
    return {"phrase": rng.choice(fitting)} if fitting else None
