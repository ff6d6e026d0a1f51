"""One row -> one pair, or a rejection that names the field, its value and what was expected."""

from typing import Any

import pytest

from mapl_ray.config import DataConfig
from mapl_ray.data.records import Judgement, Message, PreferencePair, Rejection
from mapl_ray.errors import UserError
from mapl_ray.preferences.formats import detect_format, parse_row

SYSTEM, ASK, REPLY, AGAIN = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "And?"},
)
ROW = {"prompt": "Hi", "chosen": "good", "rejected": "bad"}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def parse(values: dict[str, Any], **config: Any) -> PreferencePair | Rejection:
    settings = DataConfig(**config)
    (found,) = parse_row(values, detect_format(settings, [values], "f"), settings, "f", 7)
    return found


def pair(values: dict[str, Any], **config: Any) -> PreferencePair:
    result = parse(values, **config)
    assert isinstance(result, PreferencePair), result
    return result


def reason(values: dict[str, Any], **config: Any) -> str:
    result = parse(values, **config)
    assert isinstance(result, Rejection), result
    assert (result.source, result.row, result.stage) == ("f", 7, "read")
    result.reason.encode()  # a reason is written to a file: it may not carry what it complains of
    return result.reason


def turns(*messages: dict[str, str]) -> tuple[Message, ...]:
    return tuple(Message(**message) for message in messages)


def test_judgements() -> None:
    assert pair(ROW).judgements == pair(ROW | {"judgements": None}).judgements == ()
    given = [
        {"name": "formal_tone", "chosen": 0.9, "rejected": 0},
        {"name": "persuasive", "chosen": 1, "rejected": 0.5},
    ]
    assert pair(ROW | {"judgements": given}).judgements == (
        Judgement("formal_tone", 0.9, 0.0),
        Judgement("persuasive", 1.0, 0.5),
    )
    assert pair(ROW | {"judgements": given}).pair_id == pair(ROW).pair_id  # the id is that of the texts


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("formal", "judgements='formal': a str; expected a list of {name, chosen, rejected}"),
        ([3], "judgements[0]=3: a int"),
        ([{"chosen": 0.1, "rejected": 0.1}], "judgements[0].name: missing"),
        ([{"name": "a", "chosen": 0.1}], "judgements[0]={'chosen': 0.1, 'rejected': None}: not two probabilities"),
        ([{"name": "a", "chosen": 0.1, "rejected": 1.1}], "not two probabilities; expected a list"),
        ([{"name": "a", "chosen": "x", "rejected": 1}], "judgements[0].chosen='x': not a finite number"),
        ([{"name": "a", "chosen": 1, "rejected": 1}] * 2, "judgements[1].name='a': judged already"),
    ],
)
def test_judgements_that_are_none(value: Any, said: str) -> None:
    assert said in reason(ROW | {"judgements": value})


