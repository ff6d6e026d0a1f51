"""Instructions on keywords: words that must or must not occur, and how often.

The source of keywords does not depend on the flag. With another text, they are words that one of the two texts has and
the other lacks; without one, they are words that are common in answers on nearly any subject.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from mapl_ray.instructions.builders import span_verdict, within_bound
from mapl_ray.instructions.claims import absent, all_of, bounded, occurs, text_of
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.ifeval import forbidden_words
from mapl_ray.instructions.phrasing import fill, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold, in_random_order
from mapl_ray.instructions.types import Args, Case, IfEval
from mapl_ray.instructions.verdicts import opposite
from mapl_ray.instructions.word_lists import COMMON_WORDS
from mapl_ray.instructions.wordings import words

_FAMILY = "keywords"
_MOST_USED = 12  # words that `word_frequency` draws from


def keyword_pool(present: Sequence[Features], absent: Sequence[Features], context: Sequence[Features]) -> list[str]:
    """Plausible content words that all texts of `present` have and none of `absent`, in a fixed order."""
    if not present:
        words = _lacking([named for text in context for named in text.content_words.items()], absent)
        return words or _lacking([(word, word) for word in COMMON_WORDS], absent)
    named = [*present[0].content_words.items()]
    for text in present[1:]:
        named = [one for one in named if one[0] in text.content_words]
    words = _lacking(named, absent)
    if absent:
        return words
    preferred = [word for word in words if (not context[0].count_word(word) if context else word in _COMMON)]
    return preferred or words


def _lacking(words: Iterable[tuple[str, str]], absent: Sequence[Features]) -> list[str]:
    """Of the (folded word, word) pairs, the distinct words that none of the texts has."""
    for text in absent:
        words = text.lacking(words)
    return [*dict.fromkeys(word for _, word in words)]


_COMMON = frozenset(COMMON_WORDS)


def _ifeval_forbidden(args: Args) -> IfEval | None:
    # `include_word` and `word_frequency` are not mapped, because IFEval's search for required words ignores word
    # boundaries ("art" in "part").
    return forbidden_words([args["word"]])


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(*occurs(args["word"])),
    check=lambda text, args: text.count_word(args["word"]) > 0,
    readings=lambda text, args: text.word_presence(args["word"]),
    spaced=True,
    phrasings=lambda args: fill(words.INCLUDE_WORD, word=quoted(args["word"])),
)
def include_word(case: Case, rng: random.Random) -> Args | None:
    """Draw a word that must occur."""
    pool = keyword_pool(case.satisfied, case.violated, case.context)
    return {"word": rng.choice(pool)} if pool else None


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(absent(text_of(args["word"]))),
    check=lambda text, args: text.count_word(args["word"]) == 0,
    readings=lambda text, args: opposite(text.word_presence(args["word"])),
    spaced=True,
    phrasings=lambda args: fill(words.FORBID_WORD, word=quoted(args["word"])),
    ifeval=_ifeval_forbidden,
)
def forbid_word(case: Case, rng: random.Random) -> Args | None:
    """Draw a word that must not occur."""
    pool = keyword_pool(case.violated, case.satisfied, case.context)
    return {"word": rng.choice(pool)} if pool else None


def _most_used(texts: Sequence[Features]) -> list[str]:
    """The twelve most frequent content words; ties in alphabetical order.

    A word's frequency is its largest count in any of the texts. Words that occur once, which are most, are only used if
    fewer than twelve occur more often.
    """
    counts: dict[str, int] = {}
    for least in (2, 0):
        for text in texts:
            of_text = text.word_counts
            for folded, word in text.content_words.items():
                number = of_text[folded]
                if number >= least:
                    counts[word] = max(counts.get(word, 0), number)
        if len(counts) >= _MOST_USED:
            break
    return [word for _, word in sorted([(-number, word) for word, number in counts.items()])[:_MOST_USED]]


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(bounded(text_of(args["word"]), args)),
    check=lambda text, args: within_bound(text.count_word(args["word"]), args),
    readings=lambda text, args: span_verdict(text.count_span(args["word"]), args),
    spaced=True,
    phrasings=lambda args: words.WORD_FREQUENCY.of(args, word=quoted(args["word"])),
)
def word_frequency(case: Case, rng: random.Random) -> Args | None:
    """Draw a bound on the occurrences of a word, one of the most frequent in the texts of the case and its context."""
    words = _most_used([*(text for text, _ in case.flags), *case.context]) or list(COMMON_WORDS)
    for word in rng.sample(words, min(6, len(words))):
        values = [(text.count_span(word), flag) for text, flag in case.flags]
        for direction in in_random_order(DIRECTIONS, rng):
            n = draw_threshold(values, direction, rng, least=2)
            if n is not None:
                return {"word": word, "direction": direction, "n": n}
    return None
