"""IFEval and IFBench: verdicts are those of the public checkers, on real responses; rows that they can't take."""

import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mapl_ray.config import DataConfig, EvaluationSet
from mapl_ray.data.records import PreferencePair
from mapl_ray.errors import UserError
from mapl_ray.evaluation.follow_results import follow_results
from mapl_ray.evaluation.following import FollowRow, Verdict, judge_response, judge_responses
from mapl_ray.evaluation.public_sets import PublicSet, read_set
from mapl_ray.evaluation.set_results import following_results
from mapl_ray.evaluation.set_tables import set_table
from mapl_ray.instructions import REGISTRY, Instruction
from mapl_ray.preferences import read_pairs

MAPPED = [name for name, function in REGISTRY.items() if function.ifeval is not None and name != "word_count_between"]
# Kinds that none of our functions is mapped to, with arguments as IFEval's own rows have them.
FOREIGN: list[tuple[str, dict[str, Any]]] = [
    ("change_case:english_lowercase", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Why is the sky blue?"}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    ("detectable_format:json_format", {}),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}),
    ("startend:end_checker", {"end_phrase": "Is there anything else I can help with?"}),
    ("keywords:existence", {"keywords": ["the"]}),
]
RESPONSES = 1_200
ROW = {"key": 1, "prompt": "Why?", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["blue"]}]}


def read(folder: Path, rows: list[dict[str, Any]]) -> PublicSet:
    path = folder / "ifeval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_set("ifeval", EvaluationSet(path=str(path)))


def own_verdicts(checkers: ModuleType, row: dict[str, Any], response: str) -> list[bool]:
    """The registry's checkers, asked one by one."""
    found = []
    for kind, given in zip(row["instruction_id_list"], row["kwargs"], strict=True):
        checker = checkers.INSTRUCTION_DICT[kind](kind)
        checker.build_description(**{name: value for name, value in given.items() if value is not None})
        found.append(bool(response.strip() and checker.check_following(response)))
    return found


