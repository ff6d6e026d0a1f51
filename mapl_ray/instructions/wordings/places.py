"""Wordings of positions: first and last words, endings, sentences."""

from __future__ import annotations

from mapl_ray.instructions.wordings.templates import UseWords

FIRST_WORD = (
    "Begin with the word {word}.",
    "The first word of your response should be {word}.",
    "Start your answer with the word {word}.",
    "Make {word} the very first word of your answer.",
    "Your response must start with the word {word}.",
    "Open your reply with the word {word}.",
)
FIRST_WORD_NOT = (
    "Do not begin with the word {word}.",
    "The first word of your response should not be {word}.",
    "Start your answer with any word except {word}.",
    "Do not make {word} the very first word of your answer.",
    "Your response must not start with the word {word}.",
    "Do not open your reply with the word {word}.",
)
FIRST_LETTER = (
    "Begin with a word that starts with the letter {letter}.",
    "The first letter of your response should be {letter}.",
    "Start your answer with the letter {letter}.",
    "Make {letter} the very first letter of your answer.",
    "The first word of your response must start with the letter {letter}.",
    "Open your reply with a word beginning with {letter}.",
)
LAST_WORD = (
    "End with the word {word}.",
    "The last word of your response should be {word}.",
    "Finish your answer with the word {word}.",
    "Make {word} the very last word of your answer.",
    "Your response must end with the word {word}.",
    "Close your reply with the word {word}.",
)
ENDING_PHRASE = (
    "End with the words {phrase}.",
    "The last words of your response should be {phrase}.",
    "Finish your answer with the words {phrase}.",
    "Make {phrase} the very last words of your answer.",
    "Your response must end with the words {phrase}.",
    "Close your reply with the words {phrase}.",
)
# The phrase may end with a mark, so it is never at the end of the sentence.
EXACT_ENDING = (
    "End with the exact phrase {phrase} and nothing after it.",
    "Your response should end with the exact words {phrase} with nothing following them.",
    "Finish your answer with the exact phrase {phrase} and add nothing else.",
    "Make the exact phrase {phrase} the very end of your answer.",
    "The very last words of your response must be {phrase} exactly as written here.",
    "Close your reply with the phrase {phrase} and write no other words after it.",
)

ENDING_MARK = UseWords(
    use=(
        "End with {mark}.",
        "Your response should end with {mark}.",
        "The last character of your answer must be {mark}.",
        "Finish your answer with {mark}.",
        "Make sure your response ends with {mark}.",
        "Close your reply with {mark}.",
    ),
    avoid=(
        "Do not end with {mark}.",
        "Your response should not end with {mark}.",
        "The last character of your answer must not be {mark}.",
        "Do not finish your answer with {mark}.",
        "Make sure your response does not end with {mark}.",
        "Do not close your reply with {mark}.",
    ),
)

NTH_WORD = (
    "The {place} word of your response should be {word}.",
    "Make {word} the {place} word of your answer.",
    "Use {word} as the {place} word of your response.",
    "Your answer must have {word} as its {place} word.",
    "Write your response so that its {place} word is {word}.",
    "The {place} word of your answer must be {word}.",
)

WORD_ORDER = (
    "Use the words {a} and {b}, and use {a} before {b}.",
    "Your response should contain both {a} and {b}, with {a} coming first.",
    "Mention {a} in your answer and, later on, {b} as well.",
    "Make sure the word {a} appears in your answer before the word {b} does.",
    "The words {a} and {b} must both appear in the response, in this order.",
    "Please use the word {a} first and the word {b} after it.",
)

LAST_PARAGRAPH_START = (
    "Begin the last paragraph with the word {word}.",
    "The last paragraph of your response should start with the word {word}.",
    "Start your final paragraph with the word {word}.",
    "Make {word} the first word of your last paragraph.",
    "Your final paragraph must begin with the word {word}.",
    "Open the last paragraph of your answer with the word {word}.",
)


def sentence_word(part: str) -> UseWords:
    """Wordings of a word in a given sentence, such as "first" or "last"."""
    return UseWords(
        use=tuple(
            template.replace("{part}", part)
            for template in (
                "Use the word {word} in the {part} sentence.",
                "The {part} sentence of your response should contain the word {word}.",
                "Include the word {word} in your {part} sentence.",
                "Make sure the word {word} appears in the {part} sentence of your answer.",
                "Your {part} sentence must include the word {word}.",
                "Please mention the word {word} in the {part} sentence.",
            )
        ),
        avoid=tuple(
            template.replace("{part}", part)
            for template in (
                "Do not use the word {word} in the {part} sentence.",
                "The {part} sentence of your response should not contain the word {word}.",
                "Leave the word {word} out of your {part} sentence.",
                "Make sure the word {word} does not appear in the {part} sentence of your answer.",
                "Your {part} sentence must not include the word {word}.",
                "Please do not mention the word {word} in the {part} sentence.",
            )
        ),
    )


FIRST_SENTENCE_WORD = sentence_word("first")
LAST_SENTENCE_WORD = sentence_word("last")
