"""Tool calls and their results: kept from the row to the group and back, or refused with the field."""

import json
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.data.group_columns import groups_to_table
from mapl_ray.data.records import (
    GROUP_SCHEMA,
    PAIR_SCHEMA,
    PreferencePair,
    Rejection,
    RelationGroup,
    message_fields,
    offered_tools,
)
from mapl_ray.errors import UserError
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import synthesize, write_export

CHOSEN = (
    "It is 21 degrees in Ulm today, with a light wind from the west and no rain in sight until Thursday. Take a hat, "
    "for the sun is strong at noon; the evening will be cool enough for a walk along the river."
)
REJECTED = "Warm."
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"place": "Ulm"}}}
PROMPT: list[dict[str, Any]] = [
    {"role": "system", "content": "You have tools."},
    {"role": "user", "content": "How is the weather in Ulm?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": '{"degrees": 21}'},
]


def read(tmp_path: Path, *rows: dict[str, Any]) -> list[PreferencePair | Rejection]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_pairs(DataConfig(path=str(path))))


def row(prompt: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": CHOSEN, "rejected": REJECTED, **more}


def pair_of(tmp_path: Path) -> PreferencePair:
    (pair,) = read(tmp_path, row(PROMPT))
    assert isinstance(pair, PreferencePair), pair
    return pair


def test_calls_and_results_are_kept(tmp_path: Path) -> None:
    pair = pair_of(tmp_path)
    assert [message_fields(message) for message in pair.prompt] == [
        PROMPT[0],
        PROMPT[1],
        {**PROMPT[2], "content": ""},
        PROMPT[3],
    ]
    assert PreferencePair.from_row(pair.to_row()) == pair
    # OpenAI's arguments are JSON text, a table's rows have the keys of one another: the same call.
    text = {**CALL, "function": {"name": "weather", "arguments": '{"place": "Ulm"}'}}
    table = {**CALL, "function": {"name": "weather", "arguments": {"place": "Ulm", "day": None}}}
    for other in (text, table):
        (same,) = read(tmp_path, row([*PROMPT[:2], {**PROMPT[2], "tool_calls": [other]}, PROMPT[3]]))
        assert same == pair
    (as_json,) = read(tmp_path, row([*PROMPT[:3], {**PROMPT[3], "content": {"degrees": 21}}]))
    assert isinstance(as_json, PreferencePair)
    assert as_json.prompt[3].content == '{"degrees":21}'


def test_another_call_is_another_pair(tmp_path: Path) -> None:
    other = {**CALL, "function": {"name": "weather", "arguments": {"place": "Bonn"}}}
    one, two = read(tmp_path, row(PROMPT), row([*PROMPT[:2], {**PROMPT[2], "tool_calls": [other]}, PROMPT[3]]))
    assert isinstance(one, PreferencePair)
    assert isinstance(two, PreferencePair)
    assert one.pair_id != two.pair_id


def test_groups_hold_them_beside_role_and_content(tmp_path: Path) -> None:
    pair = pair_of(tmp_path)
    group = synthesize(pair, SynthesisConfig(), 0)
    assert isinstance(group, RelationGroup), group
    for prompt in group.prompts:
        assert prompt[2:] == pair.prompt[2:]
        assert prompt[1].content.startswith(pair.prompt[1].content)
    table = groups_to_table([group])
    prompts = GROUP_SCHEMA.field("prompts").type.value_type.value_type
    assert [field.name for field in prompts] == ["role", "content"]  # the contract of the column
    assert PAIR_SCHEMA.field("tool_fields").nullable
    (stored,) = table.to_pylist()
    assert RelationGroup.from_row(stored) == group
    del stored["tool_fields"]  # of data made before there was such a column
    assert RelationGroup.from_row(stored).prompts[0][2].tool_calls is None


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"a": {}}}}}


