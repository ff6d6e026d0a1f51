"""Frozen records that the stages exchange, and their Arrow schemas.

One original pair becomes one `RelationGroup`: its prompts, its two responses, the (prompt, response) sequences
that occur, and the relations (signed sums of rewards) over those sequences.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1
# Built once: `json.dumps` with options builds an encoder on every call.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Level(StrEnum):
    """What a relation compares (docs/method.md, "One form for every loss")."""

    PREF = "pref"
    INTRA = "intra"
    INTER_WIDENING = "inter_widening"
    INTER_NARROWING = "inter_narrowing"

    @property
    def family(self) -> str:
        """`pref`, `intra` or `inter`. The two inter levels share one weight and one count."""
        return self.value.split("_", 1)[0]


LEVEL_FAMILIES: tuple[str, ...] = ("pref", "intra", "inter")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: `role` is `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str
    tool_calls: str | None = None  # the assistant's calls: a JSON list in the form that chat templates take
    tool_call_id: str | None = None  # the call that a tool's result answers
    name: str | None = None  # the tool's name
    tools: str | None = None  # the tools on offer, as a JSON list: only on the last user turn, which is never cut


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge model's answer to a soft function's question: p(yes) for each response."""

    name: str  # the soft function's name
    chosen: float
    rejected: float


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """An original preference pair (x, y_w, y_l)."""

    pair_id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str
    margin: float | None = None
    judgements: tuple[Judgement, ...] = ()  # empty if nothing was judged
    row: int = field(default=-1, compare=False)  # 0-based position in `source`, -1 if unknown; not in `PAIR_SCHEMA`

    @property
    def tool_fields(self) -> str | None:
        """`tool_fields` of the prompt."""
        return tool_fields(self.prompt)

    def to_row(self) -> dict[str, Any]:
        """A plain row in `PAIR_SCHEMA`."""
        return {
            "pair_id": self.pair_id,
            "prompt": messages_to_rows(self.prompt),
            "chosen": self.chosen,
            "rejected": self.rejected,
            "source": self.source,
            "margin": self.margin,
            "judgements": [asdict(judgement) for judgement in self.judgements],
            "tool_fields": self.tool_fields,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> PreferencePair:
        """The inverse of `to_row`."""
        judgements = tuple(Judgement(**judgement) for judgement in row["judgements"])
        plain = {name: value for name, value in row.items() if name != "tool_fields"}
        prompt = messages_from_rows(row["prompt"], row.get("tool_fields"))
        return cls(**{**plain, "prompt": prompt, "judgements": judgements})


@dataclass(frozen=True, slots=True)
class InstructionRecord:
    """An instruction as stored: enough for `Instruction.from_record` to rebuild its checker."""

    name: str
    text: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sequence:
    """One (prompt, response) cell; `satisfied` has one flag per instruction of that prompt."""

    prompt: int
    response: int
    satisfied: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """`sum of r over preferred > sum of r over dispreferred`; both index the group's sequences."""

    level: Level
    preferred: tuple[int, ...]
    dispreferred: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RelationGroup:
    """One original pair with its prompts, responses, sequences and relations."""

    pair_id: str
    prompts: tuple[tuple[Message, ...], ...]  # index 0 is the original prompt
    instructions: tuple[tuple[InstructionRecord, ...], ...]  # one tuple per prompt, empty for the original
    responses: tuple[str, ...]  # chosen, rejected; groups of an evaluation set may have more
    sequences: tuple[Sequence, ...]
    relations: tuple[Relation, ...]
    source: str
    margin: float | None = None
    ref_logps: tuple[float, ...] | None = None  # one per sequence, after scoring
    rewards: tuple[float, ...] | None = None  # one per sequence, after scoring

    @property
    def tool_fields(self) -> str | None:
        """`tool_fields` of the original prompt. The other prompts differ from it only in the text of one user turn."""
        return tool_fields(self.prompts[0]) if self.prompts else None

    def to_row(self) -> dict[str, Any]:
        """A plain row in `GROUP_SCHEMA`."""
        return {
            "pair_id": self.pair_id,
            "prompts": [messages_to_rows(prompt) for prompt in self.prompts],
            "instructions": [
                [{"name": i.name, "args": canonical_json(i.args), "text": i.text} for i in instructions]
                for instructions in self.instructions
            ],
            "responses": list(self.responses),
            "sequences": [
                {"prompt": s.prompt, "response": s.response, "satisfied": list(s.satisfied)} for s in self.sequences
            ],
            "relations": [
                {"level": r.level.value, "preferred": list(r.preferred), "dispreferred": list(r.dispreferred)}
                for r in self.relations
            ],
            "source": self.source,
            "margin": self.margin,
            "ref_logps": None if self.ref_logps is None else list(self.ref_logps),
            "rewards": None if self.rewards is None else list(self.rewards),
            "tool_fields": self.tool_fields,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RelationGroup:
        """The inverse of `to_row`; columns that scoring adds may be absent."""
        ref_logps, rewards = row.get("ref_logps"), row.get("rewards")
        return cls(
            pair_id=row["pair_id"],
            prompts=tuple(messages_from_rows(prompt, row.get("tool_fields")) for prompt in row["prompts"]),
            instructions=tuple(
                tuple(InstructionRecord(i["name"], i["text"], json.loads(i["args"])) for i in instructions)
                for instructions in row["instructions"]
            ),
            responses=tuple(row["responses"]),
            sequences=tuple(Sequence(s["prompt"], s["response"], tuple(s["satisfied"])) for s in row["sequences"]),
            relations=tuple(
                Relation(Level(r["level"]), tuple(r["preferred"]), tuple(r["dispreferred"])) for r in row["relations"]
            ),
            source=row["source"],
            margin=row.get("margin"),
            ref_logps=None if ref_logps is None else tuple(ref_logps),
            rewards=None if rewards is None else tuple(rewards),
        )


@dataclass(frozen=True, slots=True)
class Rejection:
    """An input row or pair that could not be used, with the reason."""

    source: str  # file or data set
    row: int  # 0-based position in the source, -1 if unknown
    pair_id: str
    stage: str  # read, synthesize, score, ...
    reason: str  # names the field and value, and what was expected

    def to_row(self) -> dict[str, Any]:
        """A plain row in `REJECTION_SCHEMA`."""
        return {name: getattr(self, name) for name in REJECTION_SCHEMA.names}


def canonical_json(value: Any) -> str:
    """JSON text that depends only on the value (sorted keys, no spaces, Unicode kept)."""
    return _CANONICAL.encode(value)


def message_fields(message: Message) -> dict[str, Any]:
    """A message as chat templates take it, without empty fields and without `tools`, which templates take as a
    separate argument (`offered_tools`).
    """
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls is not None:
        fields["tool_calls"] = json.loads(message.tool_calls)
    return fields | {name: value for name in _TEXT_FIELDS if (value := getattr(message, name)) is not None}


def offered_tools(messages: Iterable[Message]) -> list[dict[str, Any]] | None:
    """The tools that a conversation may call, as chat templates take them; None if it has none."""
    found = next((message.tools for message in messages if message.tools is not None), None)
    return None if found is None else list(json.loads(found))


def messages_to_rows(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    """Roles and contents, as stored in the column of messages; `tool_fields` has the other fields."""
    return [{"role": m.role, "content": m.content} for m in messages]


def tool_fields(messages: tuple[Message, ...]) -> str | None:
    """Fields of messages besides role and content: a JSON list of one object per message, or None if there are none."""
    if not any(m.tool_calls or m.tool_call_id or m.name or m.tools for m in messages):
        return None
    fields = [{name: value for name, value in message_fields(m).items() if name not in _PLAIN} for m in messages]
    for message, own in zip(messages, fields, strict=True):
        if message.tools is not None:
            own["tools"] = json.loads(message.tools)
    return canonical_json(fields) if any(fields) else None


def messages_from_rows(rows: list[Mapping[str, str]], fields: str | None = None) -> tuple[Message, ...]:
    """The inverse of `messages_to_rows` and `tool_fields` of the same messages."""
    if fields is None:
        return tuple(Message(row["role"], row["content"]) for row in rows)
    messages = []
    for row, more in zip(rows, json.loads(fields), strict=True):
        more |= {name: canonical_json(more[name]) for name in ("tool_calls", "tools") if name in more}
        messages.append(Message(row["role"], row["content"], **more))
    return tuple(messages)


_PLAIN = ("role", "content")
_TEXT_FIELDS = ("tool_call_id", "name")


_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_INDICES = pa.list_(pa.int32())
_JUDGEMENTS = pa.list_(pa.struct([("name", pa.string()), ("chosen", pa.float32()), ("rejected", pa.float32())]))

PAIR_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt", _MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("source", pa.string()),
        ("margin", pa.float64()),
        ("judgements", _JUDGEMENTS),
        ("tool_fields", pa.string()),
    ]
)

GROUP_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompts", pa.list_(_MESSAGES)),
        (
            "instructions",
            pa.list_(pa.list_(pa.struct([("name", pa.string()), ("args", pa.string()), ("text", pa.string())]))),
        ),
        ("responses", pa.list_(pa.string())),
        (
            "sequences",
            pa.list_(
                pa.struct([("prompt", pa.int32()), ("response", pa.int32()), ("satisfied", pa.list_(pa.bool_()))])
            ),
        ),
        (
            "relations",
            pa.list_(pa.struct([("level", pa.string()), ("preferred", _INDICES), ("dispreferred", _INDICES)])),
        ),
        ("source", pa.string()),
        ("margin", pa.float64()),
        ("ref_logps", pa.list_(pa.float32())),
        ("rewards", pa.list_(pa.float32())),
        ("tool_fields", pa.string()),
    ]
)

# A scorer's output, stored next to the groups: one score per sequence of the group.
SCORE_SCHEMA = pa.schema([("pair_id", pa.string()), ("scores", pa.list_(pa.float32()))])

# Token ids, stored next to the groups (`batches.TokenIds`).
_IDS = pa.list_(pa.list_(pa.int32()))
TOKEN_SCHEMA = pa.schema([("pair_id", pa.string()), ("prompt_ids", _IDS), ("response_ids", _IDS)])

REJECTION_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("row", pa.int64()),
        ("pair_id", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
    ]
)
