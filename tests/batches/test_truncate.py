"""Prompts cut on their left, alike in a whole group."""

from dataclasses import replace
from typing import Any

import pytest

from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.batches.truncate import Prompts, truncate_left
from mapl_ray.data.records import Message, Rejection, RelationGroup


def conversation(group: RelationGroup) -> RelationGroup:
    """The group after a system message and two exchanges."""
    turns = (
        Message("system", "quiet"),
        Message("user", "first question"),
        Message("assistant", "first answer"),
        Message("user", "second question"),
        Message("assistant", "second answer"),
    )
    return replace(group, prompts=tuple(turns + prompt for prompt in group.prompts))


def words(prompts: Prompts) -> int:
    return max(sum(len(message.content.split()) for message in prompt) for prompt in prompts)


@pytest.fixture
def group(grid_groups: Any) -> RelationGroup:
    return conversation(grid_groups(1)[0])


def test_oldest_exchanges_go_first_and_the_system_message_stays(group: RelationGroup) -> None:
    cut = truncate_left(group, lambda prompts: words(prompts) <= words(group.prompts) - 3)
    assert cut is not None
    assert (cut.turns, cut.characters) == (2, 0)
    for prompt, whole in zip(cut.group.prompts, group.prompts, strict=True):
        assert prompt == (whole[0], *whole[3:])
    assert cut.group.responses == group.responses


def test_then_the_oldest_words_of_x_and_never_an_instruction(group: RelationGroup) -> None:
    original = group.prompts[0][-1].content
    # 8 words of turns before the last, 3 words of x
    cut = truncate_left(group, lambda prompts: words(prompts) <= words(group.prompts) - 11)
    assert cut is not None
    assert cut.turns == 4
    left = original.split(" ", 3)[3]
    assert cut.characters == len(original) - len(left)
    for prompt, whole in zip(cut.group.prompts, group.prompts, strict=True):
        assert prompt == (whole[0], replace(whole[-1], content=left + whole[-1].content[len(original) :]))


def test_instructions_and_responses_too_long_alone(group: RelationGroup) -> None:
    assert truncate_left(group, lambda prompts: words(prompts) <= 5) is None


def test_prompts_that_do_not_begin_alike_are_not_cut(group: RelationGroup) -> None:
    other = replace(group, prompts=(group.prompts[0], (Message("user", "something else"),), group.prompts[2]))
    assert truncate_left(other, lambda prompts: words(prompts) <= 3) is None


def test_encoded_to_the_limit(group: RelationGroup, tokenizer: Any) -> None:
    whole = encode_group(group, tokenizer, 512)
    assert isinstance(whole, EncodedGroup)
    assert not whole.truncated
    lengths = [len(whole.token_ids(i)) for i in range(6)]
    for limit in range(max(lengths) - 25, max(lengths)):
        assert isinstance(encode_group(group, tokenizer, limit), Rejection)
        cut = encode_group(group, tokenizer, limit, "left")
        assert isinstance(cut, EncodedGroup)
        assert max(len(cut.token_ids(i)) for i in range(6)) <= limit
        assert cut.truncated
        assert cut.ref_logps is None  # they were of the whole prompts
        assert cut.response_ids == whole.response_ids
        lost = {len(a) - len(b) for a, b in zip(whole.prompt_ids, cut.prompt_ids, strict=True)}
        assert len(lost) == 1
    assert isinstance(encode_group(group, tokenizer, 30, "left"), Rejection)
