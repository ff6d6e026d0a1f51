"""Wordings of keywords, phrases, letters and vocabulary."""

from __future__ import annotations

from mapl_ray.instructions.wordings.templates import CountWords, UseWords, count_words

INCLUDE_WORD = (
    "Include the word {word}.",
    "Your response should contain the word {word}.",
    "Use the word {word} at least once in your answer.",
    "Make sure the word {word} appears in your answer.",
    "The response must include the word {word}.",
    "Please mention the word {word} somewhere.",
)
FORBID_WORD = (
    "Do not use the word {word}.",
    "Your response should not contain the word {word}.",
    "Avoid the word {word} in your answer.",
    "Make sure the word {word} does not appear in your answer.",
    "The response must not include the word {word}.",
    "Please do not mention the word {word}.",
)

PROMPT_WORD = UseWords(
    use=(
        "Use the word {word} from my message in your answer.",
        "Your response should contain the word {word}, which is in my message.",
        "Reuse the word {word} from my question at least once.",
        "Make sure the word {word} from this request appears in your answer.",
        "The response must repeat the word {word} from this request.",
        "Mention the word {word}, which I used above.",
    ),
    avoid=(
        "Do not use the word {word} from my message in your answer.",
        "Your response should not contain the word {word}, which is in my message.",
        "Do not reuse the word {word} from my question.",
        "Make sure the word {word} from this request does not appear in your answer.",
        "The response must not repeat the word {word} from this request.",
        "Do not mention the word {word}, which I used above.",
    ),
)

WORD_FREQUENCY = CountWords(
    at_least=(
        "Use the word {word} at least {n} {things}.",
        "The word {word} should appear at least {n} {things} in your response.",
        "Mention the word {word} {n} or more {many} in your answer.",
        "Make sure the word {word} occurs no fewer than {n} {things}.",
        "The response must contain the word {word} a minimum of {n} {things}.",
        "I want to see the word {word} at least {n} {things} in your reply.",
    ),
    at_most=(
        "Use the word {word} at most {n} {things}.",
        "The word {word} should appear no more than {n} {things} in your response.",
        "Do not mention the word {word} more than {n} {things} in your answer.",
        "Make sure the word {word} does not occur more than {n} {things}.",
        "The response must not contain the word {word} more than {n} {things}.",
        "I don't want to see the word {word} more than {n} {things} in your reply.",
    ),
    none=(
        "Do not use the word {word} at all.",
        "The word {word} should never appear in your response.",
        "Do not mention the word {word} in your answer.",
        "Make sure the word {word} does not occur.",
        "The response must not contain the word {word}.",
        "I don't want to see the word {word} in your reply.",
    ),
    nouns=("time", "times"),
)

ALL_OF_WORDS = UseWords(
    use=(
        "Include all of these words: {words}.",
        "Your response should contain each of the words {words}.",
        "Use each of the words {words} at least once in your answer.",
        "Make sure the words {words} all appear in your answer.",
        "The response must include the keywords {words}.",
        "Please work in all of the following words: {words}.",
    ),
    avoid=(
        "Do not use all of these words in one answer: {words}.",
        "Your response should not contain all of the words {words}.",
        "Your answer may use some of the words {words}, but not all of them.",
        "Make sure the words {words} do not all appear in your answer.",
        "The response must not include all of the keywords {words}.",
        "Please leave out at least one of the following words: {words}.",
    ),
)

# The same wordings for two words.
BOTH_WORDS = UseWords(
    use=(
        "Include both of these words: {words}.",
        "Your response should contain both of the words {words}.",
        "Use the words {words} in your answer, each at least once.",
        "Make sure the words {words} both appear in your answer.",
        "The response must include the keywords {words}.",
        "Please work in both of the following words: {words}.",
    ),
    avoid=(
        "Do not use both of these words in one answer: {words}.",
        "Your response should not contain both of the words {words}.",
        "Your answer may use one of the words {words}, but not both.",
        "Make sure the words {words} do not both appear in your answer.",
        "The response must not include both of the keywords {words}.",
        "Please leave out at least one of the following words: {words}.",
    ),
)

