"""Frozen records that the stages exchange, and their Arrow schemas.

One original pair becomes one `RelationGroup`: its prompts, its two responses, the (prompt, response) sequences
that occur, and the relations (signed sums of rewards) over those sequences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1
# Made once: `json.dumps` with options makes an encoder at every call.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Level(StrEnum):
    """What a relation compares (METHOD.md, "One form for all of it")."""

    PREF = "pref"
    INTRA = "intra"
    INTER_WIDENING = "inter_widening"
    INTER_NARROWING = "inter_narrowing"

    @property
    def family(self) -> str:
        """`pref`, `intra` or `inter`: the two inter kinds share one weight and one count."""
        return self.value.split("_", 1)[0]


LEVEL_FAMILIES: tuple[str, ...] = ("pref", "intra", "inter")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge model makes of a soft function's question: p(yes) of either response."""

    name: str  # of the soft function
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
    judgements: tuple[Judgement, ...] = ()  # none where nothing was judged

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
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> PreferencePair:
        """The inverse of `to_row`."""
        judgements = tuple(Judgement(**judgement) for judgement in row["judgements"])
        return cls(**{**row, "prompt": messages_from_rows(row["prompt"]), "judgements": judgements})


@dataclass(frozen=True, slots=True)
class InstructionRecord:
    """An instruction as stored: enough for `Instruction.from_record` to rebuild its checker."""

    name: str
    text: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sequence:
    """One (prompt, response) cell; `satisfied` has one flag an instruction of that prompt."""

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
    instructions: tuple[tuple[InstructionRecord, ...], ...]  # one tuple a prompt, empty for the original
    responses: tuple[str, ...]  # chosen, rejected; a row of an evaluation set may have more
    sequences: tuple[Sequence, ...]
    relations: tuple[Relation, ...]
    source: str
    margin: float | None = None
    ref_logps: tuple[float, ...] | None = None  # one a sequence, after scoring
    rewards: tuple[float, ...] | None = None  # one a sequence, after scoring

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
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RelationGroup:
        """The inverse of `to_row`; columns that scoring adds may be absent."""
        chosen, rejected = row["responses"]
        ref_logps, rewards = row.get("ref_logps"), row.get("rewards")
        return cls(
            pair_id=row["pair_id"],
            prompts=tuple(messages_from_rows(prompt) for prompt in row["prompts"]),
            instructions=tuple(
                tuple(InstructionRecord(i["name"], i["text"], json.loads(i["args"])) for i in instructions)
                for instructions in row["instructions"]
            ),
            responses=(chosen, rejected),
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
    """An input row or a pair that could not be used, and why."""

    source: str  # file or data set
    row: int  # 0-based position in the source, -1 where it is not known
    pair_id: str
    stage: str  # read, synthesize, score, ...
    reason: str  # names the field and value, and what was expected

    def to_row(self) -> dict[str, Any]:
        """A plain row in `REJECTION_SCHEMA`."""
        return {name: getattr(self, name) for name in REJECTION_SCHEMA.names}


def canonical_json(value: Any) -> str:
    """JSON text that depends on the value alone (sorted keys, no spaces, Unicode kept)."""
    return _CANONICAL.encode(value)


def messages_to_rows(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    """Messages as the plain dictionaries that chat templates and Arrow take."""
    return [{"role": m.role, "content": m.content} for m in messages]


def messages_from_rows(rows: list[Mapping[str, str]]) -> tuple[Message, ...]:
    """The inverse of `messages_to_rows`."""
    return tuple(Message(row["role"], row["content"]) for row in rows)


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
    ]
)

# What a scorer makes of groups, beside them: one score a sequence of the group.
SCORE_SCHEMA = pa.schema([("pair_id", pa.string()), ("scores", pa.list_(pa.float32()))])

# What a tokenizer makes of groups, beside them (`batches.TokenIds`).
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
