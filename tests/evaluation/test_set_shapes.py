"""RewardBench 2, JudgeBench and IF-RewardBench: rows as they are published, scored as their authors score them."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.config import EvaluationSet
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.public_sets import PublicSet, read_set
from mapl_ray.evaluation.rewards import reference_logps
from mapl_ray.evaluation.set_results import SetResults, preference_results
from mapl_ray.evaluation.set_rows import set_format
from mapl_ray.evaluation.set_rules import kendall_tau_b, ties_rule
from mapl_ray.evaluation.set_tables import counts_line, set_table

FACT = {
    "id": "1",
    "prompt": "How do I keep basil fresh?",
    "chosen": ["Stand it in a glass of water."],
    "rejected": ["Throw it in the freezer drawer.", "Burn it.", "Sell it."],
    "num_correct": 1,
    "num_incorrect": 3,
    "total_completions": 4,
    "models": ["a", "b", "c", "d"],
    "subset": "Factuality",
    "additional_metadata": {"category": None},
}
TIED = {
    "id": "tied:2",
    "prompt": "Name a color.",
    "chosen": ["Red.", "Blue.", "Green."],
    "rejected": ["Seven.", "Tuesday."],
    "num_correct": 3,
    "num_incorrect": 2,
    "total_completions": 5,
    "subset": "Ties",
}
REF = TIED | {"id": "ref:2", "prompt": "Name the color of grass.", "chosen": ["Green."], "num_correct": 1}
REF |= {"total_completions": 3}
JUDGE = {
    "pair_id": "81ec57f2-483f-515f-93ff-78a8910b2153",
    "original_id": "10646",
    "source": "mmlu-pro-computer science",
    "question": "Is P in NP?",
    "response_model": "gpt-4o-2024-05-13",
    "response_A": "No.",
    "response_B": "Yes.",
    "label": "B>A",
}
GRAPH = {
    "id": 679,
    "response_generation_model": "DeepSeek-R1",
    "instruction_type": "Single_Turn",
    "messages": [{"role": "user", "content": "In two words: why?"}],
    "checklist": ["Two words."],
    "constraint_type": [{"item_id": 0, "item": "Two words."}],
    "responses": [{"response_id": n, "response": text, "labels": [1]} for n, text in enumerate(("a b", "a", "a b c"))],
    "preference_graph": [
        {"chosen": {"response_id": 0}, "rejected": {"response_id": 1}},
        {"chosen": {"response_id": 0}, "rejected": {"response_id": 2}},
        {"chosen": {"response_id": 2}, "rejected": {"response_id": 1}},
    ],
}


def read(folder: Path, rows: list[Any], kind: str = "jsonl", **options: Any) -> PublicSet:
    path = folder / f"set.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_set("mine", EvaluationSet(path=str(path), **options))


def measured(found: PublicSet, rewards: Any) -> SetResults:
    """`rewards`: a row each, the responses of its one group."""
    assert len(rewards) == len(found.rows)
    return preference_results(found, found.rows, {"m": [[row] for row in rewards]}, [], 20, 0)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (FACT, "rewardbench-2"),
        (TIED, "rewardbench-2"),
        (TIED | {"rejected": ["a", "b", "c"]}, "rewardbench-2"),  # three and three, as a row of RM-Bench
        ({"prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": "chat"}, "rm-bench"),
        (JUDGE, "judgebench"),
        (GRAPH, "if-rewardbench"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "subset": "hep-go"}, "rewardbench"),
        ({"input": "p", "output_1": "a", "output_2": "b", "label": 1}, "llmbar"),
        ({"key": 1, "prompt": "p", "instruction_id_list": [], "kwargs": []}, "ifeval"),
    ],
)
def test_a_format_is_found_by_its_columns(row: dict[str, Any], expected: str) -> None:
    assert set_format(row) == expected


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_published_rows_are_read_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    for row, format_ in ((FACT, "rewardbench-2"), (JUDGE, "judgebench"), (GRAPH, "if-rewardbench")):
        found = read(tmp_path, [row], kind)
        assert (found.format, len(found.rows), found.rejected) == (format_, 1, [])


def test_rewardbench_2_counts_a_row_right_where_the_chosen_answer_beats_all_others(tmp_path: Path) -> None:
    math_rows = [FACT | {"id": f"m{n}", "subset": "Math", "prompt": f"{n}?"} for n in range(2)]
    found = read(tmp_path, [FACT, *math_rows, FACT | {"id": "f2", "prompt": "And mint?"}])
    (group,) = found.rows[0].groups
    assert group.responses == (*FACT["chosen"], *FACT["rejected"])
    assert [(r.preferred, r.dispreferred) for r in group.relations] == [((0,), (1,)), ((0,), (2,)), ((0,), (3,))]
    # Right; wrong, since one of three is above; two share the highest: a half; all four do: a quarter.
    results = measured(found, [(2.0, 1.0, 0.0, -1.0), (2.0, 1.0, 3.0, 0.0), (2.0, 2.0, 0.0, 0.0), (1.0,) * 4])
    one = results["preference"]["m"]
    assert {name: value["value"] for name, value in one["by_subset"].items()} == {"Factuality": 0.625, "Math": 0.25}
    assert one["sections"] == {"Factuality": 0.625, "Math": 0.25}
    assert one["score"] == pytest.approx(0.4375)
    assert one["accuracy"]["value"] == pytest.approx(1.75 / 4)
    head, table = set_table(results)
    assert head == ["model", "accuracy", "score", "Factuality", "Math", "ECE"]
    assert table[0][2:5] == ["43.8", "62.5", "25.0"]


def test_the_ties_rule() -> None:
    """By hand. Prompt 1: spread 1, tied gap 2, ref gap 3: both preferred, tanh(2 / 1 - 1). Prompt 2: spread 2, tied gap
    3, ref gap 1: preferred, not hard, tanh(1 / 2 - 1). Prompt 3: tied gap -1, ref gap 2, spread 1: neither, tanh(-2).
    """
    rows = [
        ("tied:1", 2, (5.0, 4.0, 2.0, 1.0)),
        ("ref:1", 1, (5.0, 2.0)),
        ("tied:2", 2, (7.0, 5.0, 2.0)),
        ("ref:2", 1, (3.0, 2.0)),
        ("tied:3", 2, (2.0, 1.0, 2.0)),
        ("ref:3", 1, (3.0, 1.0)),
    ]
    found = ties_rule(rows)
    margin = (math.tanh(1.0) + math.tanh(-0.5) + math.tanh(-2.0)) / 3
    assert found == {
        "ref_accuracy": 1.0,
        "tied_accuracy": pytest.approx(2 / 3),
        "correctness_preferred": pytest.approx(2 / 3),
        "correctness_preferred_hard": pytest.approx(1 / 3),
        "margin_score": pytest.approx(margin),
        "score": pytest.approx(0.3 * 2 / 3 + 0.3 + 0.2 * 2 / 3 + 0.2 / 3 + 0.01 * margin),
    }
    # No spread: the gap over it is without bound and counts 1; 0 over 0 counts 0.
    assert ties_rule([("tied:1", 2, (2.0, 2.0, 1.0)), ("ref:1", 1, (2.0, 1.0))])["margin_score"] == 1.0
    assert ties_rule([("tied:1", 2, (2.0, 2.0, 2.0)), ("ref:1", 1, (2.0, 1.0))])["margin_score"] == 0.0
    # A prompt with one of its two rows alone gives accuracies, and no score.
    assert ties_rule(rows[:1]) == {"ref_accuracy": 0.0, "tied_accuracy": 1.0}


def test_ties_rows_are_scored_by_their_rule_and_not_as_styles(tmp_path: Path) -> None:
    found = read(tmp_path, [FACT, TIED, REF])
    results = measured(found, [(1.0, 0.0, 0.0, 0.0), (3.0, 2.5, 3.0, 1.0, 0.0), (3.0, 1.0, 0.0)])
    one = results["preference"]["m"]
    # Tied gap 1.5 above the spread 0.5, ref gap 2: everything is right, and tanh(1.5 / 0.5 - 1).
    ties = 1.0 + 0.01 * math.tanh(2.0)
    assert one["sections"] == {"Factuality": 1.0, "Ties": pytest.approx(ties)}
    assert one["score"] == pytest.approx((1.0 + ties) / 2)
    assert one["details"]["ties_correctness_preferred_hard"] == 1.0
    assert (one["by_subset"]["Ties"]["value"], one["matrix"], one["styles"]) == (1.0, [], {})
    alone = measured(read(tmp_path, [FACT, TIED]), [(1.0, 0.0, 0.0, 0.0), (3.0, 2.5, 3.0, 2.7, 0.0)])
    one = alone["preference"]["m"]
    assert (one["sections"], one["by_subset"]["Ties"]["value"]) == ({"Factuality": 1.0}, 0.0)
    assert one["details"] == {"ties_ref_accuracy": 0.0, "ties_tied_accuracy": 0.0}
    assert "score excludes Ties, because no prompt has both rows" in counts_line(alone)
    assert "excludes Ties" not in counts_line(results)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (FACT | {"num_correct": 2}, "num_correct=2: but the row has 1"),
        (FACT | {"total_completions": 5}, "total_completions=5: but the row has 4"),
        (FACT | {"chosen": ["a", "b"], "num_correct": 2, "total_completions": 5}, "chosen=['a', 'b']: 2 right answers"),
        (FACT | {"rejected": []}, "rejected=[]: not a list of answers"),
        (FACT | {"rejected": ["a", " ", "c"]}, "rejected[1]=' ': empty"),
        (TIED | {"id": "5"}, "id='5': not an id of the Ties subset; expected ref:N or tied:N"),
        (REF | {"id": "tied:2"}, "chosen=['Green.']: one right answer; expected two or more"),
    ],
)
def test_rows_of_rewardbench_2_that_are_not_as_published(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    found = read(tmp_path, [FACT, row])
    assert len(found.rows) == 1
    assert found.rejected[0].reason.startswith(said)
    assert found.rejected[0].pair_id == row["id"]


def test_rm_bench_takes_no_rows_of_rewardbench_2(tmp_path: Path) -> None:
    styles = {"prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    three = TIED | {"rejected": ["a", "b", "c"], "num_incorrect": 3, "total_completions": 6}
    found = read(tmp_path, [styles, three], format="rm-bench")
    assert len(found.rows) == 1
    assert found.rejected[0].reason.startswith(
        "num_correct=3: a column of RewardBench 2, not of RM-Bench; expected for"
    )


def test_judgebench_by_label_and_source(tmp_path: Path) -> None:
    coding = JUDGE | {"pair_id": "2", "source": "livecodebench", "question": "Sort?", "label": "A>B"}
    bad = JUDGE | {"pair_id": "3", "label": "A=B"}
    found = read(tmp_path, [JUDGE, coding, bad, JUDGE | {"pair_id": "4", "response_B": ""}])
    assert [row.groups[0].responses for row in found.rows] == [("Yes.", "No."), ("No.", "Yes.")]
    assert [row.groups[0].pair_id for row in found.rows] == [JUDGE["pair_id"], "2"]
    assert [(r.pair_id, r.reason) for r in found.rejected] == [
        ("3", "label='A=B': not a verdict on the two responses; expected A>B or B>A"),
        ("4", "response_B='': empty; expected text"),
    ]
    one = measured(found, [(1.0, 0.0), (0.0, 1.0)])["preference"]["m"]
    assert one["sections"] == {"Knowledge": 1.0, "Coding": 0.0}
    assert one["score"] == one["accuracy"]["value"] == 0.5


def test_if_rewardbench_is_a_graph_of_pairs_by_instruction_type(tmp_path: Path) -> None:
    multi = GRAPH | {"id": 1, "instruction_type": "Multi_Turn", "messages": [{"role": "user", "content": "Why?"}]}
    bad = GRAPH | {"preference_graph": [{"chosen": {"response_id": 7}, "rejected": {"response_id": 0}}]}
    found = read(tmp_path, [GRAPH, multi, bad, GRAPH | {"preference_graph": []}])
    (group,) = found.rows[0].groups
    assert group.responses == ("a b", "a", "a b c")
    assert [(r.preferred, r.dispreferred) for r in group.relations] == [((0,), (1,)), ((0,), (2,)), ((2,), (1,))]
    assert [r.reason.split(";")[0] for r in found.rejected] == [
        "preference_graph[0].chosen=7: no such response",
        "preference_graph: empty",
    ]
    # All three in order; one in order, one the other way round, one tie: C = 1, D = 1.
    results = measured(found, [(3.0, 1.0, 2.0), (2.0, 2.0, 3.0)])
    one = results["preference"]["m"]
    assert one["sections"] == {"Single_Turn": 1.0, "Multi_Turn": pytest.approx(1 / 3)}
    assert one["score"] == pytest.approx(2 / 3)
    assert one["details"] == {"kendall_tau": pytest.approx(0.5)}
    assert set_table(results)[0] == ["model", "accuracy", "score", "Multi_Turn", "Single_Turn", "Kendall's tau", "ECE"]
    assert kendall_tau_b([1.0, 1.0, -1.0, 0.0]) == pytest.approx(1 / math.sqrt(12))


def test_a_row_of_several_responses_is_scored_as_each_of_them_alone(tmp_path: Path, tiny_model: Path) -> None:
    policy = Checkpoint("policy", str(tiny_model), None, "dpo")
    (row, tied) = read(tmp_path, [FACT, TIED]).rows
    pairs = [{"prompt": one["prompt"], "chosen": text, "rejected": "x"} for one in (FACT, TIED)
             for text in (*one["chosen"], *one["rejected"])]  # fmt: skip
    alone = [one.groups[0] for one in read(tmp_path, pairs).rows]
    together = reference_logps([*row.groups, *tied.groups], policy, micro_batch_size=2, max_sequence_tokens=256)
    single = reference_logps(alone, policy, micro_batch_size=1, max_sequence_tokens=256)
    assert [value for of_group in together for value in of_group] == pytest.approx([chosen for chosen, _ in single])


def test_columns_of_a_set_may_be_declared(tmp_path: Path) -> None:
    row = {"Frage": "Why?", "chosen": "a", "rejected": "b"}
    found = read(tmp_path, [row, row | {"Frage": " "}], columns={"prompt": "Frage"})
    assert (found.format, len(found.rows)) == ("pairs", 1)
    assert found.rejected[0].reason == "Frage=' ': empty; expected text"