@pytest.mark.parametrize(
    ("values", "prompt"),
    [
        (ROW, [ASK]),
        (ROW | {"prompt": [ASK, REPLY, AGAIN]}, [ASK, REPLY, AGAIN]),
        (ROW | {"prompt": [SYSTEM, ASK]}, [SYSTEM, ASK]),
        (ROW | {"system": "Be brief."}, [SYSTEM, ASK]),
        (ROW | {"system": "Be brief.", "prompt": [SYSTEM, ASK]}, [SYSTEM, ASK]),
        (ROW | {"prompt": [{"role": "system", "content": ""}, ASK]}, [ASK]),
        # Message lists: the assistant's turn alone, or the prompt repeated, or the prompt there only.
        (ROW | {"chosen": [says("good")], "rejected": [says("bad")]}, [ASK]),
        (ROW | {"chosen": [ASK, says("good")], "rejected": [ASK, says("bad")]}, [ASK]),
        ({"chosen": [ASK, says("good")], "rejected": [ASK, says("bad")]}, [ASK]),
        (
            {"chosen": [SYSTEM, ASK, REPLY, AGAIN, says("good")], "rejected": [SYSTEM, ASK, REPLY, AGAIN, says("bad")]},
            [SYSTEM, ASK, REPLY, AGAIN],
        ),
        # The system message may stand in the conversation alone, or in the prompt alone.
        (ROW | {"chosen": [SYSTEM, ASK, says("good")], "rejected": [SYSTEM, ASK, says("bad")]}, [SYSTEM, ASK]),
        (
            {"prompt": [SYSTEM, ASK], "chosen": [ASK, says("good")], "rejected": [ASK, says("bad")]},
            [SYSTEM, ASK],
        ),
        ({"question": "Hi", "chosen": "good", "rejected": "bad"}, [ASK]),
        ({"instruction": "Hi", "input": "", "chosen": "good", "rejected": "bad"}, [ASK]),
        (
            {"instruction": "Add", "input": "1 2", "chosen": "good", "rejected": "bad"},
            [{"role": "user", "content": "Add\n\n1 2"}],
        ),
        # A transcript's turns lose the space around them.
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant: good",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant: bad",
            },
            [ASK, REPLY, AGAIN],
        ),
    ],
)
def test_prompt_and_responses_are_found(values: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    found = pair(values)
    assert found.prompt == turns(*prompt)
    assert (found.chosen, found.rejected, found.source) == ("good", "bad", "f")


def test_margin_is_the_column_or_the_difference_of_scores() -> None:
    ultra = {"prompt": "Hi", "chosen": [ASK, says("good")], "rejected": [ASK, says("bad")]}
    assert pair(ultra | {"score_chosen": 8.5, "score_rejected": 6.0}).margin == 2.5
    assert pair(ROW | {"margin": "0.25"}).margin == 0.25
    assert pair(ROW | {"margin": float("nan")}).margin is None
    assert pair(ROW).margin is None
    assert "margin=inf: not a finite number" in reason(ROW | {"margin": float("inf")})
    assert "margin='much'" in reason(ROW | {"margin": "much"})


def test_ids_are_kept_or_follow_from_the_content_alone() -> None:
    assert pair(ROW | {"id": "a-1"}).pair_id == "a-1"
    assert pair(ROW | {"id": 5}).pair_id == "5"
    assert pair(ROW | {"id": "x", "pair_id": "y"}).pair_id == "y"
    made = pair(ROW).pair_id
    # sha256 of [[{"content":"Hi","role":"user"}],"good","bad"], from `sha256sum`
    assert made == "sha256-081785da85a5e1dba80d"
    as_messages = {"chosen": [ASK, says("good")], "rejected": [ASK, says("bad")], "margin": 1}
    assert pair(as_messages).pair_id == made
    swapped = {"prompt": "Hi", "chosen": "bad", "rejected": "good"}
    assert len({made, pair(ROW | {"prompt": "Ho"}).pair_id, pair(swapped).pair_id}) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"chosen": None}, "chosen: missing; expected text"),
        ({"chosen": False}, "chosen=False: a bool; expected text"),
        ({"rejected": 3}, "rejected=3: a int; expected text"),
        ({"rejected": " \n"}, r"rejected=' \n': empty; expected text"),
        ({"prompt": None}, "prompt: missing"),
        ({"prompt": ""}, "prompt='': empty"),
        ({"prompt": 1.5}, "prompt=1.5: a float"),
        ({"rejected": " good\n"}, r"rejected=' good\n': the same as chosen; expected two different responses"),
        ({"chosen": "a\0b"}, r"chosen='a\x00b': has a NUL character"),
        ({"chosen": "a\ud800"}, r"chosen='a\ud800': has a lone surrogate at 1"),
        ({"id": "a\ud800"}, r"id='a\ud800': has a lone surrogate"),
        ({"id": ["a"]}, "id=['a']: a list; expected text"),
        ({"prompt": [ASK, REPLY]}, "prompt='Hello': ends with a turn of assistant; expected a user turn last"),
        ({"prompt": [{"role": "critic", "content": "x"}]}, "prompt[0].role='critic': unknown role"),
        ({"prompt": [{"role": ["x"], "content": "x"}]}, "prompt[0].role=['x']: unknown role"),
        ({"prompt": [{"role": "user", "content": None}]}, "prompt[0].content: missing"),
        ({"prompt": [ASK, "And?"]}, "prompt[1]='And?': a str; expected a message"),
        ({"prompt": []}, "prompt=[]: empty"),
        ({"chosen": []}, "chosen=[]: empty"),
        ({"chosen": [ASK]}, "chosen[-1].role='user': not the assistant's turn"),
        ({"chosen": [AGAIN, says("x")], "rejected": [AGAIN, says("y")]}, "prompt='Hi': not how chosen and rejected be"),
        (
            {"prompt": [{"role": "system", "content": "Rhyme."}, ASK]}
            | {"chosen": [SYSTEM, ASK, says("x")], "rejected": [SYSTEM, ASK, says("y")]},
            "prompt='Hi': not how chosen and rejected begin",
        ),
        ({"chosen": [ASK, says("x")], "rejected": [AGAIN, says("y")]}, "differ before the last one"),
        ({"system": 4}, "system=4: a int"),
        ({"system": "Rhyme.", "prompt": [SYSTEM, ASK]}, "system='Rhyme.': differs from the prompt's own"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], expected: str) -> None:
    assert expected in reason(ROW | change)


