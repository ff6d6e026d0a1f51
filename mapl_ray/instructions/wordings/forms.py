"""Wordings of forms that benchmarks ask for."""

from __future__ import annotations

from mapl_ray.instructions.wordings.templates import UseWords, count_words

POSTSCRIPT = UseWords(
    use=(
        "At the end of your response, add a postscript starting with P.S.",
        "Finish your answer with a postscript that begins with P.S.",
        "Include a postscript (P.S.) at the end of your reply.",
        "Make sure your answer closes with a P.S. of its own.",
        "The response must have a postscript that starts with P.S. and stands at its end.",
        "Please add a P.S. after your answer.",
    ),
    avoid=(
        "Do not add a postscript (P.S.) to your response.",
        "Do not finish your answer with a postscript.",
        "Do not include a postscript (P.S.) at the end of your reply.",
        "Make sure your answer does not close with a P.S. of any kind.",
        "The response must not have a postscript.",
        "Please do not add a P.S. after your answer.",
    ),
)

TWO_RESPONSES = UseWords(
    use=(
        "Give two different responses, separated by a line of 6 asterisks (******).",
        "Your reply should consist of two different answers with ****** on a line between them.",
        "Write exactly two alternative answers and separate them with ****** on a line of its own.",
        "Make sure you give two responses, with only ****** on the line that divides them.",
        "The reply must contain two different responses, divided by a line of 6 asterisk symbols (******).",
        "Please answer twice in different ways, and put a line of six asterisks (******) in between.",
    ),
    avoid=(
        "Give only one response, not two versions separated by asterisks (******).",
        "Your reply should be a single answer, not two alternatives with ****** in between.",
        "Do not offer two alternative answers separated by six asterisks (******).",
        "Make sure you give a single response, without ****** as a divider.",
        "The reply must contain one response only, not two divided by asterisks (******).",
        "Please answer once, with no line of asterisks (******) in between.",
    ),
)

SECTIONS = UseWords(
    use=(
        "Divide your answer into at least two sections, marked Section 1, Section 2 and so on.",
        "Your response should have two or more sections, each starting with a line such as Section 1.",
        "Use at least two sections, and begin each with the word Section and its number.",
        "Make sure your answer has at least two parts labeled Section 1, Section 2 and so on.",
        "The response must be split into sections marked as Section 1, Section 2 and so on.",
        "Please structure your reply in at least two sections headed Section 1, Section 2 and so on.",
    ),
    avoid=(
        "Do not divide your answer into sections marked Section 1, Section 2 and so on.",
        "Your response should not have sections that start with a line such as Section 1.",
        "Do not use sections that begin with the word Section and a number.",
        "Make sure your answer has no parts labeled Section 1, Section 2 and so on.",
        "The response must not be split into sections marked as Section 1, Section 2 and so on.",
        "Please do not structure your reply in sections headed Section 1, Section 2 and so on.",
    ),
)

ALL_CAPITALS = UseWords(
    use=(
        "Write everything in capital letters.",
        "Your entire response should be in all capital letters.",
        "Use capital letters only.",
        "Make sure there are no lowercase letters anywhere in your answer.",
        "The response must be in all caps.",
        "Please do not use any lowercase letters.",
    ),
    avoid=(
        "Do not write everything in capital letters.",
        "Your entire response should not be in all capital letters.",
        "Do not use capital letters only.",
        "Make sure your answer is not written in all caps.",
        "The response must not be in all caps.",
        "Please do not write your whole reply in capital letters.",
    ),
)

ENGLISH = UseWords(
    use=(
        "Answer in English.",
        "Your entire response should be in English.",
        "Write your whole answer in English.",
        "Make sure you reply in English.",
        "The response must be in English and in no other language.",
        "Please use English throughout your answer.",
    ),
    avoid=(
        "Do not answer in English.",
        "Your entire response should be in a language other than English.",
        "Write your whole answer in some language other than English.",
        "Make sure you do not reply in English.",
        "The response must not be in English but in another language.",
        "Please use a language other than English throughout your answer.",
    ),
)

PRONOUNS = count_words(
    "personal pronoun (I, you, he, she, it, we, they or a form of these)",
    "personal pronouns (I, you, he, she, it, we, they and forms of these)",
)

REQUEST_REPEATED = UseWords(
    use=(
        "First repeat the request above word for word, then give your answer.",
        "Begin your response by repeating my request above word for word without change.",
        "Before you answer, repeat the request above exactly as it is.",
        "Make sure your response starts with an exact copy of the request above, followed by your answer.",
        "The response must first repeat the request above without any change and then answer it.",
        "Please copy the request above word for word at the beginning of your reply.",
    ),
    avoid=(
        "Do not repeat the request above before you give your answer.",
        "Do not begin your response by repeating my request above word for word.",
        "Answer right away, without repeating the request above first.",
        "Make sure your response does not start with a copy of the request above.",
        "The response must not repeat the request above before answering it.",
        "Please do not copy the request above at the beginning of your reply.",
    ),
)
