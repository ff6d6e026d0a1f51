"""Formats that IFEval and IFBench ask for: postscript, two responses, sections, capitals, English, repeated request."""

from __future__ import annotations

import random
import re
from itertools import islice

from mapl_ray.instructions.builders import count_function, presence_function
from mapl_ray.instructions.claims import Bound, about, all_of, capitals, used
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.one_sided import unusual_function
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.types import Args, Case
from mapl_ray.instructions.verdicts import Span, Verdict, wanted
from mapl_ray.instructions.word_lists import ENGLISH_WORDS, PERSONAL, POSSESSIVE
from mapl_ray.instructions.wordings import forms

_POSTSCRIPT = re.compile(r"^[ \t>*_]*P\.[ \t]?(?:P\.[ \t]?)?S\b", re.MULTILINE)
_LIKE_POSTSCRIPT = re.compile(r"\bp\.?[ \t]?s\b|postscript", re.IGNORECASE)
_ASTERISKS = re.compile(r"^[ \t]*\*{6}[ \t]*$", re.MULTILINE)
_SECTION = re.compile(r"^[ \t#*_]*(?:section|SECTION|Section)[ \t]+(?:\d+|[IVX]+|[A-Z])\b", re.MULTILINE)
_MAX_REQUEST = 500  # characters: nobody asks to repeat a longer request, and it is stored with the instruction
_LEAST_WORDS, _LEAST_FOREIGN = 5, 12  # minimum number of words to identify English, and another language


def _postscript(text: Features) -> Verdict:
    if _POSTSCRIPT.search(text.text):
        return True
    return None if _LIKE_POSTSCRIPT.search(text.text) else False


postscript_use = unusual_function(
    "postscript_use",
    "start_end",
    lambda text: _POSTSCRIPT.search(text.text) is not None,
    _postscript,
    forms.POSTSCRIPT,
    counts=("postscript",),
)


def _two(text: Features) -> Verdict:
    parts = _ASTERISKS.split(text.text)
    if len(parts) == 2 and all(part.strip() for part in parts):
        return True
    return None if "***" in text.text else False


two_responses_use = unusual_function(
    "two_responses_use", "format", lambda text: _two(text) is True, _two, forms.TWO_RESPONSES, counts=("two_responses",)
)


def _sections(text: Features) -> Verdict:
    found = len(_SECTION.findall(text.text))
    if found > 1:
        return True
    return None if found or "section" in text.lower else False


section_use = unusual_function(
    "section_use",
    "format",
    lambda text: len(_SECTION.findall(text.text)) > 1,
    _sections,
    forms.SECTIONS,
    counts=("section",),
)


def _all_capitals(text: Features) -> Verdict:
    small = len([*islice(filter(str.islower, text.text), 4)])
    if not small:
        return True if len([*islice(filter(str.isupper, text.text), 2)]) > 1 else None
    return False if small > 3 else None


all_capitals_use = unusual_function(
    "all_capitals_use",
    "case",
    lambda text: text.text.isupper(),
    _all_capitals,
    forms.ALL_CAPITALS,
    counts=("all_capitals",),
    rules_out=("request_repeated",),
)


def _english_share(text: Features) -> float:
    return text.measure("english share", _share_of_english_words)


def _share_of_english_words(text: Features) -> float:
    number, counts = text.num_words, text.word_counts
    return sum(counts[word] for word in counts.keys() & ENGLISH_WORDS) / number if number else 0.0


def _english(text: Features) -> Verdict:
    """Whether the text is English, by its share of the most common English words, which no other language reaches."""
    if text.num_words < _LEAST_WORDS:
        return None
    share = _english_share(text)
    if share >= 0.3 and (text.ascii or _plain_letters(text.text) >= 0.97 * sum(map(str.isalpha, text.text))):
        return True
    return False if share < 0.03 and text.num_words >= _LEAST_FOREIGN else None


def _plain_letters(text: str) -> int:
    return sum(map(str.isalpha, text.encode("ascii", "ignore").decode("ascii")))


english_use = presence_function(
    "english_use",
    "script",
    lambda text: _english_share(text) >= 0.2,
    forms.ENGLISH,
    surely=_english,
    without=(Bound("word", _LEAST_FOREIGN),),
)


def _pronouns(text: Features) -> int:
    return sum(n for word, n in text.word_counts.items() if word in PERSONAL or word in POSSESSIVE)


pronoun_count = count_function(
    "pronoun_count",
    "address",
    _pronouns,
    forms.PRONOUNS,
    span=lambda text: Span(sum(n for word, n in text.word_counts.items() if word in PERSONAL), _pronouns(text)),
    spaced=True,
    size=True,
)


def _repeats(text: Features, request: str) -> Verdict:
    wanted_start = " ".join(fold(request).split())
    own = text.measure("joined", lambda text: " ".join(text.folded.split()))
    if own.startswith(wanted_start):
        return True
    # A common start may be chance, but some readers take a partial repetition for one.
    return None if own[:12] == wanted_start[:12] or wanted_start[:40] in own else False


@instruction_function(
    family="copying",
    claims=lambda args: all_of(
        used(f"request:{args['prompt']}", bool(args["use"])),
        *(capitals(args["prompt"]) if args["use"] else ()),
        *map(about, ("first_sentence", "first_paragraph", "first_sentence_word", "word_order")),
    ),
    check=lambda text, args: (_repeats(text, args["prompt"]) is True) == bool(args["use"]),
    readings=lambda text, args: wanted(_repeats(text, args["prompt"]), bool(args["use"])),
    phrasings=lambda args: forms.REQUEST_REPEATED.of(args),
)
def request_repeated(case: Case, rng: random.Random) -> Args | None:
    """Draw whether the response begins with the request, word for word."""
    if case.prompt is None or not 8 <= len(case.prompt.text.strip()) <= _MAX_REQUEST:
        return None
    request = case.prompt.text.strip()
    sides = {wanted(_repeats(text, request), flag) for text, flag in case.flags}
    return {"prompt": request, "use": sides.pop()} if len(sides) == 1 and None not in sides else None
