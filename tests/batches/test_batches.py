"""Encoding and collation."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mapl_ray.batches import EncodedGroup, collate, encode_group, of_levels, without_relations
from mapl_ray.data.records import Level, Message, Rejection, Relation, Sequence


def test_sequence_is_the_chat_template_with_the_answer(tokenizer: Any, grid_groups: Any) -> None:
    group = grid_groups(1)[0]
    encoded = encode_group(group, tokenizer, 512)
    assert isinstance(encoded, EncodedGroup)
    whole = [
        {"role": "user", "content": group.prompts[1][0].content},
        {"role": "assistant", "content": group.responses[0]},
    ]
    assert list(encoded.token_ids(2)) == tokenizer.apply_chat_template(whole, tokenize=True, return_dict=False)
    assert encoded.token_ids(2)[-1] == tokenizer.eos_token_id


def test_system_and_earlier_turns_are_kept(tokenizer: Any, grid_groups: Any) -> None:
    turns = (
        Message("system", "quiet"),
        Message("user", "river"),
        Message("assistant", "stone"),
        Message("user", "bread"),
    )
    group = replace(grid_groups(1)[0], prompts=(turns, turns, turns))
    encoded = encode_group(group, tokenizer, 512)
    assert isinstance(encoded, EncodedGroup)
    text = tokenizer.decode(encoded.prompt_ids[0])
    assert text == "<s><|system|>quiet</s><|user|>river</s><|assistant|>stone</s><|user|>bread</s><|assistant|>"


def test_too_long_is_rejected_with_lengths(tokenizer: Any, grid_groups: Any) -> None:
    group = grid_groups(1)[0]
    rejection = encode_group(group, tokenizer, 16)
    assert isinstance(rejection, Rejection)
    assert rejection.pair_id == group.pair_id
    assert rejection.stage == "tokenize"
    assert "max_sequence_tokens=16" in rejection.reason


def literal_group() -> EncodedGroup:
    """Prompt 1 2; answers 3 4 9 and 3 9, which share their first token."""
    return EncodedGroup(
        "pair",
        ((1, 2),),
        ((3, 4, 9), (3, 9)),
        (Sequence(0, 0, ()), Sequence(0, 1, ())),
        (Relation(Level.PREF, (0,), (1,)),),
    )


def test_tree_batch_by_hand() -> None:
    batch = collate([literal_group()], "tree", pad_token_id=0, pad_to_multiple_of=4)
    # 1 2 3 4 9     nodes 0 1 2 3 4; 9 again as node 5 below node 2; two of padding
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 9, 9, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 0]]
    assert batch.subtree_end is not None
    assert batch.subtree_end.tolist() == [[6, 6, 6, 5, 5, 6, 8, 8]]
    # edges: 2->3 (shared), 3->4, 4->9, and 3->9 of the second answer
    assert batch.source_E.tolist() == [1, 2, 3, 2]
    assert batch.target_E.tolist() == [3, 4, 9, 9]
    assert batch.edge_M.tolist() == [0, 1, 2, 0, 3]
    assert batch.lengths_S.tolist() == [3, 2]
    assert batch.last_S.tolist() == [4, 5]
    assert batch.num_tokens == 6


def test_padded_batch_by_hand() -> None:
    batch = collate([literal_group()], "padded", pad_token_id=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 9], [1, 2, 3, 9, 0]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    # the second row starts at flat index 5
    assert batch.source_E.tolist() == [1, 2, 3, 6, 7]
    assert batch.target_E.tolist() == [3, 4, 9, 3, 9]
    assert batch.last_S.tolist() == [4, 8]


def test_relations_of_several_groups_point_at_their_own_sequences() -> None:
    batch = collate([literal_group(), without_relations(literal_group()), literal_group()], "tree", 0)
    assert batch.num_sequences == 6
    expected = torch.tensor([[1.0, -1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0, -1.0]])
    assert torch.equal(batch.relations.signs_RS, expected)
    assert batch.relations.counts().tolist() == [2.0, 0.0, 0.0]


def test_levels_that_are_left_out_take_their_sequences_along(tokenizer: Any, grid_groups: Any) -> None:
    group = encode_group(grid_groups(1)[0], tokenizer, 512)
    assert isinstance(group, EncodedGroup)
    assert group.ref_logps is not None
    assert of_levels(group, {"pref", "intra", "inter"}) is group
    intra = of_levels(group, {"intra"})  # (x+, c) over (x-, c), (x-, r) over (x+, r): the original prompt is not needed
    assert [intra.token_ids(i) for i in range(4)] == [group.token_ids(i) for i in (2, 3, 4, 5)]
    assert [(r.preferred, r.dispreferred) for r in intra.relations] == [((0,), (2,)), ((3,), (1,))]
    assert intra.ref_logps == group.ref_logps[2:]
    pref = of_levels(group, {"pref"})
    assert [pref.token_ids(i) for i in range(2)] == [group.token_ids(i) for i in range(2)]
    assert len(pref.sequences) == 2
    assert of_levels(pref, {"intra"}) == without_relations(pref)


def test_tree_is_smaller(tokenizer: Any, grid_groups: Any) -> None:
    encoded = [encode_group(group, tokenizer, 512) for group in grid_groups(8)]
    groups = [group for group in encoded if isinstance(group, EncodedGroup)]
    assert len(groups) == 8
    tree, padded = (collate(groups, batching, tokenizer.pad_token_id) for batching in ("tree", "padded"))
    assert tree.num_tokens < padded.num_tokens
    assert padded.num_tokens == sum(len(g.token_ids(i)) for g in groups for i in range(6))


def test_no_groups_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        collate([], "tree", 0)
