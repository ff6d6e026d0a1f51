"""Count signs under several readings: punctuation marks, emoji, numbers, years, links.

Only some readers count a mark inside code, a URL, a number or an emoticon, or similar marks of other scripts.
"""

from __future__ import annotations

import re

import regex

from mapl_ray.instructions.verdicts import Span, Verdict

# Text in which marks are not punctuation: code, URLs, Markdown links, HTML entities and tags, emoticons, LaTeX.
# Every alternative begins with a different literal character, which makes the search eight times as fast.
_MARKDOWN_LINK = r"\[[^\[\]\n]*+\]\([^()\s]*+\)"
_NO_PROSE = re.compile(
    rf"`[^`\n]*+`|https?://\S++|www\.\S++|!{_MARKDOWN_LINK}|{_MARKDOWN_LINK}|&#?\w{{1,8}};|</?[a-zA-Z][^<>\n]{{0,80}}>|"
    r"\\[()\[\]]|\$[^$\n]{1,80}\$|" + "|".join(rf"{eyes}['\-^]?[()DPp|](?!\w)" for eyes in ":;=8")
)
_EMOTICON = re.compile(r"[:;=][\"'\-^]?[()DPpOo|/\\](?![\w/])|<3(?!\d)|[\u2190-\u21ff\u2460-\u24ff\u25a0-\u27bf]")
# Characters shown as pictures: by default, with the variation selector, as keycaps, and hearts (always in color).
_EMOJI = regex.compile(r"\p{Emoji_Presentation}|\p{Emoji}\ufe0f|[\u2763\u2764\u263a\u2639]")
_LIKE_EMOJI = regex.compile(r"\p{Extended_Pictographic}|\u20e3")
_MAY_BE_NO_PROSE = re.compile(r"[`<$&\\=\]]|www|[:;]\S")
_EVERY_NUMBER = re.compile(r"\d++(?:[.,]\d++)*+")
# A number by itself, possibly with currency or unit. Telephone numbers, dates and ranges match as one number.
_CLEAR_NUMBER = re.compile(
    r"(?<![^\s(\[\"'*$\u20ac\u00a3~+\u201c])(?:\d++(?:[.,:/\-\u2013\u00d7x*^=+ ]\d++)*+)(?![\w@]|[.,:/\-\u2013]\w)"
)
_FOUR_DIGITS = re.compile(r"(?<!\d)\d{4}(?!\d)")
_MONTH = (
    r"(?:jan|feb|mar|apr|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?|may|spring|summer|autumn|fall|winter|since|by|until|before|"
    r"after|during|around|circa|early|late|mid|year|from|of|in"
)
_CLEAR_YEAR = re.compile(
    rf"(?:\b(?:{_MONTH})\s(?:the\s)?(?:\d{{1,2}}(?:st|nd|rd|th)?,?\s)?|,\s|\()(?:1[5-9]|20)\d\d(?=[).;:!?]?(?:\s|$)|,\s|\u2013|-\d|s\b)"
    r"(?!\s?(?:[a-z]+s\b|k?m\b|kg\b|%|bits?|dollars|euros|people|words|calories))",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"\d\s?%(?!\w|\s?[\w(])|\d\s?per ?cent\b|\d%(?=\s[a-z(])", re.IGNORECASE)
_LIKE_PERCENT = re.compile(r"\d\s?[%\u066a\uff05]|%\s?\d|\d\s?-?\s?per\s?-?cent|\d\s?pct\b", re.IGNORECASE)
_LINK = re.compile(r"https?://\w|www\.\w|\[[^\[\]\n]+\]\([^)\s]{1,300}\)", re.IGNORECASE)
_CLEAR_LINK = re.compile(r"https?://\w|www\.\w|\]\((?:https?:|www\.|/|#|mailto:)", re.IGNORECASE)
_ADDRESS = re.compile(
    r"\.(?:com|org|net|edu|gov|io|co|uk|de|fr|eu|info|biz|ai|app|dev|me|tv|us|ca|au|in)\b|@\w|\.[a-z]{2,6}/\w|<a\s|mailto:|"
    r"\]\(|\]:\s|://"
)


def prose(text: str) -> str:
    """The text without parts in which marks are not punctuation."""
    if not _MAY_BE_NO_PROSE.search(text):
        return text
    return _NO_PROSE.sub(" ", text)


def marks_span(text: str, clean: str, signs: str, clear: re.Pattern[str]) -> Span:
    """Span from the matches of `clear` in the prose (`clean`) to all `signs` in the text."""
    signs = "".join(filter(str.isascii, signs)) if text.isascii() else signs
    return Span(len(clear.findall(clean)), sum(map(text.count, signs)))


def emoji(text: str) -> bool:
    """Whether the text has an emoji: a character that is shown as a picture."""
    return not text.isascii() and _EMOJI.search(text) is not None


def surely_emoji(text: str) -> Verdict:
    """Whether the text has an emoji; None if only some readers call a sign or an emoticon an emoji."""
    if emoji(text):
        return True
    return None if _EMOTICON.search(text) or (not text.isascii() and _LIKE_EMOJI.search(text)) else False


def number_span(lines: list[str], numbering: int, clean: str) -> Span:
    """Span from the separate numbers in the prose (`clean`), minus `numbering` list numbers, to every run of digits."""
    every = sum(len(_EVERY_NUMBER.findall(line)) for line in lines)
    return Span(max(0, len(_CLEAR_NUMBER.findall(clean)) - numbering), every)


def surely_digits(text: str) -> Verdict:
    """Whether the text has digits; None for digits of other scripts, superscripts, subscripts, or within an emoji."""
    if re.search(r"[0-9](?!\ufe0f?\u20e3)", text):
        return True
    return None if any(sign.isnumeric() for sign in set(text)) else False


def surely_year(text: str) -> Verdict:
    """True for a year in a phrase about time; None for any other four digits; False without them."""
    if not _FOUR_DIGITS.search(text):
        return False
    if _CLEAR_YEAR.search(text):
        return True
    return None


def surely_percentage(text: str) -> Verdict:
    """Whether the text has a percentage; None for the operator % in code, a URL, or a sign of another script."""
    if not any(sign in text for sign in ("%", "cent", "CENT", "pct", "\u066a", "\uff05")):
        return False
    if _PERCENT.search(prose(text)):
        return True
    return None if _LIKE_PERCENT.search(text) else False


def has_link(text: str) -> bool:
    """Whether the text has a URL or a Markdown link."""
    return _may_link(text) and _LINK.search(text) is not None


def surely_link(text: str) -> Verdict:
    """Whether the text has a link; None for an address without `http`, and for brackets without an address."""
    if _may_link(text) and _CLEAR_LINK.search(text):
        return True
    return None if _ADDRESS.search(text.lower()) else False


def _may_link(text: str) -> bool:
    return "://" in text or "](" in text or "www." in text.lower()
