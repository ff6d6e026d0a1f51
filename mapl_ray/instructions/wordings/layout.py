"""Wordings of Markdown and lists."""

from __future__ import annotations

from mapl_ray.instructions.wordings.templates import CountWords, UseWords, count_words, exact_words

BULLET_COUNT = count_words("bullet point", "bullet points")
BULLET_EXACT = exact_words("bullet point", "bullet points")
NUMBERED_COUNT = count_words("numbered list item", "numbered list items")
BOLD_COUNT = count_words("part in bold (**like this**)", "parts in bold (**like this**)")
HEADING_COUNT = count_words("Markdown heading (a line starting with #)", "Markdown headings (lines starting with #)")

LIST_USE = UseWords(
    use=(
        "Use a bulleted or numbered list.",
        "Your response should contain a list, either bulleted or numbered.",
        "Present at least part of your answer as a bulleted or numbered list.",
        "Make sure your answer includes a list with bullets or numbers.",
        "The response must contain a bulleted or numbered list.",
        "I want to see a list (bullets or numbers) in your reply.",
    ),
    avoid=(
        "Do not use bulleted or numbered lists.",
        "Your response should not contain any list, neither bulleted nor numbered.",
        "Do not present any part of your answer as a bulleted or numbered list.",
        "Make sure your answer includes no list with bullets or numbers.",
        "The response must not contain a bulleted or numbered list.",
        "I don't want to see any list (bullets or numbers) in your reply.",
    ),
)

BOLD_USE = UseWords(
    use=(
        "Put at least one word or phrase in bold, **like this**.",
        "Your response should use Markdown bold text.",
        "Highlight something in your answer in bold (**bold**).",
        "Make sure part of your answer is in Markdown bold.",
        "The response must contain bold text, marked **like this**.",
        "Emphasize at least one part of the answer with **bold**.",
    ),
    avoid=(
        "Do not put any word or phrase in bold, **like this**.",
        "Your response should not use Markdown bold text.",
        "Do not highlight anything in your answer in bold (**bold**).",
        "Make sure no part of your answer is in Markdown bold.",
        "The response must not contain bold text, marked **like this**.",
        "Do not emphasize any part of the answer with **bold**.",
    ),
)

HEADING_USE = UseWords(
    use=(
        "Use at least one Markdown heading (a line starting with #).",
        "Your response should contain a Markdown heading.",
        'Structure your answer with Markdown headings such as "## Title".',
        "Make sure your answer has at least one heading marked with # signs.",
        "The response must include Markdown headings (lines starting with #).",
        "Give your answer one or more Markdown headings.",
    ),
    avoid=(
        "Do not use Markdown headings (lines starting with #).",
        "Your response should not contain any Markdown heading.",
        'Do not structure your answer with Markdown headings such as "## Title".',
        "Make sure your answer has no headings marked with # signs.",
        "The response must not include Markdown headings (lines starting with #).",
        "Do not give your answer any Markdown headings.",
    ),
)

CODE_BLOCK_USE = UseWords(
    use=(
        "Use at least one fenced code block (```).",
        "Your response should contain a code block between triple backticks.",
        "Include a Markdown code block in your answer.",
        "Make sure your answer has a code block fenced with ```.",
        "The response must contain at least one code block in triple backticks.",
        "Put at least part of your answer in a fenced code block.",
    ),
    avoid=(
        "Do not use fenced code blocks (```).",
        "Your response should not contain any code block between triple backticks.",
        "Do not include a Markdown code block in your answer.",
        "Make sure your answer has no code block fenced with ```.",
        "The response must not contain any code block in triple backticks.",
        "Do not put any part of your answer in a fenced code block.",
    ),
)

LINK_USE = UseWords(
    use=(
        "Include at least one link.",
        "Your response should contain a link to a web page.",
        "Give at least one web address or Markdown link in your answer.",
        "Make sure your answer includes a URL or link.",
        "The response must contain at least one web link.",
        "Provide a link to a website in your reply.",
    ),
    avoid=(
        "Do not include any links.",
        "Your response should not contain any link to a web page.",
        "Do not give any web address or Markdown link in your answer.",
        "Make sure your answer includes no URLs or links.",
        "The response must not contain any web links.",
        "Do not provide any link to a website in your reply.",
    ),
)

