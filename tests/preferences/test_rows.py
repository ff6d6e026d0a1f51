"""Rows in memory are read as rows of files are."""

import pytest
from datasets import Dataset

from mapl_ray.config import DataConfig
from mapl_ray.data.records import Message, PreferencePair, Rejection, messages_to_rows
from mapl_ray.errors import UserError
from mapl_ray.preferences import read_pairs, read_rows


def test_a_dataset_gives_the_pairs_that_its_file_gives() -> None:
    from_file = list(read_pairs(DataConfig(path="demo", limit=5)))
    rows = [
        {
            "id": p.pair_id,
            "prompt": messages_to_rows(p.prompt),
            "chosen": p.chosen,
            "rejected": p.rejected,
            "margin": p.margin,
        }
        for p in from_file
        if isinstance(p, PreferencePair)
    ]
    found = list(read_rows(Dataset.from_list(rows), name="demo_pairs.jsonl"))
    assert found == from_file


def test_rows_that_cannot_be_used_are_rejected_with_their_number() -> None:
    rows = [{"q": "Why?", "chosen": "Because.", "rejected": "No."}, {"q": "Why?", "chosen": "", "rejected": "No."}]
    pair, rejection = read_rows(rows, DataConfig(columns={"prompt": "q"}), name="mine")
    assert isinstance(pair, PreferencePair)
    assert (pair.prompt, pair.source) == ((Message("user", "Why?"),), "mine")
    assert isinstance(rejection, Rejection)
    assert (rejection.source, rejection.row) == ("mine", 1)
    assert len(list(read_rows(rows, DataConfig(columns={"prompt": "q"}, limit=1)))) == 1


def test_mistakes_name_the_source() -> None:
    with pytest.raises(UserError, match="mine: holds no rows"):
        list(read_rows([], name="mine"))
    with pytest.raises(UserError, match="mine: no preference pairs in columns 'a'"):
        list(read_rows([{"a": 1}], name="mine"))
