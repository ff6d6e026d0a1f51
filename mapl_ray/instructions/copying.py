"""What of the prompt comes back in the response."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from mapl_ray.instructions.builders import within_bound
from mapl_ray.instructions.features import Features, features_of
from mapl_ray.instructions.ifeval import forbidden_words
from mapl_ray.instructions.phrasing import bound_phrases, fill, fill_bounds, quoted
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold, in_random_order
from mapl_ray.instructions.types import Args, Case

_FAMILY = "copying"
_MAX_PROMPT_CHARS = 500  # it is stored with the instruction; long ones would double the data


@lru_cache(maxsize=64)
def _places(prompt: str) -> Mapping[str, list[int]]:
    """Folded word of the prompt -> where it stands."""
    found: dict[str, list[int]] = {}
    for place, word in enumerate(features_of(prompt).folded_words):
        found.setdefault(word, []).append(place)
    return found


def _longest_run(text: Features, prompt: str) -> int:
    """Number of words of the longest run of words that prompt and text share, case ignored."""
    places = _places(prompt)
    longest = 0
    runs: dict[int, int] = {}  # place in the prompt -> length of the run that ends there and at the word before
    for word in text.folded_words:
        if word in places:
            runs = {place: runs.get(place - 1, 0) + 1 for place in places[word]}
            longest = max(longest, *runs.values())
        elif runs:
            runs = {}
    return longest


def _run(text: Features, prompt: str) -> int:
    return text.measure(f"run of {prompt}", lambda text: _longest_run(text, prompt))


def _phrasings(args: Args) -> Sequence[str]:
    return fill_bounds(
        (
            "The longest passage you repeat word for word from this request should have {bound}.",
            "Let the longest run of words taken over from this request have {bound}.",
            "Your response's longest word-for-word copy of a part of this request must consist of {bound}.",
            "At its longest, what you repeat of this request word for word should be {bound} long.",
        ),
        bound_phrases(args["direction"], args["n"], "word", "words"),
    )


@instruction_function(
    family=_FAMILY,
    check=lambda text, args: within_bound(_run(text, args["prompt"]), args),
    phrasings=_phrasings,
)
def prompt_run(case: Case, rng: random.Random) -> Args | None:
    """How long a run of words of the prompt is repeated; it is counted without doubt, so the margin is one."""
    if case.prompt is None or len(case.prompt.words) < 2 or len(case.prompt.text) > _MAX_PROMPT_CHARS:
        return None
    prompt = case.prompt.text
    values = [(_run(text, prompt), flag) for text, flag in case.flags]
    for direction in in_random_order(DIRECTIONS, rng):
        n = draw_threshold(values, direction, rng, least=2, min_gap=1)
        if n is not None and (n <= len(case.prompt.words) or direction == "at most"):
            return {"direction": direction, "n": n, "prompt": prompt}
    return None


def _word_phrasings(args: Args) -> Sequence[str]:
    use = (
        "Take up the word {word} from this request.",
        "Your response should contain the word {word}, as this request does.",
        "Use the word {word}, which this request uses, at least once.",
        "The word {word}, which occurs in this request, must appear in the answer.",
    )
    avoid = (
        "Do not take up the word {word} from this request.",
        "Your response should not contain the word {word}, although this request does.",
        "Avoid the word {word}, which this request uses.",
        "The word {word}, which occurs in this request, must not appear in the answer.",
    )
    return fill(use if args["use"] else avoid, word=quoted(args["word"]))


@instruction_function(
    family=_FAMILY,
    check=lambda text, args: (text.count_word(args["word"]) > 0) == bool(args["use"]),
    phrasings=_word_phrasings,
    ifeval=lambda args: None if args["use"] else forbidden_words([args["word"]]),
)
def prompt_word(case: Case, rng: random.Random) -> Args | None:
    """A content word of the prompt that comes back, or does not."""
    words = [] if case.prompt is None else [*case.prompt.content_words.values()]
    for word in rng.sample(words, len(words)):
        sides = {(text.count_word(word) > 0) == flag for text, flag in case.flags}
        if len(sides) == 1:
            return {"word": word, "use": sides.pop()}
    return None
