"""Wordings of length: words, characters, sentences, paragraphs, lines."""

from __future__ import annotations

from mapl_ray.instructions.wordings.templates import CountWords, ExactWords

_NO_TEXT = ("Leave the answer empty.",) * 6


def _whole(unit: str, units: str, long: str = " long", note: str = "") -> CountWords:
    return CountWords(
        at_least=(
            f"Write at least {{n}} {{things}}{note}.",
            f"Your response should be at least {{n}} {{things}}{long}{note}.",
            f"Answer with {{n}} or more {{many}}{note}.",
            f"The response should contain no fewer than {{n}} {{things}}{note}.",
            f"Please use a minimum of {{n}} {{things}}{note}.",
            f"I need an answer of at least {{n}} {{things}}{note}.",
        ),
        at_most=(
            f"Write no more than {{n}} {{things}}{note}.",
            f"Your response should be at most {{n}} {{things}}{long}{note}.",
            f"Answer in {{n}} {{things}} or fewer{note}.",
            f"The response should not exceed {{n}} {{things}}{note}.",
            f"Please use a maximum of {{n}} {{things}}{note}.",
            f"Limit your answer to {{n}} {{things}}{note}.",
        ),
        none=_NO_TEXT,
        nouns=(unit, units),
    )


def _part(part: str, adjective: str, verb: str) -> CountWords:
    """Wordings of the number of words of the first or last sentence or paragraph."""
    return CountWords(
        at_least=(
            f"The {part} should have at least {{n}} {{things}}.",
            f"{verb} with a {adjective} of at least {{n}} {{things}}.",
            f"Use {{n}} or more {{many}} in the {part}.",
            f"Make the {part} of your response at least {{n}} {{things}} long.",
            f"Make your {part} no shorter than {{n}} {{things}}.",
            f"In your answer, the {part} must be at least {{n}} {{things}} long.",
        ),
        at_most=(
            f"The {part} should have at most {{n}} {{things}}.",
            f"{verb} with a {adjective} of no more than {{n}} {{things}}.",
            f"Do not use more than {{n}} {{things}} in the {part}.",
            f"Keep the {part} of your response to {{n}} {{things}} or fewer.",
            f"Make your {part} no longer than {{n}} {{things}}.",
            f"In your answer, the {part} must not be longer than {{n}} {{things}}.",
        ),
        none=_NO_TEXT,
        nouns=("word", "words"),
    )


def _average(unit: str) -> CountWords:
    return CountWords(
        at_least=(
            f"Your {unit}s should average at least {{n}} {{things}}.",
            f"On average, write {{n}} or more {{many}} per {unit}.",
            f"The average {unit} should have at least {{n}} {{things}}.",
            f"Write {unit}s of at least {{n}} {{things}} on average.",
            f"Aim for an average of at least {{n}} {{things}} per {unit}.",
            f"Make your {unit}s at least {{n}} {{things}} long on average.",
        ),
        at_most=(
            f"Your {unit}s should average at most {{n}} {{things}}.",
            f"On average, write no more than {{n}} {{things}} per {unit}.",
            f"The average {unit} should have at most {{n}} {{things}}.",
            f"Write {unit}s of no more than {{n}} {{things}} on average.",
            f"Aim for an average of at most {{n}} {{things}} per {unit}.",
            f"Keep your {unit}s to {{n}} {{things}} or fewer on average.",
        ),
        none=_NO_TEXT,
        nouns=("word", "words"),
    )


WORD_COUNT = _whole("word", "words")
CHARACTER_COUNT = _whole("character", "characters", note=", counting spaces")
SENTENCE_COUNT = _whole("sentence", "sentences")

WORD_COUNT_BETWEEN = (
    "Write between {low} and {high} words.",
    "Your response should be between {low} and {high} words long.",
    "Answer in {low} to {high} words.",
    "The response should contain {low} to {high} words.",
    "Please keep the length between {low} and {high} words.",
    "I need an answer of {low} to {high} words.",
)

FIRST_SENTENCE = _part("first sentence", "sentence", "Start")
LAST_SENTENCE = _part("last sentence", "sentence", "End")
FIRST_PARAGRAPH = _part("first paragraph", "paragraph", "Start")
LAST_PARAGRAPH = _part("last paragraph", "paragraph", "End")
WORDS_PER_SENTENCE = _average("sentence")
WORDS_PER_PARAGRAPH = _average("paragraph")