ANY_OF_WORDS = UseWords(
    use=(
        "Include at least one of these words: {words}.",
        "Your response should contain one or more of the words {words}.",
        "Use at least one of the words {words} in your answer.",
        "Make sure at least one of the words {words} appears in your answer.",
        "The response must include at least one of the keywords {words}.",
        "Please work in one or more of the following words: {words}.",
    ),
    avoid=(
        "Do not use any of these words: {words}.",
        "Your response should contain none of the words {words}.",
        "Avoid all of the words {words} in your answer.",
        "Make sure none of the words {words} appear in your answer.",
        "The response must not include any of the keywords {words}.",
        "Please stay away from all of the following words: {words}.",
    ),
)

EITHER_WORD = UseWords(
    use=ANY_OF_WORDS.use,
    avoid=(
        "Do not use either of these words: {words}.",
        "Your response should contain neither of the words {words}.",
        "Avoid both of the words {words} in your answer.",
        "Make sure neither of the words {words} appears in your answer.",
        "The response must not include either of the keywords {words}.",
        "Please stay away from both of the following words: {words}.",
    ),
)

SOME_OF_WORDS = CountWords(
    at_least=(
        "Use at least {n} of these words: {words}.",
        "Your response should contain at least {n} of the words {words}.",
        "Include {n} or more of the following words: {words}.",
        "Make sure your answer uses at least {n} of the words {words}.",
        "The response must include a minimum of {n} of the keywords {words}.",
        "I want to see at least {n} of these words in your reply: {words}.",
    ),
    at_most=(
        "Use at most {n} of these words: {words}.",
        "Your response should contain at most {n} of the words {words}.",
        "Do not use more than {n} of the following words: {words}.",
        "Make sure your answer uses no more than {n} of the words {words}.",
        "The response must not include more than {n} of the keywords {words}.",
        "I don't want to see more than {n} of these words in your reply: {words}.",
    ),
    none=ANY_OF_WORDS.avoid,
)

EXACT_PHRASE = UseWords(
    use=(
        "Use the exact phrase {phrase}.",
        "Your response should contain the phrase {phrase}, word for word.",
        "Include the phrase {phrase} in your answer.",
        "Make sure the exact phrase {phrase} appears in your answer.",
        "The response must include the phrase {phrase}.",
        "Please work the phrase {phrase} into your answer.",
    ),
    avoid=(
        "Do not use the exact phrase {phrase}.",
        "Your response should not contain the phrase {phrase}, word for word.",
        "Leave the phrase {phrase} out of your answer.",
        "Make sure the exact phrase {phrase} does not appear in your answer.",
        "The response must not include the phrase {phrase}.",
        "Please keep the phrase {phrase} out of your answer.",
    ),
)

LETTER_COUNT = CountWords(
    at_least=(
        "Use the letter {letter} at least {n} {things}.",
        "The letter {letter} should appear at least {n} {things} in your response.",
        "In your answer, use the letter {letter} {n} or more {many}.",
        "Make sure the letter {letter} occurs no fewer than {n} {things}, counting capitals too.",
        "The response must contain the letter {letter} a minimum of {n} {things}.",
        "I want to see the letter {letter} at least {n} {things} in your reply.",
    ),
    at_most=(
        "Use the letter {letter} at most {n} {things}.",
        "The letter {letter} should appear no more than {n} {things} in your response.",
        "In your answer, do not use the letter {letter} more than {n} {things}.",
        "Make sure the letter {letter} does not occur more than {n} {things}, counting capitals too.",
        "The response must not contain the letter {letter} more than {n} {things}.",
        "I don't want to see the letter {letter} more than {n} {things} in your reply.",
    ),
    none=(
        "Do not use the letter {letter} at all.",
        "The letter {letter} should never appear in your response.",
        "In your answer, do not use the letter {letter}.",
        "Make sure the letter {letter} does not occur, not even as a capital.",
        "The response must not contain the letter {letter}.",
        "I don't want to see the letter {letter} in your reply.",
    ),
    nouns=("time", "times"),
)

