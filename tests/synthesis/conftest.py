"""Real preference pairs, and their groups."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import Message, PreferencePair, Rejection, RelationGroup
from mapl_ray.synthesis import synthesize

GroupsOf = Callable[..., list[RelationGroup | Rejection]]


@pytest.fixture(scope="session")
def pairs(shared_data: Path) -> list[PreferencePair]:
    """Every 7th AlpacaEval pair: 575 of them, all models among them."""
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle][::7]
    return [
        PreferencePair(row["id"], (Message("user", row["prompt"]),), row["chosen"], row["rejected"], "alpaca_eval")
        for row in rows
    ]


@pytest.fixture(scope="session")
def groups_of(pairs: list[PreferencePair]) -> GroupsOf:
    """Groups of all pairs in a layout and condition, made once."""
    made: dict[tuple[str, str], list[RelationGroup | Rejection]] = {}

    def make(layout: str = "grid", condition: str = "all") -> list[RelationGroup | Rejection]:
        if (layout, condition) not in made:
            config = SynthesisConfig.model_validate({"layout": layout, "condition": condition})
            made[layout, condition] = [synthesize(pair, config, 7) for pair in pairs]
        return made[layout, condition]

    return make