INLINE_CODE_USE = UseWords(
    use=(
        "Format at least one term as inline code (`like this`).",
        "Your response should contain some `inline code` between single backticks.",
        "Put at least one term in your answer between single backticks (`term`).",
        "Make sure something in your answer is set as inline code, `like this`.",
        "The response must contain inline code between backticks, such as `this`.",
        "Use inline code formatting (`text`) somewhere in your reply.",
    ),
    avoid=(
        "Do not format any term as inline code (`like this`).",
        "Your response should not contain any `inline code` between single backticks.",
        "Do not put any term in your answer between single backticks (`term`).",
        "Make sure nothing in your answer is set as inline code, `like this`.",
        "The response must not contain inline code between backticks, such as `this`.",
        "Do not use inline code formatting (`text`) anywhere in your reply.",
    ),
)

TABLE_USE = UseWords(
    use=(
        "Use at least one Markdown table.",
        "Your response should contain a table in Markdown.",
        "Include a Markdown table in your answer.",
        "Make sure part of your answer is presented as a Markdown table.",
        "The response must contain at least one table in Markdown format.",
        "Present some of the information in a Markdown table.",
    ),
    avoid=(
        "Do not use Markdown tables.",
        "Your response should not contain any table in Markdown.",
        "Do not include a Markdown table in your answer.",
        "Make sure no part of your answer is presented as a Markdown table.",
        "The response must not contain any table in Markdown format.",
        "Do not present any of the information in a Markdown table.",
    ),
)

MARKDOWN_USE = UseWords(
    use=(
        "Format your answer with Markdown (headings, lists, tables, bold text or code blocks).",
        "Your response should use some Markdown: a heading, a list, a table, bold text or a code block.",
        "Use Markdown formatting such as headings, lists, tables, bold text or code blocks.",
        "Make sure your answer uses Markdown (headings, lists, tables, bold or code blocks).",
        "The response must contain Markdown, be it headings, lists, tables, bold text or code blocks.",
        "I want Markdown in your reply: headings, lists, tables, bold text or code blocks.",
    ),
    avoid=(
        "Do not format your answer with Markdown (no headings, lists, tables, bold text or code blocks).",
        "Your response should use no Markdown: no heading, list, table, bold text or code block.",
        "Do not use Markdown formatting such as headings, lists, tables, bold text or code blocks.",
        "Make sure your answer uses no Markdown (no headings, lists, tables, bold or code blocks).",
        "The response must not contain Markdown, be it headings, lists, tables, bold text or code blocks.",
        "I want plain text in your reply: no headings, lists, tables, bold text or code blocks.",
    ),
)

SENTENCE_STARTS = UseWords(
    use=(
        "Start two consecutive sentences with the same word at least once.",
        "Your response should have two sentences in a row that begin with the same word.",
        "At least once, begin a sentence with the same word as the sentence before it.",
        "Make sure two neighboring sentences open with the same word.",
        "The response must contain two consecutive sentences that start with the same word.",
        "Use the same first word for two sentences in a row at least once.",
    ),
    avoid=(
        "Do not start two consecutive sentences with the same word.",
        "Your response should not have two sentences in a row that begin with the same word.",
        "Never begin a sentence with the same word as the sentence before it.",
        "Make sure no two neighboring sentences open with the same word.",
        "The response must not contain two consecutive sentences that start with the same word.",
        "Do not use the same first word for two sentences in a row.",
    ),
)

CAPITAL_WORDS = CountWords(
    at_least=(
        "Write at least {n} {things} in all capital letters.",
        "Your response should contain at least {n} fully capitalized {things} (like NASA).",
        "Include {n} or more {many} in all caps in your answer.",
        "Make sure your answer has no fewer than {n} {things} in ALL CAPS.",
        "The response must include a minimum of {n} {things} with all capital letters.",
        "I want to see at least {n} {things} in all caps in your reply.",
    ),
    at_most=(
        "Write at most {n} {things} in all capital letters.",
        "Your response should contain at most {n} fully capitalized {things} (like NASA).",
        "Do not use more than {n} {things} in all caps in your answer.",
        "Make sure your answer has no more than {n} {things} in ALL CAPS.",
        "The response must not contain more than {n} {things} with all capital letters.",
        "I don't want to see more than {n} {things} in all caps in your reply.",
    ),
    none=(
        "Write no {many} in all capital letters.",
        "Your response should contain no fully capitalized {many} (like NASA).",
        "Do not use any {many} in all caps in your answer.",
        "Make sure your answer has no {many} in ALL CAPS.",
        "The response must not contain any {many} with all capital letters.",
        "I don't want to see any {many} in all caps in your reply.",
    ),
    nouns=("word", "words"),
)
