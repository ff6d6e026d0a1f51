"""Instructions on averages and shares, as whole numbers; the margin of a threshold covers rounding."""

from __future__ import annotations

from mapl_ray.instructions import blocks
from mapl_ray.instructions.builders import count_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.splitting import Reading
from mapl_ray.instructions.text import words as words_of
from mapl_ray.instructions.tokens import long_span, word_span
from mapl_ray.instructions.verdicts import Span
from mapl_ray.instructions.wordings import amounts, words

_FAMILY = "ratios"
_ENDS, _AFTER_ENDS = (".", "!", "?", ":", "\u2026"), " \t\n\"'\u201d\u2019)]*_"
_MOST_PERCENT = 95  # "at most 100 percent" says nothing


def _average(part: int, of: int) -> int:
    return round(part / of) if of else 0


def _long_share(text: Features) -> int:
    return _average(100 * sum(len(word) > 6 for word in text.words), len(text.words))


def _ratio(part: Span, of: Span, times: int = 1) -> Span:
    """Span of `times * part / of`: from smallest part over largest whole to the opposite, rounded outward."""
    return Span(times * part.fewest // max(1, of.most), -(-times * part.most // max(1, of.fewest)))


def _words_per_sentence(text: Features) -> Span:
    averages = []
    for sentences in text.sentence_readings:
        surest, finished = sentences.by(Reading.SUREST), sentences.finished
        number = Span.over(len(surest), len(sentences.by(Reading.FINEST)), len(sentences.running))
        averages.append(_ratio(word_span("\n".join(surest)), number))
        if not finished:  # some readers do not call fragments without an end mark sentences
            averages.append(Span(0, 0))
        elif len(finished) < len(surest):
            averages.append(_ratio(word_span("\n".join(finished)), Span.over(len(finished))))
    return Span.over(*averages)


words_per_sentence = count_function(
    "words_per_sentence",
    _FAMILY,
    lambda text: _average(len(words_of("\n".join(text.sentences))), len(text.sentences)),
    amounts.WORDS_PER_SENTENCE,
    span=_words_per_sentence,
    spaced=True,
    least=4,
    size=True,
)


def _words_per_paragraph(text: Features) -> Span:
    number = text.paragraph_span
    averages = [_ratio(text.word_span, number)]
    finished = [block for block in text.paragraphs if block.rstrip(_AFTER_ENDS).endswith(_ENDS)]
    if finished:  # some readers do not count titles and the like as paragraphs
        averages.append(_ratio(word_span("\n".join(finished)), Span.over(len(finished))))
    items = text.over_prose("bullets", blocks.bullet_span).most
    if items:  # some readers count each item as a paragraph, others none
        prose = [
            part
            for block in text.paragraphs
            if not blocks.item_end(block)
            for part in (blocks.introduction(block) or [block])
        ]
        averages.append(_ratio(text.word_span, Span.over(number.most + items)))
        averages.append(_ratio(word_span("\n".join(prose)), Span.over(len(prose))))
    return Span.over(*averages)


words_per_paragraph = count_function(
    "words_per_paragraph",
    _FAMILY,
    lambda text: _average(text.num_words, len(text.paragraphs)),
    amounts.WORDS_PER_PARAGRAPH,
    span=_words_per_paragraph,
    spaced=True,
    least=5,
    size=True,
)

long_word_share = count_function(
    "long_word_share",
    _FAMILY,
    _long_share,
    words.LONG_WORD_SHARE,
    span=lambda text: _ratio(long_span(text.text, 7), text.word_span, 100),
    spaced=True,
    least=4,
    most=_MOST_PERCENT,
)
