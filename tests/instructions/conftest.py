"""Real responses for the function set."""

import gzip
import json
from pathlib import Path

import pytest

from mapl_ray.config import DataConfig
from mapl_ray.data.records import PreferencePair
from mapl_ray.preferences import read_pairs


@pytest.fixture(scope="session")
def real_pairs(shared_data: Path) -> list[tuple[str, str]]:
    """(chosen, rejected) of every 12th AlpacaEval pair, all models among them."""
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    return [(row["chosen"], row["rejected"]) for row in rows[::12]]


@pytest.fixture(scope="session", params=["alpaca_eval_pairs.jsonl.gz", "hh_harmless_base_test.jsonl.gz"])
def pairs(request: pytest.FixtureRequest, shared_data: Path) -> list[PreferencePair]:
    """About 330 pairs of a file: answers of 250 words to prompts of one turn, and of 30 words to several turns."""
    items = [*read_pairs(DataConfig(path=str(shared_data / request.param)))]
    found = [item for item in items if isinstance(item, PreferencePair)]
    return found[:: len(found) // 330]
