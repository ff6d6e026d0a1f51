"""Texts and random edits of texts for the search of `witness.py`: what people write, and what arguments name."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from string import ascii_lowercase
from typing import Any

from mapl_ray.instructions import Instruction
from mapl_ray.instructions.features import Features

Edit = Callable[[str, random.Random], str]

LONGEST_OWN = 600  # characters of an argument that edits write into a text
FILLER = "We walked home slowly before noon and sat down near that old wall to rest our tired feet"
SECTIONS = "Section 1\nIt rains.\n\nSection 2\nIt pours."
GERMAN = "zwei \u00e4pfel und drei birnen liegen neben der alten t\u00fcr im garten."
TOKENS = [a + b for a in "bcdfghjklmnpqrst" for b in "aeiou"] + [a + b for a in "aeiou" for b in "bcdgklmnprstz"]
PARTS = (
    "- tea and bread", "* milk", "1. Wash it", "2. Dry it", "## A heading", "**bold**", "__bold__", "`code`",
    "```\nrun it\n```", "[a page](https://example.org)", "See https://example.org today.",
    "| a | b |\n|---|---|\n| c | d |", "\U0001f642", "Is it so?",
    "Stop!", "(an aside)", '"a quotation"', "a \u2013 b", GERMAN, "7", "1987", "40%", "a: b", "a; b",
    "a, b, c, d, e, f",
    "I saw my own.", "You know yours.", "We have ours.", "He saw her.", "NASA USA", "caf\u00e9", "internationalization",
    "zzz", "The end. The rest.", "P.S. It rains.", SECTIONS, "******", "<<Title>>", "[name] [place] [date]",
)  # fmt: skip
PRONOUNS = ("I", "you", "he", "she", "it", "we", "they", "me", "him", "us", "them", "my")
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
    texts += ["So it is. " * 400]
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


def general_edits() -> Iterator[Edit]:
    for part in PARTS:
        yield lambda text, rng, part=part: f"{text}\n{part}"
        yield lambda text, rng, part=part: f"{text} {part}"
        yield lambda text, rng, part=part: f"{part}\n\n{text}"
    for mark in MARKS:
        yield lambda text, rng, mark=mark: text.replace(mark, "")
    for end in ".?!":
        yield lambda text, rng, end=end: text.rstrip().rstrip(".?!") + end
    yield lambda text, rng: f"{text} {sentence(rng, rng.randint(3, 40))}"
    yield lambda text, rng: f"{sentence(rng, rng.randint(3, 40))} {text}"
    yield lambda text, rng: f"{text}\n\n{sentence(rng, rng.randint(3, 60))}"
    yield lambda text, rng: f"{sentence(rng, rng.randint(3, 60))}\n\n{text}"
    yield lambda text, rng: " ".join(sentence(rng, 5) for _ in range(rng.randint(1, 30)))
    yield lambda text, rng: "\n\n".join(sentence(rng, 5) for _ in range(rng.randint(1, 30)))
    yield lambda text, rng: "\n".join(f"- {sentence(rng, 3)}" for _ in range(rng.randint(1, 30)))
    yield lambda text, rng: "\n".join(numbered("#", rng.randint(1, 12), rng))
    yield lambda text, rng: " ".join(rng.sample(PRONOUNS, rng.randint(2, 12))) + "."
    yield lambda text, rng: f"{text} {' '.join([FILLER] * rng.choice((20, 130)))}."
    yield lambda text, rng: sentence(rng, rng.randint(2, 120))
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
    yield lambda text, rng: _without_a_word(text.split(" "), rng)
    yield lambda text, rng: _swapped(text.split(" "), rng)
    yield lambda text, rng: f'"{text}"'
    yield lambda text, rng: '{"a": 1}'


def wordy_edits(words: list[str]) -> Iterator[Edit]:
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
    for end in ("\n", "\n\n"):
        yield lambda text, rng, end=end: end.join(
            json.dumps([*text.split("\n"), *_some(small, 20, rng)], indent=1).split("\n")
        )


def _some(pool: list[str], size: int, rng: random.Random) -> list[str]:
    return [word.capitalize() if rng.random() < 0.05 else word for word in rng.sample(pool, min(len(pool), size))]


def edits_for(instruction: Instruction) -> Iterator[Edit]:
    texts, numbers = strings(instruction.args), [n for n in instruction.args.values() if isinstance(n, int)]
    for own in texts:
        for form in dict.fromkeys((own, own.lower(), own.capitalize())):
            yield lambda text, rng, form=form: f"{form} {text}"
            yield lambda text, rng, form=form: f"{text} {form}"
            yield lambda text, rng, form=form: f"{text.rstrip('.!? ')} {form}."
            yield lambda text, rng, form=form: f"{text}\n\n{form} it is."
            yield lambda text, rng, form=form: f"{form}. {text}"
            yield lambda text, rng, form=form: _insert(text, form, rng.randint(0, 12))
            yield lambda text, rng, form=form: f"{text} " + f"{form} " * rng.randint(1, 12)
            yield lambda text, rng, form=form: _insert(text, form, rng.randrange(len(text.split(" "))))
            yield lambda text, rng, form=form: " ".join([form] * rng.randint(1, 12))
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
            yield lambda text, rng, n=number: f"{text} {sentence(rng, n)}"
            yield lambda text, rng, n=number: _lengthened(text, n, rng)
            yield lambda text, rng, n=number: f"{text}\n\n" + "\n\n".join(sentence(rng, 4) for _ in range(n + 1))
            yield lambda text, rng, n=number: f"{text}\n" + "\n".join(sentence(rng, 2) for _ in range(n))
            yield lambda text, rng, n=number: " ".join(text.split(" ")[: n + rng.randint(-3, 3)])
            yield lambda text, rng, n=number: "\n".join(text.split("\n")[: n + rng.randint(-3, 3)])
            for number_of in (number, number + 1):
                yield lambda text, rng, n=number_of: f"{text}\n" + "\n".join(numbered("-", n, rng))
                yield lambda text, rng, n=number_of: f"{text}\n" + "\n".join(numbered("1.", n, rng))
            for short in ("Why?", "So!", "It is.", "**so**", "7"):
                yield lambda text, rng, n=number, short=short: f"{text} " + " ".join([short] * (n + 1))
            for joint in ("\n", "\n\n"):
                yield lambda text, rng, n=number, joint=joint: _resized(text, joint, n, rng)
            yield lambda text, rng, n=number: _reflowed(text, n, rng)
            for own in texts:
                yield lambda text, rng, n=number, own=own: f"{own} " * (n + rng.randint(0, 1))
                yield lambda text, rng, n=number, own=own: f"{text} " + f"{own}{own[:0] or ' '}" * n
                yield lambda text, rng, n=number, own=own: f"{text} " + f"{own}a " * n
                yield lambda text, rng, n=number, own=own: _insert(text, own, n - 1)


def numbered(mark: str, number: int, rng: random.Random) -> list[str]:
    return [f"{mark} {word}".strip() for word in rng.choices(TOKENS, k=number)]


def _resized(text: str, joint: str, number: int, rng: random.Random) -> str:
    """The text with exactly as many lines or paragraphs: cut, or filled up with some of one to four sentences."""
    blocks = [block for block in re.split("\n+" if joint == "\n" else r"\n\n+", text) if block.strip()]
    more = [" ".join(sentence(rng, 4) for _ in range(rng.randint(1, 4))) for _ in range(number - len(blocks))]
    kept = sorted(rng.sample(range(len(blocks)), min(number, len(blocks))))
    return joint.join([*(blocks[i] for i in kept), *more])


def _reflowed(text: str, number: int, rng: random.Random) -> str:
    """The same words on exactly as many lines that are not blank; a fenced block stays as it is."""
    block = re.search(r"```.*?```", text, re.DOTALL)
    fence = block.group().split("\n") if block else []
    words = text.replace("\n".join(fence), " ").split() if fence else text.split()
    lines = max(1, number - len(fence))
    cuts = [len(words) * i // lines for i in range(lines + 1)]
    prose = [" ".join(words[start:end]) for start, end in itertools.pairwise(cuts)]
    place = rng.randint(0, lines)
    return "\n".join([*prose[:place], *fence, *prose[place:]])


def _lengthened(text: str, words: int, rng: random.Random) -> str:
    """The text with so many words more at the end of one of its lines."""
    lines = text.split("\n")
    place = rng.randrange(len(lines))
    return "\n".join([*lines[:place], f"{lines[place]} {sentence(rng, words)}", *lines[place + 1 :]])


def strings(args: Any) -> list[str]:
    if isinstance(args, str):
        return [args] if len(args) <= LONGEST_OWN else []
    values = args.values() if isinstance(args, dict) else args if isinstance(args, list | tuple) else ()
    return [text for value in values for text in strings(value)]


def _without_a_word(words: list[str], rng: random.Random) -> str:
    place = rng.randrange(len(words))
    return " ".join([*words[:place], *words[place + 1 :]])


def _swapped(words: list[str], rng: random.Random) -> str:
    a, b = rng.randrange(len(words)), rng.randrange(len(words))
    words[a], words[b] = words[b], words[a]
    return " ".join(words)


def _insert(text: str, own: str, place: int) -> str:
    words = text.split(" ")
    return " ".join([*words[:place], own, *words[place + 1 :]])


def sentence(rng: random.Random, words: int) -> str:
    filler = FILLER.split()
    return " ".join(rng.choice(filler) for _ in range(words)).capitalize() + "."
