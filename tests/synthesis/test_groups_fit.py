"""Instructions of one prompt fit together: for every prompt drawn, texts are found that prove it (`witness.py`)."""

from pathlib import Path

import pytest

from mapl_ray.instructions import REGISTRY, Features, Instruction, compatible, fit_together
from tests.synthesis.fit import unfit_prompts
from tests.synthesis.witness import find


def test_instructions_of_one_prompt_fit(shared_data: Path) -> None:
    assert unfit_prompts(shared_data, 50, 2) == []


@pytest.mark.long
def test_instructions_of_many_prompts_fit(shared_data: Path) -> None:
    assert unfit_prompts(shared_data, 500, 1) == []


def test_the_search_finds_none_where_there_is_none() -> None:
    starts = [Features("We met at noon, and talked."), Features("- one\n- two\n- three")]
    include, forbid = _instruction("include_word", word="river"), _instruction("forbid_word", word="river")
    assert find([(include, True), (forbid, True)], starts, 0) is None
    bullets, lists = _instruction("bullet_count", direction="at least", n=3), _instruction("list_use", use=True)
    assert find([(bullets, True), (lists, False)], starts, 0) is None
    assert find([(bullets, False), (lists, True)], starts, 0) is not None


def _instruction(name: str, **args: object) -> Instruction:
    return Instruction(name, REGISTRY[name].family, args, "x")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("exact_ending", {"phrase": "right, my friend!"}), ("comma_use", {"use": False})),
        (("exact_ending", {"phrase": "right, my friend!"}), ("comma_use", {"use": True})),
        (("exact_ending", {"phrase": "right, my friend!"}), ("first_person_use", {"use": False})),
        (("include_word", {"word": "photosynthesis"}), ("longest_word", {"direction": "at most", "n": 8})),
        (("forbid_word", {"word": "photosynthesis"}), ("longest_word", {"direction": "at most", "n": 8})),
        (("include_word", {"word": "caf\u00e9"}), ("ascii_use", {"use": True})),
        (("all_of_words", {"words": ["river", "stone"], "use": True}), ("forbid_word", {"word": "stone"})),
        (("exact_phrase", {"phrase": "old stone", "use": True}), ("any_of_words", {"words": ["stone"], "use": False})),
        (("include_word", {"word": "stone"}), ("exact_phrase", {"phrase": "old stone", "use": False})),
        (("exact_ending", {"phrase": "in 40 days."}), ("number_exact", {"n": 0})),
        (("word_count", {"direction": "at most", "n": 90}), ("first_paragraph", {"direction": "at most", "n": 120})),
        (("word_count", {"direction": "at least", "n": 50}), ("last_sentence", {"direction": "at least", "n": 60})),
        (("word_count", {"direction": "at most", "n": 9}), ("line_count", {"direction": "at least", "n": 12})),
        (("bullet_exact", {"n": 3}), ("bullet_count", {"direction": "at most", "n": 5})),
        (("list_use", {"use": True}), ("numbered_count", {"direction": "at least", "n": 3})),
        (("digit_use", {"use": False}), ("year_use", {"use": True})),
        (("digit_use", {"use": False}), ("numbered_count", {"direction": "at least", "n": 3})),
        (("markdown_use", {"use": False}), ("bold_count", {"direction": "at least", "n": 2})),
        (("first_letter", {"letter": "A"}), ("first_word_not", {"word": "Paris"})),
        (("first_word", {"word": "Paris"}), ("letter_count", {"letter": "p", "direction": "at least", "n": 1})),
        (("first_word", {"word": "I"}), ("first_person_use", {"use": False})),
        (("last_word", {"word": "metro"}), ("exact_ending", {"phrase": "Take the metro."})),
        (("ending_mark", {"mark": "?", "negated": False}), ("question_mark_use", {"use": False})),
        (("exact_ending", {"phrase": "Is it so?"}), ("ending_mark", {"mark": ".", "negated": False})),
        (("ascii_use", {"use": True}), ("emoji_use", {"use": True})),
        (("ascii_use", {"use": True}), ("dash_use", {"use": False})),
        (("json_only", {}), ("heading_use", {"use": False})),
        (("all_small_letters", {}), ("capital_word_count", {"direction": "at least", "n": 2})),
        (("in_quotation_marks", {}), ("quotation_mark_use", {"use": False})),
        (("line_exact", {"n": 1}), ("section_use", {"use": False})),
        (("json_only", {}), ("quotation_mark_use", {"use": False})),
        (
            ("all_of_words", {"words": ["true", "human", "probably"], "use": True}),
            ("letter_count", {"letter": "a", "direction": "at least", "n": 2}),
        ),
        (("in_quotation_marks", {}), ("request_repeated", {"use": True, "prompt": "Why is the sky blue?"})),
        (("line_exact", {"n": 1}), ("two_responses_use", {"use": False})),
        (("word_count", {"direction": "at most", "n": 3}), ("two_responses_use", {"use": False})),
        (("request_repeated", {"use": True, "prompt": "Why is the sky blue?"}), ("all_capitals_use", {"use": False})),
        (("word_order", {"words": ["river", "stone"]}), ("first_word", {"word": "stone"})),
        (("question_count", {"direction": "at least", "n": 4}), ("sentence_count", {"direction": "at most", "n": 2})),
        (("prompt_word", {"word": "river", "use": False}), ("exact_phrase", {"phrase": "old river", "use": True})),
        (("number_exact", {"n": 2}), ("number_count", {"direction": "at least", "n": 1})),
        (("character_count", {"direction": "at most", "n": 90}), ("word_count", {"direction": "at least", "n": 60})),
    ],
)
def test_never_together(one: tuple[str, dict[str, object]], other: tuple[str, dict[str, object]]) -> None:
    a, b = _instruction(one[0], **one[1]), _instruction(other[0], **other[1])
    assert not compatible(a, b)
    assert not compatible(b, a)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("exact_ending", {"phrase": "right, my friend!"}), ("comma_count", {"direction": "at most", "n": 4})),
        (("any_of_words", {"words": ["photosynthesis", "leaf"], "use": True}),
         ("longest_word", {"direction": "at most", "n": 8})),  # a leaf will do
        (("word_count", {"direction": "at most", "n": 90}), ("first_paragraph", {"direction": "at most", "n": 40})),
        (("word_count", {"direction": "at most", "n": 90}), ("first_paragraph", {"direction": "at least", "n": 40})),
        (("include_word", {"word": "photosynthesis"}), ("long_word_share", {"direction": "at most", "n": 30})),
        (("list_use", {"use": True}), ("bullet_count", {"direction": "at most", "n": 5})),
        (("word_count", {"direction": "at least", "n": 90}), ("sentence_count", {"direction": "at most", "n": 5})),
        (("digit_use", {"use": True}), ("year_use", {"use": False})),
        (("ending_mark", {"mark": "?", "negated": True}), ("question_mark_use", {"use": True})),
    ],
)  # fmt: skip
def test_may_meet(one: tuple[str, dict[str, object]], other: tuple[str, dict[str, object]]) -> None:
    a, b = _instruction(one[0], **one[1]), _instruction(other[0], **other[1])
    assert compatible(a, b)
    assert compatible(b, a)


