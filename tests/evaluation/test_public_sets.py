"""Public sets in their own formats: what is read, what is refused and how it is told, and their own rules."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.config import EvaluationSet
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation.public_sets import PublicSet, read_set
from mapl_ray.evaluation.set_results import SetResults, preference_results
from mapl_ray.evaluation.set_tables import counts_line, set_differences, set_table

GOOD = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def read(folder: Path, rows: list[Any], **options: Any) -> PublicSet:
    path = folder / "set.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return read_set("mine", EvaluationSet(path=str(path), **options))


def measured(found: PublicSet, *rewards: Any) -> SetResults:
    """`rewards`: a model each, a row's (chosen, rejected) a group."""
    names = [f"m{index}" for index in range(len(rewards))]
    scored = dict(zip(names, rewards, strict=True))
    return preference_results(found, found.rows, scored, [(name, names[0]) for name in names[1:]], 50, 0)


def test_rewardbench_weighs_its_sections(tmp_path: Path) -> None:
    subsets = ["alpacaeval-easy"] * 3 + ["mt-bench-med"] + ["math-prm"] * 2 + ["hep-go"] * 3 + ["hep-js"] * 3
    rows = [GOOD | {"prompt": f"Why {i}?", "subset": subset, "id": i} for i, subset in enumerate(subsets)]
    found = read(tmp_path, rows)
    assert found.format == "rewardbench"
    right, wrong = [(1.0, 0.0)], [(0.0, 1.0)]
    tie = [(1.0, 1.0)]
    results = measured(found, [right, right, wrong, right, right, wrong, right, right, right, tie, right, right])
    one = results["preference"]["m0"]
    assert one["accuracy"]["value"] == pytest.approx(9 / 12)
    assert one["ties"] == pytest.approx(1 / 12)
    assert one["by_subset"]["math-prm"]["value"] == 0.5
    # Chat: (3 * 2/3 + 1 * 1) / 4. Reasoning: maths weighs 6 as all code does: (6 * 1/2 + 3 * 1 + 3 * 2/3) / 12.
    assert one["sections"] == {"Chat": pytest.approx(3 / 4), "Reasoning": pytest.approx(8 / 12)}
    assert one["score"] == pytest.approx((3 / 4 + 8 / 12) / 2)
    head, table = set_table(results)
    assert head == ["model", "accuracy", "score", "Chat", "Reasoning", "ECE"]
    assert table[0][2:5] == ["70.8", "75.0", "66.7"]


def test_rm_bench_is_a_matrix_of_styles(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "chosen": ["c0", "c1", "c2"], "rejected": ["r0", "r1", "r2"]}
    rows = [row | {"domain": d, "id": d} for d in ("chat", "safety-refuse", "safety-response")]
    found = read(tmp_path, rows)
    assert found.format == "rm-bench"
    assert [group.responses for group in found.rows[0].groups] == [("c0", "r0"), ("c1", "r1"), ("c2", "r2")]
    # Style alone: each step of style is worth more than being right. Below the diagonal right, above it wrong.
    style = [(0.5, 0.0), (1.5, 1.0), (2.5, 2.0)]
    sound = [(1.0, 0.0)] * 3
    results = measured(found, [style, sound, style], [sound, sound, sound])
    one = results["preference"]["m0"]
    assert one["matrix"] == [
        [1.0, pytest.approx(1 / 3), pytest.approx(1 / 3)],
        [1.0, 1.0, pytest.approx(1 / 3)],
        [1.0] * 3,
    ]
    assert {name: value["value"] for name, value in one["styles"].items()} == {
        "hard": pytest.approx(1 / 3),
        "normal": 1.0,
        "easy": 1.0,
    }
    # A row of style alone is right in 6 of 9; safety is the mean of its two sides.
    assert one["sections"] == {"chat": pytest.approx(2 / 3), "safety": pytest.approx((1 + 2 / 3) / 2)}
    assert results["comparisons"][0]["difference"]["accuracy"]["value"] == pytest.approx(2 / 9)
    assert results["comparisons"][0]["difference"]["mcnemar_p"] is None  # a row is no yes or no
    assert set_differences(results)[0][4] == "-"


def test_llmbar_takes_the_output_that_its_label_names(tmp_path: Path) -> None:
    row = {"input": "Why?", "output_1": "one", "output_2": "two"}
    found = read(
        tmp_path, [row | {"label": 2}, row | {"label": 1}, row | {"label": 3}, row | {"label": 2, "output_1": ""}]
    )
    assert [one.groups[0].responses for one in found.rows] == [("two", "one"), ("one", "two")]
    assert found.format == "llmbar"
    assert [r.reason for r in found.rejected] == [
        "label=3: not the number of an output; expected 1 or 2",
        "output_1='': empty; expected text",
    ]


def test_bad_rows_name_file_row_and_field_and_all_are_counted(tmp_path: Path) -> None:
    bad = [
        "{no json",
        GOOD | {"chosen": 3},
        GOOD | {"rejected": "Because."},
        {"prompt": "Why?", "chosen": "x"},
    ]
    found = read(tmp_path, [GOOD, *bad, GOOD | {"prompt": "How?"}])
    assert (found.format, found.input_rows, len(found.rows)) == ("pairs", 6, 2)
    assert [(r.source, r.row) for r in found.rejected] == [("set.jsonl", row) for row in (1, 2, 3, 4)]
    assert [r.reason.split("=")[0].split(":")[0] for r in found.rejected[1:]] == ["chosen", "rejected", "rejected"]
    results = measured(found, [[(1.0, 0.0)], [(1.0, 0.0)]])
    assert results["counts"] == {"rows": 6, "used": 2, "rejected": 4, "too long": 0}
    assert counts_line(results) == "6 rows: 2 used, 4 rejected, 0 too long"
    assert results["rejections"][1]["reason"] == found.rejected[1].reason
    three = {"prompt": "Why?", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    styles = read(tmp_path, [three | {"rejected": ["d", 4, "f"]}, "{", three | {"rejected": ["d", "e"]}, three])
    assert [r.reason.split(":")[0].split("=")[0] for r in styles.rejected] == ["rejected[1]", "line 2", "rejected"]


def test_transcripts_and_parquet(tmp_path: Path, shared_data: Path) -> None:
    found = read_set("hh", EvaluationSet(path=str(shared_data / "hh_harmless_base_test.jsonl.gz"), limit=40))
    assert (found.format, found.input_rows) == ("hh", 40)
    assert {len(row.groups) for row in found.rows} == {1}
    path = tmp_path / "set.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD | {"subset": "donotanswer", "extra": 1}]), path)
    assert read_set("bench", EvaluationSet(path=str(path))).rows[0].subset == "donotanswer"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "none of its 0 rows can be used"),
        ([{"text": "Why?"}], "columns='text'|'text': no known format"),
        (["{"], "none of its 1 rows can be used .*not JSON"),
    ],
)
def test_a_set_without_a_row_is_the_users_mistake(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path, rows)
    assert "evaluation.sets.mine.path=" in str(raised.value)


def test_a_missing_file_is_told_with_the_key_of_the_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation\.sets\.gone\.path=.*no such file"):
        read_set("gone", EvaluationSet(path=str(tmp_path / "gone.jsonl")))


def test_rewards_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="model m0, set mine"):
        measured(read(tmp_path, [GOOD]), [[(float("nan"), 0.0)]])
