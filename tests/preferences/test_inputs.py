"""The small files that were read wrongly once, each as its README says is right."""

from pathlib import Path
from typing import Any

import pytest

from mapl_ray.cli import main
from mapl_ray.config import DataConfig, EvaluationSet
from mapl_ray.data.records import Message, PreferencePair, Rejection
from mapl_ray.errors import UserError
from mapl_ray.evaluation.public_sets import read_set
from mapl_ray.preferences import read_pairs

INPUTS = Path(__file__).resolve().parents[3] / "shared" / "inputs"
PROMPT = (Message("user", "How do I keep basil fresh?"),)
CHOSEN, REJECTED = "Stand it in a glass of water.", "Throw it in the freezer drawer."


pytestmark = pytest.mark.usefixtures("shared_data")


def read(name: str, **options: Any) -> list[PreferencePair | Rejection]:
    return list(read_pairs(DataConfig(path=str(INPUTS / name), **options)))


@pytest.mark.parametrize(
    "name",
    [
        "hh_with_prompt_col.jsonl",
        "chatml_text.jsonl",
        "alpaca_rendered.jsonl",
        "prompt_text_in_chosen_text.jsonl",
        "list_in_csv.csv",
        "nested_json_string.jsonl",
        "nan_id.jsonl",
        "chosen_obj_role.jsonl",
        "uf_tie_scores.jsonl",
        "pairs #2.jsonl",
    ],
)
def test_the_pair_is_the_same_in_every_shape(name: str) -> None:
    (pair,) = read(name)
    assert isinstance(pair, PreferencePair), pair
    assert (pair.prompt, pair.chosen, pair.rejected, pair.row) == (PROMPT, CHOSEN, REJECTED, 0)
    assert pair.pair_id.startswith("sha256-")  # none of these rows has an id of its own
    assert pair.margin == {"uf_tie_scores.jsonl": 0.0, "pairs #2.jsonl": 1.5}.get(name)


def test_ids_stored_as_floats_are_whole_numbers() -> None:
    pairs = read("id_float.parquet")
    assert [pair.pair_id for pair in pairs] == [str(number + 1) for number in range(len(pairs))]
    assert all(isinstance(pair, PreferencePair) for pair in pairs)


def test_a_margin_of_0_is_dropped_where_that_is_declared() -> None:
    (found,) = read("uf_tie_scores.jsonl", nonpositive_margins="drop")
    assert isinstance(found, Rejection)
    assert (found.row, found.stage) == (0, "margin")
    assert "margin=0: expected above 0 (data.nonpositive_margins=drop)" in found.reason


def test_a_key_twice_is_refused_by_its_name() -> None:
    with pytest.raises(UserError, match=r"dup_keys\.jsonl: none of its 1 rows.*line 1: the key 'prompt' occurs twice"):
        read("dup_keys.jsonl")


def test_gzip_under_another_name_is_said() -> None:
    with pytest.raises(UserError, match=r"gz_named\.jsonl: this is gzip.*Give it a name that ends in \.gz"):
        read("gz_named.jsonl")


def test_rewardbench_2_is_read_as_such() -> None:
    found = read_set("rb2", EvaluationSet(path=str(INPUTS / "rb2.jsonl")))
    assert (found.format, len(found.rows), found.rejected) == ("rewardbench-2", 2, [])
    assert [row.subset for row in found.rows] == ["Factuality", "Ties"]
    assert [len(row.groups[0].responses) for row in found.rows] == [4, 6]


def test_names_are_taken_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["synthesize", "--config", str(INPUTS / "name_date.yaml"), "--data", "pairs #2.jsonl", "--print-config"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "name: '2024-11-29'" in printed
    assert "path: 'pairs #2.jsonl'" in printed
