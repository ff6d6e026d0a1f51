"""Shapes of rows beside prompt, chosen, rejected: each tested on a row as its data set publishes them."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.config import DataConfig, MixSource
from mapl_ray.data.records import Message, PreferencePair, Rejection
from mapl_ray.errors import UserError
from mapl_ray.preferences import read_pairs
from mapl_ray.preferences.formats import detect_format, parse_row

ASK, GOOD, BAD = "How do I keep basil fresh?", "Stand it in a glass of water.", "Throw it in the freezer drawer."
USER = Message("user", ASK)
TALK = [{"role": "user", "content": ASK}]
CHOSEN, REJECTED = ([*TALK, {"role": "assistant", "content": text}] for text in (GOOD, BAD))
HELPSTEER_2 = {
    "split": "train",
    "prompt": f"Hi<extra_id_1>Assistant\nHello\n<extra_id_1>User\n{ASK}",
    "response_1": BAD,
    "response_2": GOOD,
    "preference_strength": 2,
    "preference_statement": "@Response 2 is better.",
}
FIRST_IS_BETTER = HELPSTEER_2 | {
    "prompt": ASK,
    "response_1": GOOD,
    "response_2": BAD,
    "preference_strength": -1,
}
HELPSTEER_3 = {
    "domain": "general",
    "language": "english",
    "context": TALK,
    "response1": GOOD,
    "response2": BAD,
    "overall_preference": -3,
    "individual_preference": [{"score": -3, "reasoning": "x"}],
}
NECTAR = {
    "prompt": f"\n\nHuman: {ASK}\n\nAssistant: ",
    "answers": [
        {"answer": "second", "model": "a", "rank": 2.0},
        {"answer": "first", "model": "b", "rank": 1.0},
        {"answer": "also second", "model": "c", "rank": 2.0},
        {"answer": "last", "model": "d", "rank": 7.0},
    ],
    "turns": 1,
    "num_responses": 4,
    "good_natured": True,
}


def results(values: dict[str, Any], **config: Any) -> tuple[str, list[PreferencePair | Rejection]]:
    settings = DataConfig(**config)
    found = detect_format(settings, [values], "f")
    return found, parse_row(values, found, settings, "f", 3)


def pairs(values: dict[str, Any], **config: Any) -> list[PreferencePair]:
    found = results(values, **config)[1]
    assert all(isinstance(one, PreferencePair) for one in found), found
    return [one for one in found if isinstance(one, PreferencePair)]


def reason(values: dict[str, Any], **config: Any) -> str:
    (found,) = results(values, **config)[1]
    assert isinstance(found, Rejection), found
    return found.reason


@pytest.mark.parametrize(
    ("shape", "values", "margin"),
    [
        (
            "sharegpt",
            {
                "conversations": [{"from": "human", "value": ASK}],
                "chosen": {"from": "gpt", "value": GOOD},
                "rejected": {"from": "gpt", "value": BAD},
            },
            None,
        ),
        ("rejected_response", {"messages": CHOSEN, "rejected_response": BAD}, None),
        ("helpsteer3", HELPSTEER_3, 3.0),
        ("helpsteer2", HELPSTEER_2 | {"prompt": ASK}, 2.0),
        ("helpsteer2", FIRST_IS_BETTER, 1.0),
        ("pairs", {"prompt": ASK, "chosen": CHOSEN[-1], "rejected": REJECTED[-1]}, None),
        ("pairs", {"chosen": json.dumps(CHOSEN), "rejected": json.dumps(REJECTED)}, None),
        ("pairs", {"prompt": ASK, "chosen": str(CHOSEN), "rejected": str(REJECTED)}, None),
        ("pairs", {"prompt": str(TALK), "chosen": str(CHOSEN[-1]), "rejected": json.dumps(REJECTED[-1])}, None),
        ("pairs", {"prompt": json.dumps(TALK, indent=1), "chosen": GOOD, "rejected": BAD}, None),
        (
            "ultrafeedback",
            {"prompt": ASK, "chosen": CHOSEN, "rejected": REJECTED, "score_chosen": 7, "score_rejected": 7.0},
            0.0,
        ),
    ],
)
def test_a_row_of_each_shape_is_one_pair(shape: str, values: dict[str, Any], margin: float | None) -> None:
    name, (found,) = results(values)
    assert name == shape
    assert isinstance(found, PreferencePair), found
    assert (found.prompt, found.chosen, found.rejected, found.margin) == ((USER,), GOOD, BAD, margin)


def test_helpsteers_turns_and_a_system_message_beside_sharegpt() -> None:
    (found,) = pairs(HELPSTEER_2)
    assert found.prompt == (Message("user", "Hi"), Message("assistant", "Hello"), USER)
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": ASK}]
    sides = {"chosen": {"from": "gpt", "value": GOOD}, "rejected": {"from": "gpt", "value": BAD}}
    (found,) = pairs({"conversations": talk, "system": "Be brief.", "id": 7} | sides)
    assert found.prompt == (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"), USER)
    assert found.pair_id == "7"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (HELPSTEER_3 | {"overall_preference": 0}, "overall_preference=0: prefers neither response"),
        (HELPSTEER_3 | {"overall_preference": -100}, "overall_preference=-100: no preference"),
        (HELPSTEER_2 | {"preference_strength": None}, "preference_strength: no preference"),
        (HELPSTEER_3 | {"response1": ""}, "response1='': empty"),
        (HELPSTEER_3 | {"context": [{"role": "critic", "content": "x"}]}, "context[0].role='critic': unknown role"),
        ({"messages": TALK, "rejected_response": BAD}, "messages[-1].role='user': not the assistant's turn"),
        ({"messages": CHOSEN, "rejected_response": "  "}, "rejected_response='  ': empty"),
        (
            {"conversations": [{"from": "observation", "value": "x"}], "chosen": CHOSEN[-1], "rejected": REJECTED[-1]},
            "conversations[0].from='observation': unknown role",
        ),
        (
            {"prompt": ASK, "chosen": "[{'role': 'user', 'content': 'a'}\n {'role': 'user', 'content': 'b'}]"}
            | {"rejected": BAD},
            "looks like a message list written as text, and can't be parsed",
        ),
        ({"prompt": ASK, "chosen": {"text": GOOD}, "rejected": BAD}, "chosen[0].role: missing"),
        ({"prompt": ASK, "chosen": TALK[0], "rejected": CHOSEN[-1]}, "chosen[-1].role='user': not the assistant's"),
    ],
)
def test_what_a_shape_lacks_is_named_as_the_row_has_it(values: dict[str, Any], said: str) -> None:
    assert said in reason(values)


def test_a_response_that_is_json_is_no_message_list() -> None:
    for text in ('[{"name": "a"}, {"name": "b"}]', '{"role": "admin"}', '{"value": 3}', "[1, 2]", "[{", "{'a': 1}"):
        (found,) = pairs({"prompt": ASK, "chosen": text, "rejected": BAD})
        assert found.chosen == text


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("best_worst", [("first", "last", 6.0)]),
        ("adjacent", [("first", "second", 1.0), ("also second", "last", 5.0)]),
        (
            "all",
            [
                ("first", "second", 1.0),
                ("first", "also second", 1.0),
                ("first", "last", 6.0),
                ("second", "last", 5.0),
                ("also second", "last", 5.0),
            ],
        ),
    ],
)
def test_ranked_lists_give_the_pairs_of_the_declared_rule(rule: str, expected: list[tuple[str, str, float]]) -> None:
    found = pairs(NECTAR | {"id": "n1"}, ranked_pairs=rule)
    assert [(one.chosen, one.rejected, one.margin) for one in found] == expected
    assert {one.prompt for one in found} == {(USER,)}
    assert len({one.pair_id for one in found}) == len(found)
    assert found[0].pair_id.startswith("n1:1>")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompt": ASK, "response": GOOD, "helpfulness": 4}, "rate one response each: for HelpSteer2, use the files"),
        ({"prompt": ASK, "completion": GOOD, "label": True}, "judge one completion each"),
    ],
)
def test_rows_of_one_response_are_refused_with_what_to_do(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        results(values)


def test_a_limit_counts_rows_not_the_pairs_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(NECTAR | {"id": n}) + "\n" for n in range(3)))
    found = list(read_pairs(DataConfig(path=str(path), ranked_pairs="all", limit=2)))
    assert [one.pair_id.split(":")[0] for one in found] == ["0"] * 5 + ["1"] * 5


def test_ranked_lists_need_a_rule_and_differing_ranks() -> None:
    with pytest.raises(UserError, match=r"f: holds ranked lists.*data\.ranked_pairs.*best_worst, adjacent or all"):
        results(NECTAR)
    same = NECTAR | {"answers": [{"answer": "a", "rank": 1.0}, {"answer": "b", "rank": 1.0}]}
    assert "every rank is the same" in reason(same, ranked_pairs="all")
    assert "answers[0].rank: missing" in reason(NECTAR | {"answers": [{"answer": "a"}] * 2}, ranked_pairs="all")
    bad = NECTAR | {"answers": [{"answer": 3, "rank": 1}, {"answer": "b", "rank": 2}]}
    assert "answers[0].answer=3: a int; expected text" in reason(bad, ranked_pairs="all")
    scored = [{"response": BAD, "overall_score": 4.0}, {"response": GOOD, "overall_score": 8.5}]
    raw = {"instruction": ASK, "completions": scored}
    (found,) = pairs(raw, ranked_pairs="best_worst")
    assert (found.prompt, found.chosen, found.rejected, found.margin) == ((USER,), GOOD, BAD, 4.5)


@pytest.mark.parametrize("blank", ["\u200b", " \u200b\u2060\n", "\ufeff", "\u00a0", "\u3164", "\u200e\u200f", "\u00ad"])
def test_a_response_that_shows_nothing_is_empty(blank: str) -> None:
    assert reason({"prompt": ASK, "chosen": blank, "rejected": BAD}).endswith(": empty; expected text")
    assert reason({"prompt": blank, "chosen": GOOD, "rejected": BAD}).startswith("prompt=")
    talk = [*TALK, {"role": "assistant", "content": blank}]
    assert reason({"prompt": ASK, "chosen": talk, "rejected": REJECTED}).startswith("chosen[1].content=")
    (found,) = pairs({"prompt": ASK, "chosen": f"{blank}Sí\u200d", "rejected": BAD})
    assert found.chosen == f"{blank}Sí\u200d"


@pytest.mark.parametrize(
    "other", ["Cafe\u0301.", " Café.\n", "Café.\u200b", "\ufeffCafé."], ids=["NFD", "space", "zero width", "BOM"]
)
def test_texts_that_look_the_same_are_the_same(other: str) -> None:
    assert "the same as chosen" in reason({"prompt": ASK, "chosen": "Café.", "rejected": other})
    talks = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in (("Café.", GOOD), (other, BAD))
    ]
    (found,) = pairs({"prompt": other, "chosen": talks[0], "rejected": talks[1]})
    assert (found.chosen, found.rejected) == (GOOD, BAD)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "1"),
        (-2.0, "-2"),
        (float(2**53 - 1), str(2**53 - 1)),
        (Decimal("7.00"), "7"),
        (Decimal(10**30), str(10**30)),
        (12, "12"),
        ("1.0", "1.0"),
    ],
)
def test_whole_numbers_are_ids_however_they_are_stored(value: Any, expected: str) -> None:
    (found,) = pairs({"prompt": ASK, "chosen": GOOD, "rejected": BAD, "id": value})
    assert found.pair_id == expected


def test_nan_is_no_id_and_a_fraction_is_refused() -> None:
    row = {"prompt": ASK, "chosen": GOOD, "rejected": BAD}
    own = pairs(row)[0].pair_id
    assert [pairs(row | {"id": value})[0].pair_id for value in (float("nan"), Decimal("NaN"), None, "")] == [own] * 4
    assert pairs(row | {"pair_id": float("nan"), "id": 4.0})[0].pair_id == "4"
    for value in (1.5, float("inf"), float(2**53)):
        assert reason(row | {"id": value}).startswith(f"id={value!r}: not a whole number")


def test_sources_of_a_mix_may_declare_columns_of_their_own() -> None:
    config = DataConfig(
        mix=(MixSource(path="a.jsonl", columns={"prompt": "q"}), MixSource(path="b.jsonl", ranked_pairs="all")),
        columns={"prompt": "Question"},
        ranked_pairs="adjacent",
    )
    assert [(part.columns, part.ranked_pairs) for part in config.parts()] == [
        ({"prompt": "q"}, "adjacent"),
        ({"prompt": "Question"}, "all"),
    ]
