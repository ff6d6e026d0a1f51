"""Classify lines as code, headings, rules, table rows or list items, and count items under different readings.

Each kind has a documented rule (see `text.py`), a strict one that every reader accepts, and a lenient one that only
some accept.
"""

from __future__ import annotations

import re
from itertools import pairwise

from mapl_ray.instructions.verdicts import Span

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([^\r\n]*)")
_QUOTE = r"[ \t]*(?:>[ \t]*)*+"
_NO_RULE = r"(?![-*][ \t]*[-*][ \t]*$)"
_SIGNS = r"\-*+\u2022\u25e6\u2023\u25aa\u25a0\u25cf\u25cb\u00b7\u2219\u2043\u25ba\u27a2"
_BULLET = re.compile(rf"{_QUOTE}[{_SIGNS}][ \t]+(?=\S){_NO_RULE}")
_PLUS = re.compile(rf"{_QUOTE}\+[ \t]")
# The lenient rule also takes dashes, arrows, stars, ticks and pictographs, and signs without a space after them.
_MORE_SIGNS = r"\u2013\u2014\u2212\u25b8-\u25ff\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\u00bb\U0001f300-\U0001faff"
_LIKE_BULLET = re.compile(
    rf"{_QUOTE}(?:\(?\d{{1,3}}[.)][ \t]+)?"
    rf"(?:[{_SIGNS}][ \t]*(?=[^\W_]|[\"'(\[`$])|o[ \t]+(?=\S)|[{_MORE_SIGNS}][^\S\n]*\S){_NO_RULE}"
)
_NUMBER = r"(?:\d{1,3}[.)]|\(\d{1,3}\))"
# Marks of a heading or bold text that may precede a list number.
_MARKED = r"(?:#{1,6}[ \t]+)?(?:\*{1,3}|_{1,3})?"
_NUMBERED = re.compile(
    _QUOTE + _MARKED + rf"(?:{_NUMBER}|[Ss]tep[ \t]\d{{1,3}}[.:)]?)(?:\*{{1,3}}|_{{1,3}})?[ \t]+(?=\S)"
)
_PLAINLY_NUMBERED = re.compile(_QUOTE + r"\d{1,3}[.)][ \t]+(?=\S)")
_LIKE_NUMBERED = re.compile(
    _QUOTE
    + r"(?:[#*_~]+[ \t]*)*+(?:[-*+\u2022][ \t]+)?(?:[*_]{1,3})?"
    + r"(?:[(\[]?\d{1,4}[.):\]\-\u2013](?!\d)|#\d|\d\ufe0f?\u20e3|\U0001f51f|[\u2460-\u24ff\u2776-\u2793]|"
    r"\(?[^\W\d_][.)](?=[ \t*_])|\(?[IVXLCivxlc]{1,6}[.)](?=[ \t*_])|[^\W\d_]{2,12}[ \t]#?\d{1,3}(?!\w))"
)
_INLINE_NUMBER = re.compile(r"(?<=[\s,;:])(?:\(?(?:\d{1,2}[.)]|[a-z]\))|[Ss]tep \d{1,2}:?)(?=\s)")
_MAY_NUMBER = re.compile(r"[\d.)]")
_INNER_NUMBER = re.compile(r"\d[. :]")
_HEADING = re.compile(r"[ ]{0,3}#{1,6}[ \t]+\S")
_LIKE_HEADING = re.compile(_QUOTE + r"(?:#|<h[1-6])", re.IGNORECASE)
_UNDERLINE = re.compile(r"[ ]{0,3}(?:={3,}|-{3,})[ \t]*")
_RULE_SIGNS = frozenset("-*_=~\u2013\u2014")
_RULE = re.compile(r"[ \t]*(?:[-*_=~\u2013\u2014][ \t]*){3,}")
# Parts of a letter: "Dear Ann,", "Subject: Tea", "Kind regards,\nAnn", "[Your Name]".
_LETTER_PART = re.compile(
    r"(?:(?:dear|hi|hello|hey|good (?:morning|afternoon|evening))\b[^.!?\n]{0,60}[,:!]?\Z|"
    r"to\b[^.!?\n]{0,60}[,:]\Z|(?:subject(?: line)?|re|from):|"
    r"(?:(?:yours|very|most|with|warm|warmest|kind|kindest|best|many)\s)*"
    r"(?:sincerely|faithfully|truly|regards|wishes|respectfully|cordially|thanks|thank you|cheers|love|best|yours)"
    r"(?: yours| regards)?[,!]?[ \t]*(?:\n|\Z)|\[[^\]\n]*\]\Z)",
    re.IGNORECASE,
)
_LONGEST_LETTER_PART = 160  # characters
_BLANKS = "\u200b\u200c\u200d\u2060\ufeff"  # zero-width characters: a line with only these looks blank
_TABLE_RULE = re.compile(r"\|?+[ \t]*+:?+-++:?+[ \t]*+(?:\|[ \t]*+:?+-++:?+[ \t]*+)*+\|?+")


