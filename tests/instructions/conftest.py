"""Real responses for the function set."""

import gzip
import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_pairs(shared_data: Path) -> list[tuple[str, str]]:
    """(chosen, rejected) of every 12th AlpacaEval pair, all models among them."""
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    return [(row["chosen"], row["rejected"]) for row in rows[::12]]


@pytest.fixture(scope="session")
def short_responses(shared_data: Path) -> list[str]:
    """Last turns of HH transcripts: a few words to a few lines."""
    with gzip.open(shared_data / "hh_harmless_base_test.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    return [row["chosen"].rsplit("\n\nAssistant:", 1)[1].strip() for row in rows[::8]]