@pytest.mark.parametrize(
    ("three", "together"),
    [
        (
            [
                ("list_use", {"use": True}),
                ("bullet_exact", {"n": 0}),
                ("numbered_count", {"direction": "at most", "n": 0}),
            ],
            False,
        ),
        (
            [
                ("word_count", {"direction": "at least", "n": 200}),
                ("sentence_count", {"direction": "at most", "n": 5}),
                ("words_per_sentence", {"direction": "at most", "n": 10}),
            ],
            False,
        ),
        (
            [
                ("word_count", {"direction": "at most", "n": 5}),
                ("word_frequency", {"word": "standing", "direction": "at least", "n": 4}),
                ("word_order", {"words": ["here", "she"]}),
            ],
            False,
        ),
        (
            [
                ("word_count", {"direction": "at least", "n": 100}),
                ("sentence_count", {"direction": "at most", "n": 20}),
                ("words_per_sentence", {"direction": "at most", "n": 10}),
            ],
            True,
        ),
    ],
)
def test_what_only_three_rule_out(three: list[tuple[str, dict[str, object]]], together: bool) -> None:
    instructions = [_instruction(name, **args) for name, args in three]
    assert all(compatible(a, b) for i, a in enumerate(instructions) for b in instructions[:i])
    assert fit_together(instructions) == together