class Code:
    """The code blocks of a text, and its lines outside of them."""

    def __init__(self, all_lines: list[str]) -> None:
        self.prose: list[str] = []  # lines outside code; each block becomes one blank line
        self.blocks = 0  # closed blocks with content
        self.doubtful = 0  # empty blocks, and a block that is never closed
        self.unclosed: list[str] | None = None  # the prose if a fence that is never closed is ignored
        joined = "\n".join(all_lines)
        if "```" not in joined and "~~~" not in joined:
            self.prose = [*all_lines]
            return
        fence, opened, held = "", 0, False
        for number, line in enumerate(all_lines):
            mark = _FENCE.match(line) if "```" in line or "~~~" in line else None
            if not fence:
                # A line of a backtick fence has no other backticks: with them it is inline code.
                if mark is not None and not (mark[1][0] == "`" and "`" in mark[2]):
                    fence, opened, held = mark[1], number, False
                    self.prose.append("")
                else:
                    self.prose.append(line)
            elif mark is not None and mark[1].startswith(fence) and not mark[2].strip():
                self.blocks, self.doubtful = self.blocks + held, self.doubtful + (not held)
                fence = ""
            else:
                held = held or bool(line.strip())
        if fence:
            self.doubtful += 1
            self.unclosed = [*self.prose, *all_lines[opened + 1 :]]


def is_blank(line: str) -> bool:
    """Whether the line has no visible characters."""
    return not line or not (line[0].isalnum() or line.strip().strip(_BLANKS))


def is_rule(line: str) -> bool:
    """Whether the line is a horizontal rule: only three or more dashes, stars or the like."""
    return line.rstrip(" \t")[-1:] in _RULE_SIGNS and _RULE.fullmatch(line) is not None


def is_heading(line: str) -> bool:
    """Whether the line is a Markdown heading."""
    return _HEADING.match(line) is not None


def is_table_row(line: str) -> bool:
    """Whether the line is a table row: it starts with a pipe or has at least two pipes."""
    return "|" in line and (line.lstrip().startswith("|") or line.count("|") > 1)


def item_end(line: str) -> int:
    """Index at which the text of a list item begins; 0 if the line is not a list item."""
    match = _BULLET.match(line) or _NUMBERED.match(line)
    return 0 if match is None else match.end()


def number_end(line: str) -> int:
    """Index at which a line's list number ends; 0 if it has none."""
    match = _NUMBERED.match(line)
    return 0 if match is None else match.end()


def bullet_items(prose: list[str]) -> int:
    """Number of bullet items, including nested ones; rules such as `* * *` do not count."""
    return sum(_BULLET.match(line) is not None for line in prose)


def numbered_items(prose: list[str]) -> int:
    """Number of numbered items."""
    return sum(_NUMBERED.match(line) is not None for line in prose)


def _outer(lines: list[str], item: re.Pattern[str]) -> int:
    """Number of items at the outermost level."""
    indents = [len(line) - len(line.lstrip()) for line in lines if item.match(line)]
    outermost = min(indents, default=0)
    return sum(indent < outermost + 2 for indent in indents)


def bullet_span(prose: list[str]) -> Span:
    """Span from the outermost items with a usual sign to all lines that look like bullet points or numbered items."""
    marked = [line for line in prose if line and (not line[0].isalpha() or line[:2] in ("o ", "o\t"))]
    # Some readers call list items of any kind "bullet points".
    most = sum(bool(_BULLET.match(line) or _LIKE_BULLET.match(line) or _NUMBERED.match(line)) for line in marked)
    # A plus sign may mark a turn of a dialogue or an addition, and then so may a dash next to it.
    doubtful = any(_PLUS.match(line) for line in marked)
    return Span(_outer(marked, _BULLET) if most and not doubtful else 0, most)


