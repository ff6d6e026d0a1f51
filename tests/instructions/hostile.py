"""Texts that are slow for a rule that is not linear: pieces that begin something, again and again, and never end it."""

from __future__ import annotations

import random
import time

from mapl_ray.instructions import Features, InstructionFunction

PIECES = (
    "x", "word ", "[", "]", "<<", ">>", "[a](", "`a", "```\n", "|---", "|a", "e\u0301", "\u202ea", "- - ", "- a\n",
    "A. ", "1.", "1. a\n", "1,", "**a", "__a", "a-", "a'", "P.S. ", "\n", "\n\n", " ", "\t", "# a\n", "#", "> ", "?!",
    "...", "(", '"', "$", "\\(", "&a", "<a ", "http://", "www.", "a@a.", "a.b", "5%", "1999", "Section 1\n", "I ",
    "\u5b57", "\U0001f642", "\u2019", "*", "_", "~~~\n", "=", "Step 1 ", "U.S.", ":)", "\u00e4 ",
)  # fmt: skip
PROMPT = "word " * 100


def text_of(unit: str, length: int) -> str:
    """The unit again and again."""
    return unit * (length // len(unit))


def seconds(function: InstructionFunction, text: Features) -> float:
    """CPU seconds that the function takes to write an instruction of either flag and to judge a text by one."""
    started = time.process_time()
    for flag in (True, False):
        instruction = function.generate(text, flag, random.Random(0), prompt=PROMPT)
        if instruction is not None:
            assert instruction.verdict(text) is flag
    return time.process_time() - started
