"""Logits in pieces under ZeRO-3, where ranks have different numbers of them; for one rank see `test_heads`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.first_step import read_first_step

CONFIG = {"max_sequence_tokens": 256, "micro_batch_size": 3, "gradient_accumulation_steps": 2, "zero_stage": 3}
PIECE, WHOLE = 4, 10**6


@pytest.fixture(scope="module")
def runs(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The first step of two ranks, by predicted tokens of a piece."""
    folder = tmp_path_factory.mktemp("pieces")
    common = {"first_step": True, "method": "dpo", "config": CONFIG}
    specs = {piece: {**common, "piece": piece, "output": str(folder / str(piece))} for piece in (PIECE, WHOLE)}
    launch(2, *specs.values())
    return {piece: Path(str(spec["output"])) for piece, spec in specs.items()}


def test_ranks_have_different_numbers_of_pieces(runs: dict[int, Path]) -> None:
    pieces = [[-(-edges // PIECE) for edges in read_first_step(runs[PIECE], rank)["edges"]] for rank in (0, 1)]
    assert any(one != other for one, other in zip(*pieces, strict=True))
    assert min(map(min, pieces)) > 1


@pytest.mark.parametrize("rank", [0, 1])
def test_pieces_compute_what_the_whole_computes(runs: dict[int, Path], rank: int) -> None:
    pieces, whole = (read_first_step(runs[piece], rank) for piece in (PIECE, WHOLE))
    assert all(torch.equal(a, b) for a, b in zip(pieces["outputs"], whole["outputs"], strict=True))
    assert pieces["losses"] == whole["losses"]
    assert pieces["gradients"].keys() == whole["gradients"].keys()
    for name, gradient in whole["gradients"].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(pieces["gradients"][name], gradient, rtol=0, atol=1e-6 * gradient.abs().max().item())
