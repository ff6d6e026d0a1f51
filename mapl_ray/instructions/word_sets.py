"""Instructions on several keywords (all, any, none or some of them) and on phrases."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mapl_ray.instructions.builders import span_verdict, within_bound
from mapl_ray.instructions.claims import absent, all_of, any_of, number_of_words, occurs, present, text_of
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.ifeval import forbidden_words
from mapl_ray.instructions.phrasing import Wordings, listed, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold, in_random_order
from mapl_ray.instructions.types import Args, Case, IfEval
from mapl_ray.instructions.verdicts import Span, Verdict, agreed, wanted
from mapl_ray.instructions.word_lists import COMMON_WORDS
from mapl_ray.instructions.wordings import words
from mapl_ray.instructions.wordings.templates import UseWords

_FAMILY = "keywords"
_TRIES = 8
_JOINERS = "_'\u2019-"  # marks that join words to a compound


def _present(text: Features, words: Sequence[str]) -> int:
    return sum(text.count_word(word) > 0 for word in words)


def _span(text: Features, words: Sequence[str]) -> Span:
    """How many of the words occur, under all readings."""
    verdicts = [text.word_presence(word) for word in words]
    return Span(verdicts.count(True), len(words) - verdicts.count(False))


def _all_of(text: Features, words: Sequence[str]) -> Verdict:
    return _span(text, words).at_least(len(words))


def _any_of(text: Features, words: Sequence[str]) -> Verdict:
    return _span(text, words).at_least(1)


def _candidates(case: Case) -> dict[str, str]:
    """Content words of all given texts, by folded form; plus common words if there are too few, or only one text."""
    texts = [*(text for text, _ in case.flags), *case.context]
    words: dict[str, str] = {}
    for text in texts:
        words.update(text.content_words)
    if len(texts) == 1 or len(words) < 6:
        words |= {word: word for word in COMMON_WORDS if word not in words}
    return words


def _draw_words(case: Case, rng: random.Random, holds: Callable[[Features, Sequence[str]], Verdict]) -> Args | None:
    """Draw two to four words, and whether to use or avoid them, until every text's flag is met.

    Words that distinguish the texts are tried first, in a random direction, so that words are as often required as
    forbidden, whatever the flag.
    """
    words = _candidates(case)
    one, other = in_random_order((True, False), rng)
    pools: list[list[str]] = []
    for attempt in range(_TRIES):
        if attempt < 3:
            pools.append(_distinguishing(words, case, (one, other)[attempt]) if attempt < 2 else [*words.values()])
        pool = pools[attempt % 3]
        drawn = rng.sample(pool, min(len(pool), rng.randint(2, 4)))
        if len(drawn) < 2 or not _apart(drawn):
            continue
        use = agreed(wanted(holds(text, drawn), flag) for text, flag in case.flags)
        if use is not None:
            return {"words": drawn, "use": use}
    return None


def _distinguishing(words: dict[str, str], case: Case, held: bool) -> list[str]:
    """Words that every satisfied text has and no violated one has; the reverse if `held` is false."""
    left = [*words]
    for text, flag in case.flags:
        counts, wanted_here = text.word_counts, flag == held
        left = [folded for folded in left if (folded in counts) == wanted_here]
    return [words[folded] for folded in left]


def _apart(words: Sequence[str]) -> bool:
    folded = [fold(word) for word in words]
    return not any(a in b for i, a in enumerate(folded) for j, b in enumerate(folded) if i != j)


def _wordings(of_two: UseWords, of_more: UseWords, args: Args) -> Wordings:
    return (of_two if len(args["words"]) == 2 else of_more).of(args, words=listed(args["words"], "and"))


def _ifeval_forbidden(args: Args) -> IfEval | None:
    return None if args["use"] else forbidden_words(args["words"])


@instruction_function(
    family=_FAMILY,
    claims=lambda args: (
        all_of(*(bound for word in args["words"] for bound in occurs(word)))
        if args["use"]
        else any_of(absent(text_of(word)) for word in args["words"])
    ),
    check=lambda text, args: (_present(text, args["words"]) == len(args["words"])) == bool(args["use"]),
    readings=lambda text, args: wanted(_all_of(text, args["words"]), bool(args["use"])),
    spaced=True,
    phrasings=lambda args: _wordings(words.BOTH_WORDS, words.ALL_OF_WORDS, args),
)
def all_of_words(case: Case, rng: random.Random) -> Args | None:
    """Draw words that must all occur, or must not all occur."""
    return _draw_words(case, rng, _all_of)


@instruction_function(
    family=_FAMILY,
    claims=lambda args: (
        any_of(present(text_of(word)) for word in args["words"])
        if args["use"]
        else all_of(*(absent(text_of(word)) for word in args["words"]))
    ),
    check=lambda text, args: (_present(text, args["words"]) > 0) == bool(args["use"]),
    readings=lambda text, args: wanted(_any_of(text, args["words"]), bool(args["use"])),
    spaced=True,
    phrasings=lambda args: _wordings(words.EITHER_WORD, words.ANY_OF_WORDS, args),
    ifeval=_ifeval_forbidden,
)
def any_of_words(case: Case, rng: random.Random) -> Args | None:
    """Draw words of which at least one must occur, or none may occur."""
    return _draw_words(case, rng, _any_of)


def _half_present(words: dict[str, str], text: Features, rng: random.Random) -> list[str]:
    """Draw four to six of the words, about half of which the text has, so that bounds on either side are possible."""
    held = [word for folded, word in words.items() if folded in text.word_counts]
    lacking = [word for folded, word in words.items() if folded not in text.word_counts]
    drawn = [word for pool in (held, lacking) for word in rng.sample(pool, min(len(pool), rng.randint(2, 3)))]
    drawn = drawn if len(drawn) > 3 else rng.sample([*words.values()], 4)
    rng.shuffle(drawn)
    return drawn


@instruction_function(
    family=_FAMILY,
    claims=lambda args: number_of_words(args["words"], args),
    check=lambda text, args: within_bound(_present(text, args["words"]), args),
    readings=lambda text, args: span_verdict(_span(text, args["words"]), args),
    spaced=True,
    phrasings=lambda args: words.SOME_OF_WORDS.of(args, words=listed(args["words"], "and")),
)
def some_of_words(case: Case, rng: random.Random) -> Args | None:
    """Draw a bound on how many of a list of words occur; the margin is one, because counting words is unambiguous."""
    words = _candidates(case)
    if len(words) < 6:
        return None
    for _ in range(_TRIES):
        drawn = _half_present(words, case.flags[0][0], rng) if case.flags else rng.sample([*words.values()], 4)
        if not _apart(drawn):
            continue
        values = [(_span(text, drawn), flag) for text, flag in case.flags]
        for direction in in_random_order(DIRECTIONS, rng):
            n = draw_threshold(values, direction, rng, most=len(drawn) - 1, min_gap=1)
            if n is not None:
                return {"words": drawn, "direction": direction, "n": n}
    return None


def _holds_phrase(text: Features, phrase: str) -> bool:
    """Whether the words are consecutive in a line, separated only by spaces, and not parts of other words."""
    return phrase_presence(text, phrase) is True


def phrase_presence(text: Features, phrase: str) -> Verdict:
    """Verdict on whether a phrase occurs; None if marks separate or join its words (period, list mark, hyphen, ...)."""
    sought = fold(phrase).split()
    first = sought[0]
    words = text.folded_words
    if first not in text.word_counts or not _holds_run(words, sought):
        return False
    squeezed, joined = text.squeezed, " ".join(sought)
    place = squeezed.find(joined)
    while place >= 0:
        end = place + len(joined)
        around = squeezed[max(0, place - 1) : place] + squeezed[end : end + 1]
        if not any(sign.isalnum() or sign in _JOINERS for sign in around):
            return True
        place = squeezed.find(joined, place + 1)
    return None


def _holds_run(words: Sequence[str], run: Sequence[str]) -> bool:
    at = -1
    try:
        while True:
            at = words.index(run[0], at + 1)
            if words[at : at + len(run)] == run:
                return True
    except ValueError:  # no further occurrence
        return False


def _phrases(text: Features, rng: random.Random) -> list[str]:
    """Some runs of two content words, possibly with a stop word between them; only letters, spelled as in the text.

    "hot tea" and "cup of tea" are phrases that a person would quote; "a hot" is not.
    """
    tokens = text.text.split()
    found = []
    for start in rng.sample(range(max(0, len(tokens) - 1)), min(24, max(0, len(tokens) - 1))):
        run = [*tokens[start : start + 3]]
        if len(run) == 3 and (fold(run[1]) in text.content_words or not run[1].isalpha()):
            run.pop()
        run[-1] = run[-1].rstrip(".,;:!?")
        phrase = " ".join(run)
        if (
            all(map(str.isalpha, run))
            and _is_content(run[0], text)
            and _is_content(run[-1], text)
            and phrase in text.text
        ):
            found.append(phrase)
    # Phrases with a stop word may begin or end in the middle of a longer phrase, so they come last.
    return sorted(found, key=lambda phrase: phrase.count(" ") > 1 and " of " not in phrase)


def _is_content(word: str, text: Features) -> bool:
    return fold(word) in text.content_words


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(*(occurs(args["phrase"]) if args["use"] else (absent(text_of(args["phrase"])),))),
    check=lambda text, args: _holds_phrase(text, args["phrase"]) == bool(args["use"]),
    readings=lambda text, args: wanted(phrase_presence(text, args["phrase"]), bool(args["use"])),
    spaced=True,
    phrasings=lambda args: words.EXACT_PHRASE.of(args, phrase=quoted(args["phrase"])),
)
def exact_phrase(case: Case, rng: random.Random) -> Args | None:
    """Draw a phrase of two or three words that must, or must not, occur."""
    texts = [*(text for text, _ in case.flags), *case.context]
    for use in in_random_order((True, False), rng):
        for text in rng.sample(texts, len(texts)):
            for phrase in _phrases(text, rng):
                if all(phrase_presence(one, phrase) is (use == flag) for one, flag in case.flags):
                    return {"phrase": phrase, "use": use}
    return None