INITIAL_COUNT = CountWords(
    at_least=(
        "Use at least {n} {things} starting with the letter {letter}.",
        "Your response should contain at least {n} {things} beginning with {letter}.",
        "Include {n} or more {many} that start with the letter {letter}.",
        "Make sure your answer has no fewer than {n} {things} beginning with the letter {letter}.",
        "The response must include a minimum of {n} {things} starting with {letter}.",
        "I want to see at least {n} {things} beginning with the letter {letter} in your reply.",
    ),
    at_most=(
        "Use at most {n} {things} starting with the letter {letter}.",
        "Your response should contain at most {n} {things} beginning with {letter}.",
        "Do not use more than {n} {things} starting with the letter {letter}.",
        "Make sure your answer has no more than {n} {things} beginning with the letter {letter}.",
        "The response must not contain more than {n} {things} starting with {letter}.",
        "I don't want to see more than {n} {things} beginning with the letter {letter} in your reply.",
    ),
    none=(
        "Use no {many} starting with the letter {letter}.",
        "Your response should contain no {many} beginning with {letter}.",
        "Do not use any {many} that start with the letter {letter}.",
        "Make sure no {many} of your answer begin with the letter {letter}.",
        "The response must not contain any {many} that start with {letter}.",
        "I don't want to see any {many} beginning with the letter {letter} in your reply.",
    ),
    nouns=("word", "words"),
)

UNIQUE_WORDS = count_words("different word", "different words")
LONG_WORDS = count_words("word of ten or more letters", "words of ten or more letters")

LONGEST_WORD = CountWords(
    at_least=(
        "Use at least one word of {n} or more {many}.",
        "Your response should contain a word with at least {n} {things}.",
        "Include one or more words that are at least {n} {things} long.",
        "Make sure at least one word of your answer has {n} or more {many}.",
        "The response must include a word of no fewer than {n} {things}.",
        "I want to see a word of at least {n} {things} in your reply.",
    ),
    at_most=(
        "Do not use any word of more than {n} {things}.",
        "Your response should contain no word with more than {n} {things}.",
        "Do not use words that are longer than {n} {things}.",
        "Make sure every word of your answer has {n} or fewer {many}.",
        "The response must not include any word of more than {n} {things}.",
        "I don't want to see any word of more than {n} {things} in your reply.",
    ),
    none=("Use no letters.",) * 6,
    nouns=("letter", "letters"),
)

MOST_FREQUENT_WORD = CountWords(
    at_least=(
        "Repeat some word of five or more letters at least {n} {things} in all.",
        "At least one word of five or more letters should appear {n} or more {many}.",
        "Use one of your words of at least five letters {n} or more {many}.",
        "Make sure some word of five or more letters occurs at least {n} {things}.",
        "The response must use a word of at least five letters no fewer than {n} {things}.",
        "I want to see one and the same word of five or more letters at least {n} {things}.",
    ),
    at_most=(
        "Do not use any word of five or more letters more than {n} {things} in all.",
        "No word of five or more letters should appear more than {n} {things}.",
        "Use none of your words of at least five letters more than {n} {things}.",
        "Make sure no word of five or more letters occurs more than {n} {things}.",
        "The response must not use any word of at least five letters more than {n} {things}.",
        "I don't want to see any one word of five or more letters more than {n} {things}.",
    ),
    none=("Use no words of five or more letters.",) * 6,
    nouns=("time", "times"),
)

LONG_WORD_SHARE = CountWords(
    at_least=(
        "Of every 100 words, at least {n} should have seven or more letters.",
        "On average, at least {n} out of 100 words should be seven letters or longer.",
        "In your response, {n} or more out of every 100 words should have seven or more letters.",
        "Make sure that no fewer than {n} of every 100 words have at least seven letters.",
        "The response must have at least {n} {things} of seven or more letters per 100 words.",
        "Per 100 words, use a minimum of {n} that are seven letters or longer.",
    ),
    at_most=(
        "Of every 100 words, at most {n} should have seven or more letters.",
        "On average, at most {n} out of 100 words should be seven letters or longer.",
        "In your response, no more than {n} out of every 100 words should have seven or more letters.",
        "Make sure that no more than {n} of every 100 words have at least seven letters.",
        "The response must not have more than {n} {things} of seven or more letters per 100 words.",
        "Per 100 words, use a maximum of {n} that are seven letters or longer.",
    ),
    none=("Use no words of seven or more letters.",) * 6,
    nouns=("word", "words"),
)
