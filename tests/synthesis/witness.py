"""Find a text that meets some instructions and breaks others, by trying: real texts, and edits of them.

Nothing here knows what an instruction means or which instructions fit together. A text is edited at random (with the
words, marks and numbers that the arguments name, and with lists, headings, sentences, digits and so on) and kept where
it comes closer to the wanted verdicts. What is found proves itself: the checkers were run on it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import and_
from string import ascii_lowercase
from typing import Any

from mapl_ray.instructions import Instruction, lookup
from mapl_ray.instructions.features import Features

Goal = tuple[Instruction, bool]
Unfit = tuple[str, list[str]]  # what is wrong, and the instructions it is wrong with
Edit = Callable[[str, random.Random], str]

# Rounds: tries from each start, starts, the longest text. Short texts are quick, and most that is wanted is in them.
ROUNDS = ((60, 6, 300), (300, 12, 400), (150, 6, 1500), (500, 8, 4000), (600, 8, 9000))
LONGEST_KEPT, MOST_KEPT = 3000, 60  # characters of a found text that is kept, and how many are
LONGEST_OWN = 600  # characters of an argument that edits write into a text
FILLER = "We walked home slowly before noon and sat down near that old wall to rest our tired feet"
SECTIONS = "Section 1\nIt rains.\n\nSection 2\nIt pours."
GERMAN = "zwei \u00e4pfel und drei birnen liegen neben der alten t\u00fcr im garten."
TOKENS = [a + b for a in "bcdfghjklmnpqrst" for b in "aeiou"] + [a + b for a in "aeiou" for b in "bcdgklmnprstz"]
PARTS = (
    "- tea and bread", "* milk", "1. Wash it", "2. Dry it", "## A heading", "**bold**", "__bold__", "`code`",
    "```\nrun it\n```", "[a page](https://example.org)", "| a | b |\n|---|---|\n| c | d |", "\U0001f642", "Is it so?",
    "Stop!", "(an aside)", '"a quotation"', "a \u2013 b", GERMAN, "7", "1987", "40%", "a: b", "a; b",
    "a, b, c, d, e, f",
    "I saw my own.", "You know yours.", "We have ours.", "He saw her.", "NASA USA", "caf\u00e9", "internationalization",
    "zzz", "The end. The rest.", "P.S. It rains.", SECTIONS, "******", "<<Title>>", "[name] [place] [date]",
)  # fmt: skip
MARKS = ',;:!?()"\u201c\u201d\u2013\u2014*#`|_[]<>-\u2022.'


def _extremes() -> list[Features]:
    """Texts with much of one thing and little else; with nothing; and with something of everything."""
    words = [a + b for a in TOKENS for b in TOKENS]
    texts = ["", "It rains.", " ".join(TOKENS), " ".join(words[:120]), " ".join(words[:500]), "b " * 400]
    texts += [joint.join(["It rains"] * 60) for joint in (". ", "\n", "\n\n", "? ", "! ", ", ", ": ", "; ", "\n- ")]
    texts += [f"{part}\n" * number for part in PARTS for number in (1, 12, 60)]
    texts += [f"{letter}{letter} " * 120 for letter in ascii_lowercase]
    texts += [f"{letter * size} " * number for letter in ascii_lowercase for size, number in ((12, 16), (40, 3))]
    texts += [f"{short} " * number for short in ("Why?", "So!", "It is.", "**so**", "1987") for number in (4, 8, 16)]
    texts += ["\n".join(f"{i}. {TOKENS[i]}" for i in range(1, number)) for number in (4, 8, 16, 40)]
    texts += ["\n".join(f"- {TOKENS[i]}" for i in range(number)) for number in (4, 8, 16, 40)]
    texts += [f"It{'s' * size} {FILLER} {FILLER}." for size in (4, 9, 14, 22)]
    texts += [f"{FILLER} " * 12, f"{FILLER}. " * 12, f"{FILLER}.\n\n" * 12, "internationalization " * 40]
    texts += [f"{FILLER}{end} " * number for end in ".?!" for number in (55, 120)]
    texts += ["It rains. It pours. It snows.\n" * number for number in (8, 16, 32, 60)]
    texts += [f"{GERMAN} " * 3, f"{GERMAN} " * 12]
    everything = "\n\n".join(PARTS)
    return [
        Features(text.strip())
        for text in (
            *texts,
            *map(str.upper, texts[:40]),
            SECTIONS,
            everything,
            everything.lower(),
            f"{FILLER}. " * 9 + everything,
        )
    ]


EXTREMES = _extremes()


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
        unmet = [goals for goals in wanted if not self._search(goals, texts, seed)]
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
    general = [*_general(), *_wordy(words)]
    own = [edit for instruction, _ in goals for edit in _own(instruction)]
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
            more = _sentence(rng, max(0, number - words))
            found += [f"{text} {more}", f"{more} {text}", f"{more}\n\n{text}"]
            lines = min(200, number - text.count("\n") - 1)
            found += ["\n".join([text, *(_sentence(rng, size) for _ in range(lines))]) for size in (1, 40)]
        for one in found:
            yield from (one, rng.choice((one.lower(), one.upper())))


def _menu(goals: Sequence[Goal], numbers: list[int], rng: random.Random) -> Iterator[str]:
    """Short texts of what the arguments name."""
    for own in {text for one, _ in goals for text in _strings(one.args)}:
        yield from (own, f"{own}.", f"{own} it is", " ".join([own] * rng.randint(2, 12)))
    for number in {n + more for n in numbers if n <= 200 for more in (0, 1)}:
        yield "\n".join(_items("-", number, rng))
        yield "\n".join(_items("1.", number, rng))
        yield "\n".join(_items("", number, rng))
        yield "\n\n".join(_items("", number, rng))
        yield _sentence(rng, number)
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


def _general() -> Iterator[Edit]:
    for part in PARTS:
        yield lambda text, rng, part=part: f"{text}\n{part}"
        yield lambda text, rng, part=part: f"{text} {part}"
        yield lambda text, rng, part=part: f"{part}\n\n{text}"
    for mark in MARKS:
        yield lambda text, rng, mark=mark: text.replace(mark, "")
    for end in ".?!":
        yield lambda text, rng, end=end: text.rstrip().rstrip(".?!") + end
    yield lambda text, rng: f"{text} {_sentence(rng, rng.randint(3, 40))}"
    yield lambda text, rng: f"{_sentence(rng, rng.randint(3, 40))} {text}"
    yield lambda text, rng: f"{text}\n\n{_sentence(rng, rng.randint(3, 60))}"
    yield lambda text, rng: f"{_sentence(rng, rng.randint(3, 60))}\n\n{text}"
    yield lambda text, rng: " ".join(_sentence(rng, 5) for _ in range(rng.randint(1, 30)))
    yield lambda text, rng: "\n\n".join(_sentence(rng, 5) for _ in range(rng.randint(1, 30)))
    yield lambda text, rng: "\n".join(f"- {_sentence(rng, 3)}" for _ in range(rng.randint(1, 30)))
    yield lambda text, rng: _sentence(rng, rng.randint(2, 120))
    yield lambda text, rng: _lengthened(text, rng.randint(2, 120), rng)
    yield lambda text, rng: f"{text}\n{text}"
    yield lambda text, rng: text[: len(text) // 2]
    yield lambda text, rng: text[len(text) // 2 :]
    yield lambda text, rng: " ".join(text.split())
    yield lambda text, rng: re.sub(r"(?<=[.!?]) ", "\n\n", text)
    yield lambda text, rng: re.sub(r"\n+", "\n", text)
    yield lambda text, rng: re.sub(r"\n+", "\n\n", text)
    yield lambda text, rng: re.sub(r"[.!?] ", " ", text)
    yield lambda text, rng: re.sub(r"\d", "", text)
    yield lambda text, rng: text.lower()
    yield lambda text, rng: text.upper()
    yield lambda text, rng: text.encode("ascii", "ignore").decode()
    yield lambda text, rng: " ".join(dict.fromkeys(text.split()))
    yield lambda text, rng: re.sub(r"(?i)\b(i|me|my|mine|we|us|our|ours|you|yours?|he|him|his|she|hers?)\b", "x", text)
    yield lambda text, rng: "\n".join(line for line in text.split("\n") if rng.random() < 0.7)
    yield lambda text, rng: " ".join(word for word in text.split(" ") if len(word) < rng.randint(4, 12))
    yield lambda text, rng: f'"{text}"'
    yield lambda text, rng: '{"a": 1}'


def _wordy(words: list[str]) -> Iterator[Edit]:
    """Edits with many different words, short or long."""
    small = [*dict.fromkeys(word.lower() for word in words)] or [FILLER]
    for pool in (small, [word for word in small if len(word) < 7], [word for word in small if len(word) > 6]):
        for size in (8, 40, 150, 600):
            for joint in (" ", ". ", "\n", "\n\n", "\n- "):
                yield lambda text, rng, pool=pool, size=size, joint=joint: joint.join(_some(pool, size, rng))
                yield lambda text, rng, pool=pool, size=size, joint=joint: joint.join((text, *_some(pool, size, rng)))
    yield lambda text, rng: f"{text} {''.join(_some(small, 12, rng))}"
    for size in (12, 40, 130):
        yield lambda text, rng, size=size: " ".join(rng.sample(TOKENS, size))
        yield lambda text, rng, size=size: f"{text} {' '.join(rng.sample(TOKENS, size))}"
    yield lambda text, rng: json.dumps(text)
    yield lambda text, rng: json.dumps([*text.split("\n"), *_some(small, 20, rng)], indent=1)


def _some(pool: list[str], size: int, rng: random.Random) -> list[str]:
    return [word.capitalize() if rng.random() < 0.05 else word for word in rng.sample(pool, min(len(pool), size))]


def _own(instruction: Instruction) -> Iterator[Edit]:
    texts, numbers = _strings(instruction.args), [n for n in instruction.args.values() if isinstance(n, int)]
    for own in texts:
        for form in {own, own.lower(), own.capitalize()}:
            yield lambda text, rng, form=form: f"{form} {text}"
            yield lambda text, rng, form=form: f"{text} {form}"
            yield lambda text, rng, form=form: f"{text.rstrip('.!? ')} {form}."
            yield lambda text, rng, form=form: f"{text}\n\n{form} it is."
            yield lambda text, rng, form=form: f"{form}. {text}"
            yield lambda text, rng, form=form: _insert(text, form, rng.randint(0, 12))
            yield lambda text, rng, form=form: f"{text} " + f"{form} " * rng.randint(1, 12)
        yield lambda text, rng, own=own: re.sub(re.escape(own), "", text, flags=re.IGNORECASE)
        yield lambda text, rng, own=own: re.sub(re.escape(own), "", text, count=1, flags=re.IGNORECASE)
        if "\n" in own:
            yield lambda text, rng, own=own: f"{' '.join(own.split())} {text}"
        for word in own.split() if len(own) < 100 else ():
            yield lambda text, rng, word=word: re.sub(re.escape(word), "", text, flags=re.IGNORECASE)
            yield lambda text, rng, word=word: f"{text} {word} it is"
    for number in numbers:
        if number <= 200:
            for part in PARTS:
                yield lambda text, rng, n=number, part=part: f"{text}\n" + "\n".join([part] * rng.randint(n, n + 2))
            yield lambda text, rng, n=number: f"{text} {_sentence(rng, n)}"
            yield lambda text, rng, n=number: _lengthened(text, n, rng)
            yield lambda text, rng, n=number: f"{text}\n\n" + "\n\n".join(_sentence(rng, 4) for _ in range(n + 1))
            yield lambda text, rng, n=number: f"{text}\n" + "\n".join(_sentence(rng, 2) for _ in range(n))
            yield lambda text, rng, n=number: " ".join(text.split(" ")[: n + rng.randint(-3, 3)])
            yield lambda text, rng, n=number: "\n".join(text.split("\n")[: n + rng.randint(-3, 3)])
            for number_of in (number, number + 1):
                yield lambda text, rng, n=number_of: f"{text}\n" + "\n".join(_items("-", n, rng))
                yield lambda text, rng, n=number_of: f"{text}\n" + "\n".join(_items("1.", n, rng))
            for short in ("Why?", "So!", "It is.", "**so**", "7"):
                yield lambda text, rng, n=number, short=short: f"{text} " + " ".join([short] * (n + 1))
            for joint in ("\n", "\n\n"):
                yield lambda text, rng, n=number, joint=joint: _resized(text, joint, n, rng)
            for own in texts:
                yield lambda text, rng, n=number, own=own: f"{own} " * (n + rng.randint(0, 1))
                yield lambda text, rng, n=number, own=own: f"{text} " + f"{own}{own[:0] or ' '}" * n
                yield lambda text, rng, n=number, own=own: f"{text} " + f"{own}a " * n
                yield lambda text, rng, n=number, own=own: _insert(text, own, n - 1)


def _items(mark: str, number: int, rng: random.Random) -> list[str]:
    return [f"{mark} {word}".strip() for word in rng.choices(TOKENS, k=number)]


def _resized(text: str, joint: str, number: int, rng: random.Random) -> str:
    """The text with exactly as many lines or paragraphs: cut, or filled up with some of one to four sentences."""
    blocks = [block for block in re.split("\n+" if joint == "\n" else r"\n\n+", text) if block.strip()]
    more = [" ".join(_sentence(rng, 4) for _ in range(rng.randint(1, 4))) for _ in range(number - len(blocks))]
    kept = sorted(rng.sample(range(len(blocks)), min(number, len(blocks))))
    return joint.join([*(blocks[i] for i in kept), *more])


def _lengthened(text: str, words: int, rng: random.Random) -> str:
    """The text with so many words more at the end of one of its lines."""
    lines = text.split("\n")
    place = rng.randrange(len(lines))
    return "\n".join([*lines[:place], f"{lines[place]} {_sentence(rng, words)}", *lines[place + 1 :]])


def _strings(args: Any) -> list[str]:
    if isinstance(args, str):
        return [args] if len(args) <= LONGEST_OWN else []
    values = args.values() if isinstance(args, dict) else args if isinstance(args, list | tuple) else ()
    return [text for value in values for text in _strings(value)]


def _insert(text: str, own: str, place: int) -> str:
    words = text.split(" ")
    return " ".join([*words[:place], own, *words[place + 1 :]])


def _sentence(rng: random.Random, words: int) -> str:
    filler = FILLER.split()
    return " ".join(rng.choice(filler) for _ in range(words)).capitalize() + "."
