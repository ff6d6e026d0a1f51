"""Wordings of punctuation and numbers."""

from __future__ import annotations

from mapl_ray.instructions.wordings.templates import CountWords, ExactWords, UseWords, count_words, use_words

COMMA_COUNT = count_words("comma", "commas")
COLON_COUNT = count_words("colon", "colons")
QUESTION_MARK_COUNT = count_words("question mark", "question marks")
EXCLAMATION_MARK_COUNT = count_words("exclamation mark", "exclamation marks")

COMMA_USE = use_words("a comma", "commas")
EXCLAMATION_MARK_USE = use_words("an exclamation mark", "exclamation marks")
QUESTION_MARK_USE = use_words("a question mark", "question marks")
COLON_USE = use_words("a colon", "colons")
SEMICOLON_USE = use_words("a semicolon", "semicolons")
QUOTATION_MARK_USE = use_words("a double quotation mark", "double quotation marks")
DASH_USE = use_words("a dash (\u2013 or \u2014)", "dashes (\u2013 or \u2014)")
DIGIT_USE = use_words("a digit (0-9)", "digits (0-9)")

BRACKET_USE = UseWords(
    use=(
        "Use parentheses ( ) at least once.",
        "Your response should contain parentheses ( ).",
        "Put something in parentheses ( ) in your answer.",
        "Make sure parentheses ( ) appear somewhere in your answer.",
        "The response must include parentheses ( ).",
        "I want to see parentheses ( ) in your reply.",
    ),
    avoid=(
        "Do not use parentheses ( ).",
        "Your response should contain no parentheses ( ).",
        "Do not put anything in parentheses ( ) in your answer.",
        "Make sure parentheses ( ) appear nowhere in your answer.",
        "The response must not include any parentheses ( ).",
        "I don't want to see any parentheses ( ) in your reply.",
    ),
)

QUESTION_COUNT = CountWords(
    at_least=(
        "Ask at least {n} {things}.",
        "Your response should contain at least {n} {things} ending in a question mark.",
        "Include {n} or more {many} in your answer.",
        "Make sure you ask no fewer than {n} {things}.",
        "The response must ask a minimum of {n} {things}.",
        "I want you to ask at least {n} {things} in your reply.",
    ),
    at_most=(
        "Ask at most {n} {things}.",
        "Your response should contain at most {n} {things} ending in a question mark.",
        "Do not put more than {n} {things} in your answer.",
        "Make sure you ask no more than {n} {things}.",
        "The response must not ask more than {n} {things}.",
        "I don't want you to ask more than {n} {things} in your reply.",
    ),
    none=(
        "Ask no {many}.",
        "Your response should contain no {many} ending in a question mark.",
        "Do not put any {many} in your answer.",
        "Make sure you ask no {many}.",
        "The response must not ask any {many}.",
        "I don't want you to ask any {many} in your reply.",
    ),
    nouns=("question", "questions"),
)

NUMBER_COUNT = CountWords(
    at_least=(
        "Use at least {n} {things} written in digits, not counting list numbering.",
        "Your response should contain at least {n} {things} in digits (list numbering does not count).",
        "Include {n} or more {many} in digits in your answer, apart from list numbering.",
        "Make sure your answer has no fewer than {n} {things} written as digits; ignore list numbering.",
        "The response must include a minimum of {n} {things} in digits, aside from list numbers.",
        "I want to see at least {n} {things} in digits in your reply, without counting list numbering.",
    ),
    at_most=(
        "Use at most {n} {things} written in digits, not counting list numbering.",
        "Your response should contain at most {n} {things} in digits (list numbering does not count).",
        "Do not use more than {n} {things} in digits in your answer, apart from list numbering.",
        "Make sure your answer has no more than {n} {things} written as digits; ignore list numbering.",
        "The response must not contain more than {n} {things} in digits, aside from list numbers.",
        "I don't want to see more than {n} {things} in digits in your reply, without counting list numbering.",
    ),
    none=(
        "Use no {many} written in digits, not counting list numbering.",
        "Your response should contain no {many} in digits (list numbering does not count).",
        "Do not use any {many} in digits in your answer, apart from list numbering.",
        "Make sure your answer has no {many} written as digits; ignore list numbering.",
        "The response must not contain any {many} in digits, aside from list numbers.",
        "I don't want to see any {many} in digits in your reply, without counting list numbering.",
    ),
    nouns=("number", "numbers"),
)

NUMBER_EXACT = ExactWords(
    exactly=(
        "Use exactly {n} {things} written in digits, not counting list numbering.",
        "Your response should contain exactly {n} {things} in digits (list numbering does not count).",
        "Include {n} {things} in digits in your answer, no more and no fewer, apart from list numbering.",
        "Make sure your answer has exactly {n} {things} written as digits; ignore list numbering.",
        "The response must include exactly {n} {things} in digits, aside from list numbers.",
        "I want exactly {n} {things} in digits in your reply, without counting list numbering.",
    ),
    none=NUMBER_COUNT.none,
    nouns=("number", "numbers"),
)

YEAR_USE = UseWords(
    use=(
        "Mention at least one year in four digits, such as 1987.",
        "Your response should contain a four-digit year, such as 1987.",
        "Include at least one year (four digits, like 1987) in your answer.",
        "Make sure your answer gives a year as four digits, for example 1987.",
        "The response must refer to a year written in four digits, like 1987.",
        "There should be at least one four-digit year, such as 1987, in the response.",
    ),
    avoid=(
        "Do not mention any year in four digits, such as 1987.",
        "Your response should not contain any four-digit year, such as 1987.",
        "Leave out years (four digits, like 1987) in your answer.",
        "Make sure your answer does not give any year as four digits, for example 1987.",
        "The response must not refer to any year written in four digits, like 1987.",
        "There should be no four-digit year, such as 1987, in the response.",
    ),
)

PERCENTAGE_USE = UseWords(
    use=(
        "Give at least one percentage in digits, such as 40%.",
        "Your response should contain a percentage, such as 40%.",
        "Include at least one percentage written in digits (like 40%) in your answer.",
        "Make sure your answer states a percentage in digits, for example 40%.",
        "The response must quote a percentage in digits, like 40%.",
        "There should be at least one percentage, such as 40%, in the response.",
    ),
    avoid=(
        "Do not give any percentage in digits, such as 40%.",
        "Your response should not contain any percentage, such as 40%.",
        "Leave percentages written in digits (like 40%) out of your answer.",
        "Make sure your answer does not state any percentage in digits, for example 40%.",
        "The response must not quote any percentage in digits, like 40%.",
        "There should be no percentage, such as 40%, in the response.",
    ),
)