def test_verdicts_are_the_public_checkers_on_real_responses(
    checkers: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    pairs = [
        pair
        for name in ("alpaca_eval_pairs.jsonl.gz", "hh_harmless_base_test.jsonl.gz", "pandalm_human.jsonl.gz")
        for pair in read_pairs(DataConfig(path=str(shared_data / name), limit=700))
        if isinstance(pair, PreferencePair)
    ]
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    ours: list[list[Instruction | None]] = []
    responses: list[str] = []
    for pair in rng.sample(pairs, RESPONSES):
        ids: list[str] = []
        kwargs: list[dict[str, Any]] = []
        instructions: list[Instruction | None] = []
        for name in rng.sample(MAPPED, 3):
            made = REGISTRY[name].generate(pair.chosen, rng.random() < 0.5, rng, other=pair.rejected)
            if made is not None and (mapped := made.to_ifeval()) is not None and all(mapped[1].values()):
                ids.append(mapped[0])
                kwargs.append({**mapped[1], "unset": None})  # as the hub's rows are: every argument of every kind
                instructions.append(made)
        kind, given = rng.choice(FOREIGN)
        rows.append(
            {
                "key": len(rows),
                "prompt": pair.prompt[-1].content,
                "instruction_id_list": [*ids, kind],
                "kwargs": [*kwargs, given],
            }
        )
        ours.append([*instructions, None])
        responses.append(pair.chosen)
    found = read(tmp_path, rows)
    assert found.rejected == []
    results = following_results(found, found.following, {"m": (responses, 0)}, [], samples=0, seed=0)["following"]["m"]
    expected = [own_verdicts(checkers, row, response) for row, response in zip(rows, responses, strict=True)]
    flat = [flag for flags in expected for flag in flags]
    assert results["instruction_strict"]["count"] == len(flat) >= 3 * RESPONSES
    assert results["instruction_strict"]["value"] == pytest.approx(sum(flat) / len(flat))
    assert results["prompt_strict"]["value"] == pytest.approx(sum(map(all, expected)) / RESPONSES)
    assert results["instruction_loose"]["value"] >= results["instruction_strict"]["value"]
    different = 0
    for row, response, flags, instructions in zip(found.following, responses, expected, ours, strict=True):
        verdict = judge_response(row, response)
        different += verdict.strict != tuple(flags)
        different += any(loose < strict for strict, loose in zip(verdict.strict, verdict.loose, strict=True))
        # Our own checks of what is mapped agree, too.
        different += any(i is not None and i.check(response) != f for i, f in zip(instructions, flags, strict=True))
    assert different == 0
    assert {True, False} == set(flat)


def test_loose_forgives_a_first_line_and_asterisks(checkers: ModuleType, tmp_path: Path) -> None:
    row = {
        "instruction_id_list": ["startend:end_checker", "detectable_format:title"],
        "kwargs": [{"end_phrase": "bye"}, {}],
    }
    found = read(tmp_path, [ROW | row])
    verdict = judge_response(found.following[0], "Here:\n<<a>> hello *bye*")
    assert verdict == Verdict(strict=(False, True), loose=(True, True))
    assert judge_response(found.following[0], " ") == Verdict((False, False), (False, False))


def test_rows_that_the_checkers_cant_take_are_refused(checkers: ModuleType, tmp_path: Path) -> None:
    bad = [
        {"prompt": ""},
        {"instruction_id_list": []},
        {"kwargs": []},
        {"kwargs": [{"keyword": ["blue"]}]},  # misspelt
        {
            "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"num_words": 0, "relation": "at least"}],
        },
    ]
    found = read(tmp_path, [ROW, *(ROW | one for one in bad)])
    assert (len(found.following), found.input_rows) == (1, 6)
    assert [(r.row, r.reason.split("=")[0].split(":")[0]) for r in found.rejected] == [
        (1, "prompt"),
        (2, "instruction_id_list"),
        (3, "kwargs"),
        (4, "kwargs"),
        (5, "kwargs[0].num_words"),
    ]


def test_missing_checkers_and_data_are_told_with_the_cure(checkers: ModuleType, tmp_path: Path) -> None:
    sentences = {
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"num_sentences": 2, "relation": "at least"}],
    }
    with pytest.raises(UserError, match=r"punkt_tab.*nltk.downloader"):
        read(tmp_path, [ROW | sentences])
    with pytest.raises(UserError, match=r"checkers of IFBench are not installed.*PYTHONPATH"):
        read(tmp_path, [ROW | {"instruction_id_list": ["count:word_count_range"], "kwargs": [{"min_words": 1}]}])


def test_a_checker_that_breaks_off_is_counted(checkers: ModuleType) -> None:
    broken = FollowRow(
        "1", "p", ("length_constraints:number_words",), ({"num_words": "many", "relation": "at least"},), "ifeval"
    )
    assert judge_responses([broken], ["some words"]) == [Verdict((False,), (False,), failed=True)]


def test_accuracy_by_hand() -> None:
    rows = [FollowRow(str(n), "p", ids, ({},) * len(ids), "ifeval") for n, ids in enumerate([("a:x", "b:y"), ("a:z",)])]
    verdicts = [Verdict((True, False), (True, True)), Verdict((True,), (True,))]
    results = follow_results(rows, verdicts, cut=1, samples=0, seed=0)
    shares = [results[name]["value"] for name in ("prompt_strict", "instruction_strict", "prompt_loose")]
    assert shares == [0.5, pytest.approx(2 / 3), 1.0]
    assert {kind: (value["value"], value["count"]) for kind, value in results["by_kind"].items()} == {
        "a": (1.0, 2),
        "b": (0.0, 1),
    }
    head, table = set_table({"following": {"m": results}, "preference": {}})
    assert table == [["m", "50.0", "66.7", "100.0", "100.0", "1", "0"]]
    assert head[1] == "prompt strict"
