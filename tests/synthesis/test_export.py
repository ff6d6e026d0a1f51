"""Exported tables: contents, files, and that `datasets` takes them."""

from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import Message, PreferencePair, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.synthesis import export_rows, synthesize, write_export

PAIR = PreferencePair("p", (Message("user", "Count"),), "one two three " * 20, "four five six " * 60, "test")

CONFIG = SynthesisConfig()


def _group(layout: str = "grid", pair_id: str = "p") -> RelationGroup:
    pair = PreferencePair(pair_id, PAIR.prompt, PAIR.chosen, PAIR.rejected, "test")
    group = synthesize(pair, SynthesisConfig.model_validate({"layout": layout}), 0)
    assert isinstance(group, RelationGroup)
    return group


def _content(messages: list[dict[str, str]]) -> str:
    return messages[-1]["content"]


def test_intra_rows() -> None:
    group = _group()
    rows = list(export_rows(group, "intra"))
    x, plus, minus = (prompt[-1].content for prompt in group.prompts)
    found = [
        tuple(_content(row[name]) for name in ("prompt_preferred", "prompt_dispreferred", "response")) for row in rows
    ]
    assert found == [(plus, minus, PAIR.chosen), (minus, plus, PAIR.rejected)]
    assert rows[0]["response"] == [{"role": "assistant", "content": PAIR.chosen}]
    assert x not in (plus, minus)


def test_inter_rows() -> None:
    group = _group()
    rows = list(export_rows(group, "inter"))
    x, plus, minus = (prompt[-1].content for prompt in group.prompts)
    assert [(_content(r["prompt"]), _content(r["prompt_original"]), r["kind"]) for r in rows] == [
        (plus, x, "inter_widening"),
        (minus, x, "inter_narrowing"),
    ]
    # The responses keep their names: the kind says which way the gap moves.
    assert all((_content(r["chosen"]), _content(r["rejected"])) == group.responses for r in rows)


@pytest.mark.parametrize("layout", ["grid", "independent"])
def test_trl_rows(layout: str) -> None:
    group = _group(layout)
    rows = list(export_rows(group, "trl"))
    original = group.prompts[0][-1].content
    plus, minus = (prompt[-1].content for prompt in group.prompts[-2:])
    assert [(_content(r["prompt"]), _content(r["chosen"]), _content(r["rejected"])) for r in rows] == [
        (original, PAIR.chosen, PAIR.rejected),
        (plus, PAIR.chosen, PAIR.rejected),
        (minus, PAIR.rejected, PAIR.chosen),
    ]


@pytest.mark.parametrize("format", ["trl", "openrlhf"])
def test_implicit_prompts(format: str) -> None:
    group = _group()
    explicit, implicit = (list(export_rows(group, format, prompts)) for prompts in ("explicit", "implicit"))
    assert list(export_rows(group, "openrlhf")) == list(export_rows(group, "trl"))
    for row, whole in zip(explicit, implicit, strict=True):
        assert "prompt" not in whole
        assert [whole[side] for side in ("chosen", "rejected")] == [
            row["prompt"] + row[side] for side in ("chosen", "rejected")
        ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("format", "prompts", "rows_a_group"),
    [
        ("intra", "explicit", 2),
        ("inter", "explicit", 2),
        ("trl", "explicit", 3),
        ("trl", "implicit", 3),
        ("openrlhf", "explicit", 3),
        ("openrlhf", "implicit", 3),
    ],
)
def test_files_load_in_datasets(tmp_path: Path, suffix: str, format: str, prompts: str, rows_a_group: int) -> None:
    path = tmp_path / f"table{suffix}"
    groups = [_group(pair_id=str(i)) for i in range(3)]
    exported = write_export(iter(groups), format, path, prompts)
    assert exported.rows == 3 * rows_a_group
    kind = "json" if suffix == ".jsonl" else "parquet"
    loaded = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == [row for group in groups for row in export_rows(group, format, prompts)]
    assert list(tmp_path.glob(".*.tmp")) == []


def test_no_groups_make_an_empty_table(tmp_path: Path) -> None:
    assert write_export([], "trl", tmp_path / "a.parquet").rows == 0
    table = pq.read_table(tmp_path / "a.parquet")
    assert (table.num_rows, table.column_names) == (0, ["prompt", "chosen", "rejected", "kind", "pair_id"])


def test_trl_takes_the_rows(pairs: list[PreferencePair], tokenizer: Any) -> None:
    """Both kinds of real rows come out of TRL's own preparation as the same texts."""
    data_utils = pytest.importorskip("trl.data_utils")
    groups = [group for pair in pairs[::8] if isinstance(group := synthesize(pair, CONFIG, 0), RelationGroup)]
    assert len(groups) > 50
    for group in groups:
        for explicit, implicit in zip(export_rows(group, "trl"), export_rows(group, "trl", "implicit"), strict=True):
            assert data_utils.is_conversational(explicit)
            assert data_utils.is_conversational(implicit)
            asked = {name: explicit[name] for name in ("prompt", "chosen", "rejected")}
            assert data_utils.maybe_extract_prompt(explicit) == explicit
            assert data_utils.extract_prompt(implicit) == asked
            texts = data_utils.maybe_apply_chat_template(asked, tokenizer)
            whole = data_utils.maybe_apply_chat_template(
                {name: implicit[name] for name in ("chosen", "rejected")}, tokenizer
            )
            for side in ("chosen", "rejected"):
                assert whole[side] == texts["prompt"] + texts[side]
                assert explicit[side][0]["content"] in texts[side]


def test_openrlhf_takes_the_rows(pairs: list[PreferencePair], tokenizer: Any) -> None:
    """What its reward and DPO data sets do with a row, by the chat template: with a prompt key, and without."""
    group = synthesize(pairs[0], CONFIG, 0)
    assert isinstance(group, RelationGroup)
    render = partial(tokenizer.apply_chat_template, tokenize=False)
    for row, whole in zip(export_rows(group, "openrlhf"), export_rows(group, "openrlhf", "implicit"), strict=True):
        prompt = render(row["prompt"], add_generation_prompt=True)
        for side in ("chosen", "rejected"):
            assert render(row["prompt"] + row[side]) == render(whole[side])
            assert render(whole[side]).startswith(prompt)
            assert render(whole[side][:-1], add_generation_prompt=True) == prompt


def test_user_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.jsonl or \.parquet"):
        write_export([_group()], "trl", tmp_path / "a.csv")
    with pytest.raises(UserError, match="'intra' has no implicit prompts; they are for trl and openrlhf"):
        write_export([_group()], "intra", tmp_path / "a.jsonl", "implicit")
    with pytest.raises(UserError, match="explicit, implicit"):
        write_export([_group()], "trl", tmp_path / "a.jsonl", "hidden")
    with pytest.raises(UserError, match="intra, inter, trl, openrlhf"):
        write_export([_group()], "csv", tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_leaves_no_file(tmp_path: Path) -> None:
    def groups():
        yield _group()
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError, match="source broke"):
        write_export(groups(), "trl", tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []
