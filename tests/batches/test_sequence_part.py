"""Parts of a batch: together they are the batch."""

from typing import Any

import pytest
import torch

from mapl_ray.batches import EncodedGroup, collate, encode_group


@pytest.mark.parametrize("row_tokens", [None, 10**6, 300])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_parts_make_up_the_batch(grid_groups: Any, tokenizer: Any, ranks: int, row_tokens: int | None) -> None:
    groups = [encode_group(group, tokenizer, 512) for group in grid_groups(5)]
    batch = collate([one for one in groups if isinstance(one, EncodedGroup)], "tree", 0, 4, row_tokens)
    parts = [part for rank in range(ranks) if (part := batch.with_part(rank, ranks).part) is not None]
    assert len(parts) == ranks
    for name in ("input_ids", "position_ids"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts], dim=1), getattr(batch, name))
    for of_batch, index, flat in (("source_E", "edges", "sources"), ("last_S", "sequences", "lasts")):
        whole, found = getattr(batch, of_batch), torch.cat([getattr(part, index) for part in parts])
        assert found.sort().values.tolist() == list(range(len(whole)))
        for part in parts:  # an index into the part finds the token that the batch's index finds
            assert torch.equal(
                part.input_ids.flatten()[getattr(part, flat)], batch.input_ids.flatten()[whole[getattr(part, index)]]
            )
            assert torch.equal(
                part.position_ids.flatten()[getattr(part, flat)],
                batch.position_ids.flatten()[whole[getattr(part, index)]],
            )


def test_rows_that_can_not_be_divided(grid_groups: Any, tokenizer: Any) -> None:
    group = encode_group(grid_groups(1)[0], tokenizer, 512)
    assert isinstance(group, EncodedGroup)
    batch = collate([group], "tree", 0, 2)
    width = batch.input_ids.shape[1]
    with pytest.raises(ValueError, match=f"{width} tokens can't be divided by {width + 1} ranks"):
        batch.with_part(0, width + 1)
