"""Wordings of grammatical person, letter case, script, and formats that ordinary text does not have."""

from __future__ import annotations

from mapl_ray.instructions.phrasing import listed
from mapl_ray.instructions.wordings.templates import UseWords, use_words


def _pronouns(use: str, avoid: str, words: tuple[str, ...]) -> UseWords:
    words = tuple("I" if word == "i" else word for word in words)
    either, none = listed(words, "or"), listed(words, "and")
    return UseWords(
        use=(
            f"{use}: use {either} at least once.",
            f"Your response should contain at least one of the words {none}.",
            f"Use {either} somewhere in your answer.",
            f"Make sure at least one of the words {none} appears in your answer.",
            f"The response must include one or more of these words: {none}.",
            f"{use}, with at least one of the words {none}.",
        ),
        avoid=(
            f"{avoid}: never use {either}.",
            f"Your response should contain none of the words {none}.",
            f"Do not use {either} anywhere in your answer.",
            f"Make sure none of the words {none} appear in your answer.",
            f"The response must not include any of these words: {none}.",
            f"{avoid}; leave out the words {none}.",
        ),
    )


def first_person(words: tuple[str, ...]) -> UseWords:
    """Wordings of speaking as "I"."""
    return _pronouns("Write in the first person", "Do not write in the first person singular", words)


def second_person(words: tuple[str, ...]) -> UseWords:
    """Wordings of addressing the reader."""
    return _pronouns("Address the reader directly", "Do not address the reader directly", words)


def first_person_plural(words: tuple[str, ...]) -> UseWords:
    """Wordings of speaking as "we"."""
    return _pronouns('Write as "we"', 'Do not write as "we"', words)


def third_person(words: tuple[str, ...]) -> UseWords:
    """Wordings of referring to someone as he or she."""
    return _pronouns("Refer to someone as he or she", "Do not refer to anyone as he or she", words)


EMOJI_USE = use_words("an emoji", "emojis")

ASCII_USE = UseWords(
    use=(
        "Use plain ASCII characters only.",
        "Your response should not contain any non-ASCII character.",
        "Write your whole answer in ASCII (no accents, curly quotes or long dashes).",
        "Make sure every character of your answer is ASCII.",
        "The response must consist of ASCII characters only.",
        "Please avoid all non-ASCII characters, such as accents or curly quotes.",
    ),
    avoid=(
        "Use at least one character that is not plain ASCII.",
        "Your response should contain some non-ASCII character.",
        "Do not write your whole answer in ASCII (use an accent, curly quote or long dash).",
        "Make sure at least one character of your answer is not ASCII.",
        "The response must not consist of ASCII characters only.",
        "Please use a non-ASCII character, such as an accent or curly quote.",
    ),
)

SMALL_LETTERS = UseWords(
    use=(
        "Write everything in lowercase.",
        "Your entire response should be in lowercase letters, with no capital letters.",
        "Use lowercase letters only.",
        "Make sure there are no capital letters anywhere in your answer.",
        "The response must be in all lowercase letters.",
        "Please do not use any capital letters.",
    ),
    avoid=(
        "Do not write everything in lowercase.",
        "Your response should not be entirely in lowercase letters; use capital letters too.",
        "Do not use lowercase letters only.",
        "Make sure there are some capital letters in your answer.",
        "The response must not be in all lowercase letters.",
        "Please do not leave out all capital letters.",
    ),
)

JSON_ONLY = UseWords(
    use=(
        "Answer with JSON and nothing else.",
        "Your entire response should be valid JSON.",
        "Format your whole answer as JSON, with no text around it.",
        "Make sure your complete output is one valid JSON value.",
        "The response must be a JSON document and contain nothing else.",
        "Please return only JSON.",
    ),
    avoid=(
        "Do not answer with JSON.",
        "Your response should not be in JSON.",
        "Do not format your answer as JSON.",
        "Make sure your output is not JSON.",
        "The response must not be a JSON document.",
        "Please do not return JSON.",
    ),
)

MARKED_TITLE = UseWords(
    use=(
        "Give your answer a title in double angle brackets, as in <<title>>.",
        "Your response should contain a title wrapped in double angle brackets, such as <<my title>>.",
        "Include a title between << and >> in your answer.",
        "Make sure your answer has a title in double angular brackets, i.e. <<title>>.",
        "The response must have a title of the form <<title>>.",
        "Please add a title and wrap it in double angle brackets, like <<this>>.",
    ),
    avoid=(
        "Do not give your answer a title in double angle brackets, as in <<title>>.",
        "Your response should not contain a title wrapped in double angle brackets, such as <<my title>>.",
        "Do not include a title between << and >> in your answer.",
        "Make sure your answer has no title in double angular brackets, i.e. <<title>>.",
        "The response must not have a title of the form <<title>>.",
        "Please do not add a title in double angle brackets, like <<this>>.",
    ),
)

PLACEHOLDERS = UseWords(
    use=(
        "Use at least three placeholders in square brackets, such as [name].",
        "Your response should contain three or more placeholders like [address], in square brackets.",
        "Include at least three placeholders in square brackets, for example [date].",
        "Make sure your answer has a minimum of three placeholders such as [name].",
        "The response must contain at least 3 placeholders represented by square brackets, such as [address].",
        "Please leave three or more details open as placeholders, like [place].",
    ),
    avoid=(
        "Do not use placeholders in square brackets, such as [name].",
        "Your response should not contain placeholders like [address], in square brackets.",
        "Do not include any placeholders in square brackets, for example [date].",
        "Make sure your answer has no placeholders such as [name].",
        "The response must not contain placeholders represented by square brackets, such as [address].",
        "Please do not leave any details open as placeholders, like [place].",
    ),
)

IN_QUOTATION_MARKS = UseWords(
    use=(
        "Put your whole response in double quotation marks.",
        "Your entire response should be wrapped in double quotation marks.",
        "Wrap your entire answer in double quotes.",
        "Make sure your whole answer is enclosed in one pair of double quotation marks.",
        "The response must be wrapped in double quotes from beginning to end.",
        "Please enclose your full reply in double quotation marks.",
    ),
    avoid=(
        "Do not put your whole response in double quotation marks.",
        "Your entire response should not be wrapped in double quotation marks.",
        "Do not wrap your entire answer in double quotes.",
        "Make sure your whole answer is not enclosed in double quotation marks.",
        "The response must not be wrapped in double quotes from beginning to end.",
        "Please do not enclose your full reply in double quotation marks.",
    ),
)