LONGEST_SENTENCE = CountWords(
    at_least=(
        "Include at least one sentence of {n} or more {many}.",
        "At least one sentence should have {n} {things} or more.",
        "Your longest sentence should have at least {n} {things}.",
        "Write at least one sentence that is {n} or more {many} long.",
        "Make one of your sentences at least {n} {things} long.",
        "There should be a sentence with at least {n} {things} in your answer.",
    ),
    at_most=(
        "Do not write any sentence of more than {n} {things}.",
        "No sentence should have more than {n} {things}.",
        "Your longest sentence should have at most {n} {things}.",
        "Write no sentence that is longer than {n} {things}.",
        "Keep each of your sentences to {n} {things} or fewer.",
        "There should be no sentence with more than {n} {things} in your answer.",
    ),
    none=_NO_TEXT,
    nouns=("word", "words"),
)

PARAGRAPH_COUNT = CountWords(
    at_least=(
        "Write at least {n} {things}, separated by blank lines.",
        "Your response should have at least {n} {things}, with a blank line between them.",
        "Divide your answer into {n} or more {many}, separated by blank lines.",
        "The response should contain no fewer than {n} {things}; separate them with blank lines.",
        "Use a minimum of {n} {things}, with blank lines between paragraphs.",
        "I want at least {n} {things}, each separated from the next by a blank line.",
    ),
    at_most=(
        "Write at most {n} {things}, separated by blank lines.",
        "Your response should have no more than {n} {things}, with a blank line between them.",
        "Do not divide your answer into more than {n} {things} (blank lines separate paragraphs).",
        "The response should not contain more than {n} {things}; separate them with blank lines.",
        "Use a maximum of {n} {things}, with blank lines between paragraphs.",
        "I want no more than {n} {things}, each separated from the next by a blank line.",
    ),
    none=_NO_TEXT,
    nouns=("paragraph", "paragraphs"),
)

PARAGRAPH_EXACT = ExactWords(
    exactly=(
        "Write exactly {n} {things}, using blank lines to separate paragraphs.",
        "Your response should have exactly {n} {things} (blank lines separate paragraphs).",
        "There should be {n} {things}, no more and no fewer; a blank line starts a new paragraph.",
        "The response must consist of exactly {n} {things}, where a blank line starts a new one.",
        "Structure your answer as exactly {n} {things}; a blank line marks a new paragraph.",
        "I want exactly {n} {things} in your answer; a blank line starts a new paragraph.",
    ),
    one=(
        "Write exactly one paragraph, without blank lines.",
        "Your response should be a single paragraph.",
        "There should be only one paragraph; do not use blank lines.",
        "The response must consist of exactly one paragraph.",
        "Structure your answer as a single paragraph with no blank lines.",
        "I want your answer in one paragraph.",
    ),
    none=_NO_TEXT,
    nouns=("paragraph", "paragraphs"),
)

LINE_COUNT = CountWords(
    at_least=(
        "Write at least {n} {things}, not counting blank lines.",
        "Your response should have at least {n} {things} (blank lines do not count).",
        "Spread your answer over {n} or more {many}, not counting blank ones.",
        "The response should be no fewer than {n} {things} long, blank lines aside.",
        "Use a minimum of {n} {things}; blank lines do not count.",
        "I want an answer of at least {n} {things}, without counting blank lines.",
    ),
    at_most=(
        "Write at most {n} {things}, not counting blank lines.",
        "Your response should have no more than {n} {things} (blank lines do not count).",
        "Do not spread your answer over more than {n} {things}, not counting blank ones.",
        "The response should be no more than {n} {things} long, blank lines aside.",
        "Use a maximum of {n} {things}; blank lines do not count.",
        "I want an answer of at most {n} {things}, without counting blank lines.",
    ),
    none=_NO_TEXT,
    nouns=("line", "lines"),
)

LINE_EXACT = ExactWords(
    exactly=(
        "Write exactly {n} {things}, not counting blank lines.",
        "Your response should have exactly {n} {things} (blank lines do not count).",
        "Answer in {n} {things}, no more and no fewer; blank ones do not count.",
        "The response should be exactly {n} {things} long, blank lines aside.",
        "Use exactly {n} {things}; blank lines do not count.",
        "I want an answer of exactly {n} {things}, without counting blank lines.",
    ),
    one=(
        "Write your whole answer on a single line.",
        "Your response should be exactly one line long.",
        "Answer in a single line, without line breaks.",
        "The response should consist of only one line.",
        "Use only one line for your answer.",
        "I want your whole answer on one line.",
    ),
    none=_NO_TEXT,
    nouns=("line", "lines"),
)