def numbered_span(prose: list[str]) -> Span:
    """Span from the outermost items with a plain number to everything that looks like numbering, also within a line."""
    marked = [line for line in prose if line and (not line[0].isalpha() or _MAY_NUMBER.search(line, 0, 20))]
    most = sum(bool(_NUMBERED.match(line) or _LIKE_NUMBERED.match(line)) for line in marked)
    inline = sum(len(_INLINE_NUMBER.findall(line)) for line in prose if ")" in line or _INNER_NUMBER.search(line))
    return Span(_outer(marked, _PLAINLY_NUMBERED) if most else 0, most + inline)


def headings(prose: list[str]) -> int:
    """Number of Markdown headings."""
    return sum(_HEADING.match(line) is not None for line in prose)


def heading_span(prose: list[str]) -> Span:
    """Span from the headings to all lines that begin with `#`, are underlined or are marked as a heading."""
    joined = "\n".join(prose)
    if not any(sign in joined for sign in ("#", "<h", "<H", "---", "===")):
        return Span(0, 0)
    like = sum(_LIKE_HEADING.match(line) is not None for line in prose)
    underlined = sum(not is_blank(above) and _UNDERLINE.fullmatch(line) is not None for above, line in pairwise(prose))
    return Span(headings(prose), like + underlined)


def has_table(prose: list[str]) -> bool:
    """Whether the text has a line of dashes between pipes."""
    return any("|" in line and _TABLE_RULE.fullmatch(line.strip()) is not None for line in prose)


def like_table(prose: list[str]) -> bool:
    """Whether some readers see a table: two rows with pipes or tabs, or a table of box-drawing lines or HTML."""
    rows = sum(line.count("|") > 1 or "\t" in line.strip() for line in prose)
    return rows > 1 or any("+--" in line or "<table" in line or "\u2502" in line for line in prose)


def surely_table(prose: list[str]) -> bool:
    """Whether a line of dashes is between two rows with pipes."""
    return any(
        "|" in rule and _TABLE_RULE.fullmatch(rule.strip()) is not None and "|" in above and "|" in below
        for above, rule, below in zip(prose, prose[1:], prose[2:], strict=False)
    )


def paragraphs(all_lines: list[str]) -> list[str]:
    """Blocks of lines between blank lines, without horizontal rules."""
    blocks: list[list[str]] = []
    fresh = True
    for line in all_lines:
        if is_blank(line):
            fresh = True
        elif fresh:
            blocks.append([line])
            fresh = False
        else:
            blocks[-1].append(line)
    return ["\n".join(block) for block in blocks if len(block) > 1 or not is_rule(block[0])]


def introduction(block: str) -> list[str]:
    """The text before the list items of a block, if it has both; else empty."""
    lines = block.split("\n")
    first = next((number for number, line in enumerate(lines) if item_end(line)), 0)
    return ["\n".join(lines[:first])] if first else []


def paragraph_span(all_lines: list[str], prose_paragraphs: list[str]) -> Span:
    """Span from blocks of text without lists, titles and parts of a letter, to all blocks between blank lines."""
    text, signed = 0, False
    for block in prose_paragraphs:
        signed = is_letter_part(block) or (signed and _is_name(block))
        text += not (signed or is_title(block) or item_end(block))
    blanks = [*map(is_blank, all_lines), True]
    return Span(text, sum(below and not blank for blank, below in pairwise(blanks)))


def is_letter_part(block: str) -> bool:
    """Whether a block is the subject, salutation, closing or signature of a letter."""
    return len(block) < _LONGEST_LETTER_PART and _LETTER_PART.match(block) is not None


def _is_name(block: str) -> bool:
    """Whether a block may be the name below a closing, with a title or a company."""
    return len(block) < _LONGEST_LETTER_PART and len(block.split()) < 9 and block.rstrip()[-1] not in ".!?:"


def is_title(block: str) -> bool:
    """Whether some readers do not count a block as a paragraph: a heading, bold line, table or part of a letter."""
    if is_letter_part(block):
        return True
    if "\n" in block:
        return all(map(is_table_row, block.split("\n")))
    line = block.strip()
    return (
        is_heading(block)
        or is_rule(block)
        or (line.startswith(("**", "__")) and line.rstrip(":").endswith(("**", "__")))
    )