@pytest.mark.parametrize(
    "given",
    [
        [TOOL],
        json.dumps([TOOL]),
        [json.dumps(TOOL)],
        [TOOL["function"]],
        [{**TOOL, "function": {**TOOL["function"], "strict": None}}],  # a table fills the keys of other rows
    ],
)
def test_a_column_of_tools_stays_with_the_prompt(tmp_path: Path, given: Any) -> None:
    (pair,) = read(tmp_path, row(PROMPT, tools=given))
    assert isinstance(pair, PreferencePair), pair
    assert offered_tools(pair.prompt) == [TOOL]
    assert [message.tools is not None for message in pair.prompt] == [False, True, False, False]
    assert "tools" not in message_fields(pair.prompt[1])
    assert PreferencePair.from_row(pair.to_row()) == pair
    assert pair.pair_id != pair_of(tmp_path).pair_id
    group = synthesize(pair, SynthesisConfig(), 0)
    assert isinstance(group, RelationGroup), group
    (stored,) = groups_to_table([group]).to_pylist()
    assert RelationGroup.from_row(stored) == group
    assert [offered_tools(prompt) for prompt in group.prompts] == [[TOOL]] * len(group.prompts)
    write_export([group], "trl", tmp_path / "rows.jsonl")
    assert all(json.loads(line)["tools"] == [TOOL] for line in (tmp_path / "rows.jsonl").read_text().splitlines())


def test_no_tools_and_other_shapes_of_them(tmp_path: Path) -> None:
    for given in (None, [], "", "[]"):
        assert read(tmp_path, row(PROMPT, tools=given)) == [pair_of(tmp_path)]
    for given, words in {
        "call me": "tools='call me': a str; expected a list of {type, function",
        '{"name": "f"}': 'tools=\'{"name": "f"}\': a dict',
        '[{"name": 7}]': "tools[0]={'name': 7}: not a tool",
    }.items():
        (found,) = read(tmp_path, row(PROMPT, tools=given))
        assert isinstance(found, Rejection)
        assert words in found.reason


def test_exports(tmp_path: Path) -> None:
    group = synthesize(pair_of(tmp_path), SynthesisConfig(), 0)
    assert isinstance(group, RelationGroup)
    assert write_export([group], "trl", tmp_path / "rows.jsonl").rows > 1
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert first["prompt"][2] == {**PROMPT[2], "content": ""}
    assert first["prompt"][3] == PROMPT[3]
    with pytest.raises(UserError, match=r"its prompt has tools or tool calls.*Write a \.jsonl file"):
        write_export([group], "trl", tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([PROMPT[1], {"role": "assistant", "tool_calls": "call me"}], "prompt[1].tool_calls='call me': a str"),
        ([PROMPT[1], {"role": "assistant", "tool_calls": [{"id": "c"}]}], "prompt[1].tool_calls[0]={'id': 'c'}: not a"),
        (
            [PROMPT[1], {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x="}}]}],
            "prompt[1].tool_calls[0].arguments='x=': not an object",
        ),
        ([*PROMPT[:3], {"role": "tool", "content": None}], "prompt[3].content: missing; expected the tool's result"),
        ([PROMPT[3]], "prompt='{\"degrees\": 21}': no user turn"),
        (PROMPT[:3], "ends with a turn of assistant; expected a user turn last, or a tool's result"),
    ],
)
def test_other_shapes_are_refused_with_the_field(prompt: list[dict[str, Any]], words: str, tmp_path: Path) -> None:
    (found,) = read(tmp_path, row(prompt))
    assert isinstance(found, Rejection)
    assert words in found.reason
    assert found.row == 0


def test_a_call_as_the_response_is_refused(tmp_path: Path) -> None:
    answered = [*PROMPT[:2], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    (found,) = read(tmp_path, {"chosen": answered, "rejected": [*PROMPT[:2], {"role": "assistant", "content": "No."}]})
    assert isinstance(found, Rejection)
    assert "chosen[-1].tool_calls" in found.reason
    assert "a tool call as the response" in found.reason
