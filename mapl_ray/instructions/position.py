"""Instructions on the position of words: in the first or last sentence, or one before the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mapl_ray.instructions.claims import about, absent, all_of, at, occurs, present, used
from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.phrasing import fill, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import in_random_order
from mapl_ray.instructions.types import Args, Case
from mapl_ray.instructions.verdicts import Verdict, agreed, every, wanted
from mapl_ray.instructions.word_lists import COMMON_WORDS
from mapl_ray.instructions.wordings import places

_FAMILY = "position"
_COMMON = {word: word for word in COMMON_WORDS}
Part = Callable[[Features], list[Features]]


def _first(text: Features) -> list[Features]:
    """Candidates for the first sentence; the documented one first."""
    return text.measure("first sentences", lambda text: _parts(text, [s.first for s in text.sentence_readings]))


def _last(text: Features) -> list[Features]:
    """Candidates for the last sentence; the documented one first."""
    return text.measure("last sentences", lambda text: _parts(text, [s.last for s in text.sentence_readings]))


def _parts(text: Features, readings: Sequence[Sequence[str]]) -> list[Features]:
    return [Features(part) for part in dict.fromkeys(part for parts in readings for part in parts)] or [Features("")]


def _in_part(part: Part, text: Features, word: str) -> Verdict:
    return agreed(one.word_presence(word) for one in part(text))


def _draw_in(part: Part, case: Case, rng: random.Random) -> Args | None:
    """Draw a word of the texts that must, or must not, be in the part."""
    texts = [text for text, _ in case.flags]
    for use in in_random_order((True, False), rng):
        inside = [one for text in texts if _flag(case, text) == use for one in part(text)]
        outside = [one for text in texts if _flag(case, text) != use for one in part(text)]
        sources = inside[:1] or [*texts, *case.context]
        words: dict[str, str] = {}
        for text in sources:
            words.update(text.content_words)
        fitting = [*(words if inside or words else _COMMON).items()]
        for text in inside:
            fitting = [named for named in fitting if named[0] in text.plain_words]
        for text in outside:
            fitting = text.lacking(fitting)
        if fitting:
            return {"word": rng.choice(fitting)[1], "use": use}
    return None


def _flag(case: Case, text: Features) -> bool:
    return next(flag for one, flag in case.flags if one is text)


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(
        used(f"in:first_sentence={fold(args['word'])}", args["use"]), about("first_sentence_word")
    ),
    check=lambda text, args: (_first(text)[0].count_word(args["word"]) > 0) == bool(args["use"]),
    readings=lambda text, args: wanted(_in_part(_first, text, args["word"]), bool(args["use"])),
    spaced=True,
    phrasings=lambda args: places.FIRST_SENTENCE_WORD.of(args, word=quoted(args["word"])),
)
def first_sentence_word(case: Case, rng: random.Random) -> Args | None:
    """Draw a word that must, or must not, occur in the first sentence."""
    return _draw_in(_first, case, rng)


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(used(f"in:last_sentence={fold(args['word'])}", args["use"])),
    check=lambda text, args: (_last(text)[0].count_word(args["word"]) > 0) == bool(args["use"]),
    readings=lambda text, args: wanted(_in_part(_last, text, args["word"]), bool(args["use"])),
    spaced=True,
    phrasings=lambda args: places.LAST_SENTENCE_WORD.of(args, word=quoted(args["word"])),
)
def last_sentence_word(case: Case, rng: random.Random) -> Args | None:
    """Draw a word that must, or must not, occur in the last sentence."""
    return _draw_in(_last, case, rng)


def _places(text: Features) -> dict[str, int]:
    """Folded word -> index of its first occurrence."""
    words = text.folded_words
    return dict(zip(reversed(words), range(len(words) - 1, -1, -1), strict=True))  # earlier places replace later ones


def _in_order(text: Features, args: Args) -> bool:
    places = text.measure("word_places", _places)
    first, second = (places.get(fold(word)) for word in args["words"])
    return first is not None and second is not None and first < second


def _surely_in_order(text: Features, args: Args) -> Verdict:
    """Verdict on the order; None if a word occurs only within other words, or if each word precedes the other."""
    verdict = every(text.word_presence(word) for word in args["words"])
    if verdict is not True:
        return verdict
    plain = text.measure("plain places", lambda text: {word: i for i, word in enumerate(text.plain_counts)})
    first, second = map(fold, args["words"])
    if plain[first] < plain[second]:
        return True
    # "Mention a and, later on, b": an additional b before a is allowed if b also follows.
    start = text.measure("word_places", _places).get(first)
    if start is None:  # "_word_" is the word itself to a reader, but another word by IFEval's count
        return None
    return None if second in text.folded_words[start + 1 :] else False


@instruction_function(
    family=_FAMILY,
    claims=lambda args: all_of(
        present(f"order:{fold(args['words'][0])}<{fold(args['words'][1])}"),
        *(bound for word in args["words"] for bound in occurs(word)),
        absent(at("first_word", args["words"][1])),
        about("word_order"),
    ),
    check=_in_order,
    readings=_surely_in_order,
    spaced=True,
    phrasings=lambda args: fill(places.WORD_ORDER, a=quoted(args["words"][0]), b=quoted(args["words"][1])),
)
def word_order(case: Case, rng: random.Random) -> Args | None:
    """Draw two words that must both occur, one before the other."""
    texts = [*(text for text, _ in case.flags), *case.context]
    if case.satisfied:
        own = case.satisfied[0]
        words = [*own.content_words.values()]
        if len(words) < 2:  # a short answer: also use stop words
            words = [word for word in own.word_counts if word.isalpha() and len(word) > 2]
    else:
        words = [*{folded: word for text in texts for folded, word in text.content_words.items()}.values()]
    words = words if len(words) > 1 else [*COMMON_WORDS]
    for _ in range(12):
        pair = rng.sample(words, 2)
        if fold(pair[0]) in fold(pair[1]) or fold(pair[1]) in fold(pair[0]):
            continue
        for ordered in (pair, pair[::-1]):
            if all(_surely_in_order(text, {"words": ordered}) is flag for text, flag in case.flags):
                return {"words": ordered}
    return None
