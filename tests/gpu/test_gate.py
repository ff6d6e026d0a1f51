"""The points of `benchmarks.gpu`: on a card at their sizes; tiny, on a CPU, in `make test-long`."""

from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import POINTS, run_point
from benchmarks.gpu.material import Setting
from benchmarks.gpu.page import NOT_RUN, facts, page


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", POINTS)
def test_point(name: str) -> None:
    line = run_point(name, Setting("cuda", full=True))
    assert line["ok"], line["error"]


@pytest.mark.long
@pytest.mark.parametrize("name", POINTS)
def test_rehearsal(name: str) -> None:
    line = run_point(name, Setting("cpu", full=False), seconds=500)  # compiles C++, beside another test
    assert line["ok"], line["error"]
    assert line["figures"]


def test_the_page_has_every_figure_and_every_failure() -> None:
    lines = [
        {"facts": facts(Setting("cpu", full=False))},
        {"point": "F1", "what": "F1: right", "ok": True, "seconds": 1.5, "figures": {"off": 0.000123, "losses": [0.5]}},
        {"point": "F2", "what": "F2: few", "ok": False, "seconds": 2.0, "error": "AssertionError: 9 graphs"},
    ]
    text = page(lines)
    assert "| off | 0.000123 |" in text
    assert "| losses | 0.5 |" in text
    assert "| F2: few | FAILED | 2.0 |" in text
    assert "AssertionError: 9 graphs" in text


def test_the_committed_page_is_of_a_run_or_says_that_there_was_none() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert text == NOT_RUN or "| F1:" in text