def test_lengths_are_checked_at_their_limits() -> None:
    values = {"prompt": [SYSTEM, ASK], "chosen": "12345", "rejected": "b"}
    # 9 characters of system and 2 of user are 11.
    assert pair(values, max_prompt_chars=11, max_response_chars=5)
    assert "11 characters; expected at most 10 (data.max_prompt_chars)" in reason(values, max_prompt_chars=10)
    assert "chosen='12345': 5 characters; expected at most 4 (data.max_" in reason(values, max_response_chars=4)


def test_a_long_value_is_shortened_in_the_reason() -> None:
    assert len(reason(ROW | {"chosen": "x" * 50_000})) < 200
    assert len(reason(ROW | {"chosen": {"a": ["x" * 50_000]}})) < 200


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("\n\nHuman: Hi\n\nAssistant:", "chosen[1]='': empty"),
        ("\n\nHuman: Hi\n\nAssistant: a\n\nHuman: b", "chosen[-1].role='user'"),
        ("\n\nHuman: Ho\n\nAssistant: a", "differ before the last one"),
        ("\n\nHuman: Hi\n\nAssistant: a\n\nAssistant: b", "chosen has 3 turns, rejected 2"),
        ("Hi", "chosen='\\n\\nHi': not a transcript"),
    ],
)
def test_broken_transcripts(chosen: str, expected: str) -> None:
    got = reason({"chosen": chosen, "rejected": "\n\nHuman: Hi\n\nAssistant: bad"})
    assert expected.replace("\\n\\nHi", "Hi") in got


def test_detection_tells_formats_apart_and_a_dirty_row_does_not_decide() -> None:
    lists = {"prompt": "Hi", "chosen": [says("a")], "rejected": [says("b")]}
    transcripts = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": None}
    assert detect_format(DataConfig(), [ROW], "f") == "pairs"
    assert detect_format(DataConfig(), [lists], "f") == "pairs"
    assert detect_format(DataConfig(), [lists | {"score_chosen": 1, "score_rejected": 0}], "f") == "ultrafeedback"
    assert detect_format(DataConfig(), [{"note": 1}, {"chosen": None, "rejected": None}, transcripts], "f") == "hh"


def test_unknown_columns_are_named_with_the_expected_ones() -> None:
    with pytest.raises(UserError, match=r"^f: .*'query', 'good'.*Expected prompt \(or.*chosen, rejected.*Rename"):
        detect_format(DataConfig(), [{"query": "a", "good": "b"}], "f")
    with pytest.raises(UserError, match=r"'prompt', 'chosen'.*data.format=hh.*transcripts"):
        detect_format(DataConfig(format="hh"), [ROW], "f")
    with pytest.raises(UserError, match=r"data\.format=ultrafeedback"):
        detect_format(DataConfig(format="ultrafeedback"), [ROW], "f")
    with pytest.raises(UserError, match="'chosen', 'rejected'"):  # plain text and no prompt anywhere
        detect_format(DataConfig(), [{"chosen": "a", "rejected": "b"}], "f")
