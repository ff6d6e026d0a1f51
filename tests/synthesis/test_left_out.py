"""What rows for other trainers leave out of groups, counted by hand."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mapl_ray.cli import main
from mapl_ray.data.records import (
    GROUP_SCHEMA,
    InstructionRecord,
    Level,
    Message,
    Relation,
    RelationGroup,
    Sequence,
)
from mapl_ray.data.shards import commit, write_part
from mapl_ray.synthesis import export_rows, left_out_lines, write_export
from mapl_ray.synthesis.left_out import left_out


def record(name: str) -> InstructionRecord:
    return InstructionRecord(name, f"Use {name}.")


def prompt(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


# x, x+ with one instruction and x- with two; all five relations of docs/method.md; a margin.
GRID = RelationGroup(
    pair_id="grid",
    prompts=(prompt("x"), prompt("x Use a."), prompt("x Use b. Use c.")),
    instructions=((), (record("a"),), (record("b"), record("c"))),
    responses=("yes", "no"),
    sequences=tuple(Sequence(n // 2, n % 2, ((), (True,), (False, True))[n // 2]) for n in range(6)),
    relations=(
        Relation(Level.PREF, (0,), (1,)),
        Relation(Level.INTRA, (2,), (4,)),
        Relation(Level.INTRA, (5,), (3,)),
        Relation(Level.INTER_WIDENING, (2, 1), (3, 0)),
        Relation(Level.INTER_NARROWING, (0, 5), (1, 4)),
    ),
    source="s",
    margin=0.5,
)
# As the independent layout: prompts 1 and 2 are of the intra relation alone, prompt 3 of the inter relation.
APART = RelationGroup(
    pair_id="apart",
    prompts=(prompt("y"), prompt("y Use a."), prompt("y Use b."), prompt("y Use c.")),
    instructions=((), (record("a"),), (record("b"),), (record("c"),)),
    responses=("yes", "no"),
    sequences=(
        *(Sequence(0, response, ()) for response in (0, 1)),
        Sequence(1, 0, (True,)),
        Sequence(2, 0, (False,)),
        *(Sequence(3, response, (response == 0,)) for response in (0, 1)),
    ),
    relations=(
        Relation(Level.PREF, (0,), (1,)),
        Relation(Level.INTRA, (2,), (3,)),
        Relation(Level.INTER_WIDENING, (4, 1), (5, 0)),
    ),
    source="s",
)
# The plain pair alone.
PLAIN = replace(
    GRID,
    pair_id="plain",
    prompts=GRID.prompts[:1],
    instructions=((),),
    sequences=GRID.sequences[:2],
    relations=GRID.relations[:1],
    margin=None,
)
GROUPS = [GRID, APART, PLAIN]


def test_by_hand() -> None:
    assert left_out(GRID) == Counter(intra=2, inter=2, groups=1, kinds=3, margins=1, instructions=3)
    assert left_out(APART) == Counter(intra=1, inter=1, prompts=2, groups=1, kinds=2, instructions=3)
    assert left_out(PLAIN) == Counter(kinds=1)


@pytest.mark.parametrize("format", ["trl", "openrlhf"])
def test_counts_agree_with_the_rows(format: str, tmp_path: Path) -> None:
    exported = write_export(GROUPS, format, tmp_path / "rows.jsonl")
    rows = [row for group in GROUPS for row in export_rows(group, format)]
    assert exported.rows == len(rows) == exported.left_out["kinds"] == 6
    # What is counted as left out is in no row: instructed prompts of intra relations, and margins.
    texts = {row["prompt"][-1]["content"] for row in rows}
    prompts = [each[-1].content for group in GROUPS for each in group.prompts]
    assert sum(text not in texts for text in prompts) == exported.left_out["prompts"] == 2
    assert not any("margin" in row for row in rows)
    # Every relation is a row or counted: of pref all are rows, of inter one row each.
    relations = Counter(relation.level.family for group in GROUPS for relation in group.relations)
    assert relations == Counter(pref=3, intra=exported.left_out["intra"], inter=exported.left_out["inter"])
    assert Counter(row["kind"].split("_")[0] for row in rows) == Counter(pref=3, inter=exported.left_out["inter"])


@pytest.mark.parametrize("format", ["intra", "inter"])
def test_tables_of_the_method_are_not_for_trainers(format: str, tmp_path: Path) -> None:
    assert write_export(GROUPS, format, tmp_path / "rows.jsonl").left_out == Counter()


def test_lines() -> None:
    lines = left_out_lines(Counter(margins=1_200, intra=2))
    assert lines[0].startswith("2 intra relations (one response under two prompts)")
    assert lines[1].startswith("1,200 groups have a margin")
    assert len(lines) == 2
    assert left_out_lines({}) == []


@pytest.mark.parametrize("output", ["rows.jsonl", "rows.parquet", "folder/"])
def test_the_command_prints_the_counts(output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run" / "groups" / "train"
    parts = [write_part(folder, n, [g.to_row()], [], GROUP_SCHEMA, "f") for n, g in enumerate(GROUPS)]
    commit(folder, "synthesize", "f", parts)
    words = ["export", "--output", f"{tmp_path}/{output}", "name=run", f"output_dir={tmp_path}"]
    assert main([*words, "--format", "trl"]) == 0
    printed = capsys.readouterr().out
    assert "6 trl rows ->" in printed
    for line in (
        "  3 intra relations (one response under two prompts) have no row",
        "  3 inter relations (two sequences on each side) are one row each",
        "  2 prompts are in no row",
        "  2 groups are split into rows",
        "  6 rows have their level in `kind`",
        "  1 groups have a margin",
        "  6 instructions are in the prompts only as text",
    ):
        assert line in printed
    assert main(["export", "--output", f"{tmp_path}/intra.jsonl", *words[3:], "--format", "intra"]) == 0
    assert "leave out" not in capsys.readouterr().out
