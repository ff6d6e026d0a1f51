"""Find a text that meets some instructions and breaks others, by trying: real texts, and edits of them.

Nothing here knows what an instruction means or which instructions fit together. A text is edited at random (with the
words, marks and numbers that the arguments name, and with lists, headings, sentences, digits and so on) and kept where
it comes closer to the wanted verdicts. What is found proves itself: the checkers were run on it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import and_

from mapl_ray.instructions import Instruction, lookup
from mapl_ray.instructions.features import Features
from tests.synthesis.edits import (
    EXTREMES,
    PARTS,
    Edit,
    edits_for,
    general_edits,
    numbered,
    sentence,
    strings,
    wordy_edits,
)

Goal = tuple[Instruction, bool]
Unfit = tuple[str, list[str]]  # what is wrong, and the instructions it is wrong with

# Rounds: tries from each start, starts, the longest text. Short texts are quick, and most that is wanted is in them.
ROUNDS = ((60, 6, 300), (300, 12, 400), (150, 6, 1500), (500, 8, 4000), (600, 8, 16_000))
ATTEMPTS, OTHER_SEED = 5, 1_000_003  # searches for one text, each with other random edits
LONGEST_KEPT, MOST_KEPT = 3000, 60  # characters of a found text that is kept, and how many are


class Pool:
    """Texts whose verdicts are looked up before any search; what a search finds joins them, for the prompts to come."""

    def __init__(self) -> None:
        self._found: dict[str, Features] = {}

    def unfit(self, instructions: Sequence[Instruction], starts: Sequence[Features], seed: int) -> list[Unfit]:
        """What no text was found for: one that meets all, and for every two one that meets the first alone."""
        wanted = [[(one, True) for one in instructions]]
        wanted += [[(a, True), (b, False)] for a in instructions for b in instructions if a is not b]
        for texts in (starts, [*EXTREMES, *self._found.values()]):
            wanted = _not_met(wanted, texts)
        texts = [*starts, *EXTREMES, *self._found.values()]
        unmet = [
            goals
            for goals in wanted
            if not any(self._search(goals, texts, seed + OTHER_SEED * attempt) for attempt in range(ATTEMPTS))
        ]
        return [
            ("no text meets all" if all(flag for _, flag in goals) else "the first implies the second",
             [instruction.text for instruction, _ in goals])
            for goals in unmet
        ]  # fmt: skip

    def _search(self, goals: Sequence[Goal], texts: Sequence[Features], seed: int) -> bool:
        found = find(goals, texts, seed)
        if found is None:
            return False
        if len(found) < LONGEST_KEPT:
            while len(self._found) >= MOST_KEPT:
                del self._found[next(iter(self._found))]
            self._found[found] = Features(found)
        return True


def _not_met(wanted: Sequence[list[Goal]], texts: Sequence[Features]) -> list[list[Goal]]:
    """Those of the goals that none of the texts meets."""
    met: dict[int, int] = {}  # instruction -> the texts that meet it, as bits
    for instruction in {id(one): one for goals in wanted for one, _ in goals}.values():
        check, args = lookup(instruction.name).check, instruction.args
        met[id(instruction)] = int("".join("1" if check(text, args) else "0" for text in texts), 2)
    every = (1 << len(texts)) - 1
    return [
        goals for goals in wanted if not reduce(and_, [met[id(one)] ^ (0 if flag else every) for one, flag in goals])
    ]


def find(goals: Sequence[Goal], starts: Sequence[Features], seed: int) -> str | None:
    """A text with the wanted verdict on every instruction, or None where none was found from these texts."""
    best: dict[tuple[bool, ...], list[str]] = {}  # verdicts -> the texts that have them
    rng = random.Random(seed)
    for start in (*starts, *map(Features, _composed(goals, rng))):
        right = _right(start, goals)
        if all(right):
            return start.text
        best.setdefault(right, []).append(start.text)
    chosen = [(right, text) for right, texts in best.items() for text in _various(texts, rng)]
    ordered = sorted(chosen, key=lambda one: (-sum(one[0]), len(one[1])))
    words = [word for start in starts[:12] for word in re.findall(r"[A-Za-z]{2,}", start.text[:4000])]
    general = [*general_edits(), *wordy_edits(words)]
    own = [edit for instruction, _ in goals for edit in edits_for(instruction)]
    edits = general, own or general
    for steps, number, longest in ROUNDS:  # a hard one is tried for longer
        for right, text in [one for one in ordered if len(one[1]) <= longest][:number]:
            if (found := _climb(text, len(goals) - sum(right), goals, edits, steps, longest, rng)) is not None:
                return found
    return None


def _various(texts: list[str], rng: random.Random) -> list[str]:
    """The shortest two, and some others."""
    ordered = sorted(texts, key=len)
    return [*ordered[:2], *rng.sample(ordered[2:], min(3, len(ordered) - 2 if len(ordered) > 2 else 0))]


def _composed(goals: Sequence[Goal], rng: random.Random) -> Iterator[str]:
    """For every goal that an empty text misses something short that alone meets it; one after the other, in some order.

    Filled up with sentences to the numbers of words, and of lines, that the arguments name.
    """
    numbers = [n for one, _ in goals for n in one.args.values() if isinstance(n, int) and n <= 1500]
    menu = [Features(text) for text in (*PARTS, *_menu(goals, numbers, rng))]
    helpers = [
        [text.text for text in menu if one.check(text) == wanted] for one, wanted in goals if one.check("") != wanted
    ]
    helpers = [texts for texts in helpers if texts]
    for joint in (" ", "\n", "\n\n") * 16:
        pieces = [rng.choice(texts[: rng.choice((2, 99))]) for texts in helpers if rng.random() < 0.85]
        text = joint.join(rng.sample(pieces, len(pieces)))
        found = [text, f"{text} I know, you see."]
        words = len(re.findall(r"\w+", text))
        for number in rng.sample(numbers, min(2, len(numbers))):
            more = sentence(rng, max(0, number - words))
            found += [f"{text} {more}", f"{more} {text}", f"{more}\n\n{text}"]
            lines = min(200, number - text.count("\n") - 1)
            found += ["\n".join([text, *(sentence(rng, size) for _ in range(lines))]) for size in (1, 40)]
        for one in found:
            yield from (one, rng.choice((one.lower(), one.upper())))


def _menu(goals: Sequence[Goal], numbers: list[int], rng: random.Random) -> Iterator[str]:
    """Short texts of what the arguments name."""
    for own in dict.fromkeys(text for one, _ in goals for text in strings(one.args)):
        yield from (own, f"{own}.", f"{own} it is", " ".join([own] * rng.randint(2, 12)))
    for number in {n + more for n in numbers if n <= 200 for more in (0, 1)}:
        yield "\n".join(numbered("-", number, rng))
        yield "\n".join(numbered("1.", number, rng))
        yield "\n".join(numbered("", number, rng))
        yield "\n\n".join(numbered("", number, rng))
        yield sentence(rng, number)
        for part in ("Why?", "So!", "It is.", "**so**", "7", "NASA"):
            yield " ".join([part] * number)


def _climb(
    text: str,
    wrong: int,
    goals: Sequence[Goal],
    edits: tuple[list[Edit], list[Edit]],
    steps: int,
    longest: int,
    rng: random.Random,
) -> str | None:
    for _ in range(steps):
        changed = text
        for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
            changed = rng.choice(edits[rng.random() < 0.6])(changed, rng)
        if len(changed) > longest:
            continue
        now = _wrong(Features(changed), goals)
        if not now:
            return changed
        if now <= wrong:
            text, wrong = changed, now
    return None


def _right(text: Features, goals: Sequence[Goal]) -> tuple[bool, ...]:
    return tuple(lookup(one.name).check(text, one.args) == wanted for one, wanted in goals)


def _wrong(text: Features, goals: Sequence[Goal]) -> int:
    return len(goals) - sum(_right(text, goals))
