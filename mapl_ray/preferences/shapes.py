"""The row shapes of preference data sets, and how each is converted to pairs.

A shape is detected by its columns. Every shape is reduced to the columns of a pair: `prompt`, `chosen`, `rejected`, and
the optional `id`, `margin`, `system`, `tools`, `judgements`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

from mapl_ray.config import DataConfig, PairFormat
from mapl_ray.data.records import messages_to_rows
from mapl_ray.preferences.fields import RowError, number, own_id
from mapl_ray.preferences.messages import is_conversation, read_messages
from mapl_ray.preferences.rendered import read_rendered

Row = Mapping[str, Any]
PROMPT_COLUMNS = ("prompt", "instruction", "question")
_OPTIONAL = ("id", "pair_id", "system", "tools", "margin", "judgements")
_STRONGEST = 3  # largest absolute HelpSteer preference; values such as -100 mark rows without one


@dataclass(frozen=True, slots=True)
class RawPair:
    """One pair of a row, by the columns of a pair; `names` maps a column to the row's own name where they differ."""

    values: Row
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape of rows."""

    expected: str  # description for messages
    columns: frozenset[str]  # columns that are read, besides the optional ones of a pair
    fits: Callable[[Row], bool]
    fits_declared: Callable[[Row], bool] = lambda _: False  # rows that also fit if `data.format` names this shape
    pairs: Callable[[Row, DataConfig], Sequence[RawPair]] = lambda values, _: (RawPair(values),)


def _sides(values: Row) -> list[Any]:
    return [values[side] for side in ("chosen", "rejected") if side in values]


def _has_conversations(values: Row) -> bool:
    sides = _sides(values)
    return len(sides) == 2 and any(map(is_conversation, sides))


def _is_pairs(values: Row) -> bool:
    sides = _sides(values)
    has_prompt = any(name in values for name in PROMPT_COLUMNS)
    return len(sides) == 2 and (has_prompt or _has_conversations(values) or _is_rendered(sides))


def _is_rendered(sides: Sequence[Any]) -> bool:
    """Whether one of the responses is a whole conversation rendered by a chat template."""
    for side in sides:
        try:
            found = read_rendered("", side, prompt=False) if isinstance(side, str) else None
        except RowError:
            continue
        if found is not None and len(found.turns) > 1:
            return True
    return False


def _is_hh(values: Row) -> bool:
    sides = _sides(values)
    return len(sides) == 2 and any(isinstance(side, str) and "\n\nHuman:" in side for side in sides)


def _has(*columns: str) -> Callable[[Row], bool]:
    return lambda values: values.keys() >= {*columns}


def _renamed(values: Row, **own: str) -> RawPair:
    """Rename a row's columns to those of a pair; `own` maps a pair's column to the row's."""
    kept = {name: values[name] for name in _OPTIONAL if name in values}
    return RawPair(kept | {name: values.get(column) for name, column in own.items()}, own)


def _share_gpt(values: Row, _: DataConfig) -> Sequence[RawPair]:
    return (_renamed(values, prompt="conversations", chosen="chosen", rejected="rejected"),)


def _rejected_response(values: Row, _: DataConfig) -> Sequence[RawPair]:
    """Rows with `messages`, which end with the chosen response, and a column `rejected_response`."""
    turns = read_messages("messages", values.get("messages"))
    if turns[-1].role != "assistant":
        raise RowError("messages[-1].role", "not the assistant's turn", "an assistant turn last", turns[-1].role)
    raw = _renamed(values, prompt="messages", chosen="messages", rejected="rejected_response")
    return (RawPair({**raw.values, "prompt": messages_to_rows(turns[:-1]), "chosen": turns[-1].content}, raw.names),)


def _strength(prompt: str, first: str, second: str, strength: str) -> Callable[[Row, DataConfig], Sequence[RawPair]]:
    """HelpSteer rows: a preference below 0 is for the first response, above 0 for the second."""

    def pairs(values: Row, _: DataConfig) -> Sequence[RawPair]:
        found = number(strength, values.get(strength))
        if found is None or abs(found) > _STRONGEST:
            raise RowError(strength, "no preference", f"a number from -{_STRONGEST} to {_STRONGEST}", values[strength])
        if found == 0:
            raise RowError(strength, "prefers neither response", "a number other than 0", values[strength])
        chosen, rejected = (second, first) if found > 0 else (first, second)
        raw = _renamed(values, prompt=prompt, chosen=chosen, rejected=rejected)
        return (RawPair({"margin": abs(found), **raw.values}, raw.names),)

    return pairs


def _ranked(prompt: str, answers: str, answer: str, order: str, sign: int) -> Callable[..., Sequence[RawPair]]:
    """Make pairs from a ranked list by `config.ranked_pairs`; `sign` is -1 if low values are better (a rank).

    Two answers with the same value make no pair. A pair's id is the row's id with the two positions in the list.
    """

    def pairs(values: Row, config: DataConfig) -> Sequence[RawPair]:
        given = values.get(answers)
        if not isinstance(given, list) or len(given) < 2:
            raise RowError(answers, "not a list of two or more", f"a list of {{{answer}, {order}}}", given)
        ranked = []
        for place, item in enumerate(given):
            if not isinstance(item, Mapping):
                raise RowError(f"{answers}[{place}]", f"a {type(item).__name__}", f"{{{answer}, {order}}}", item)
            value = number(f"{answers}[{place}].{order}", item.get(order))
            if value is None:
                raise RowError(f"{answers}[{place}].{order}", "missing", "a number")
            ranked.append((sign * value, place, item.get(answer)))
        ranked.sort(key=lambda one: (-one[0], one[1]))
        of_rule = {"best_worst": [(ranked[0], ranked[-1])], "adjacent": pairwise(ranked)}
        found, row_id = [], own_id(values)
        for better, worse in of_rule.get(config.ranked_pairs or "", combinations(ranked, 2)):
            if better[0] == worse[0]:
                continue
            names = {"chosen": f"{answers}[{better[1]}].{answer}", "rejected": f"{answers}[{worse[1]}].{answer}"}
            raw = {**_renamed(values, prompt=prompt).values, "chosen": better[2], "rejected": worse[2]}
            raw |= {"margin": better[0] - worse[0]} | ({"id": f"{row_id}:{better[1]}>{worse[1]}"} if row_id else {})
            found.append(RawPair(raw, names | {"prompt": prompt}))
        if not found:
            raise RowError(answers, f"every {order} is the same", "answers that differ in it", given)
        return found

    return pairs


# In the order in which `data.format=auto` tries them: the most specific first.
SHAPES: Mapping[PairFormat, Shape] = {
    "ultrafeedback": Shape(
        "prompt, chosen and rejected message lists, score_chosen, score_rejected",
        frozenset({"prompt", "chosen", "rejected", "score_chosen", "score_rejected"}),
        lambda values: _has_conversations(values) and values.keys() >= {"score_chosen", "score_rejected"},
        fits_declared=_has_conversations,
    ),
    "sharegpt": Shape(
        "conversations with from and value, chosen and rejected objects",
        frozenset({"conversations", "chosen", "rejected"}),
        lambda values: values.keys() >= {"conversations", "chosen", "rejected"} and "prompt" not in values,
        pairs=_share_gpt,
    ),
    "hh": Shape(
        "chosen and rejected with '\\n\\nHuman: ...\\n\\nAssistant: ...' transcripts",
        frozenset({"chosen", "rejected"}),
        lambda values: _is_hh(values) and not any(name in values for name in PROMPT_COLUMNS),
        fits_declared=_is_hh,
    ),
    "pairs": Shape(
        "prompt (or instruction, question), chosen, rejected; or only chosen and rejected as message lists",
        frozenset({*PROMPT_COLUMNS, "input", "chosen", "rejected"}),
        _is_pairs,
    ),
    "rejected_response": Shape(
        "messages with the chosen response last, and rejected_response",
        frozenset({"messages", "rejected_response"}),
        _has("messages", "rejected_response"),
        pairs=_rejected_response,
    ),
    "helpsteer2": Shape(
        "prompt, response_1, response_2, preference_strength",
        frozenset({"prompt", "response_1", "response_2", "preference_strength"}),
        _has("prompt", "response_1", "response_2", "preference_strength"),
        pairs=_strength("prompt", "response_1", "response_2", "preference_strength"),
    ),
    "helpsteer3": Shape(
        "context, response1, response2, overall_preference",
        frozenset({"context", "response1", "response2", "overall_preference"}),
        _has("context", "response1", "response2", "overall_preference"),
        pairs=_strength("context", "response1", "response2", "overall_preference"),
    ),
    "ranked": Shape(
        "prompt and answers, a list of {answer, rank}",
        frozenset({"prompt", "answers"}),
        _has("prompt", "answers"),
        pairs=_ranked("prompt", "answers", "answer", "rank", -1),
    ),
    "ultrafeedback-raw": Shape(
        "instruction and completions, a list of {response, overall_score}",
        frozenset({"instruction", "completions"}),
        _has("instruction", "completions"),
        pairs=_ranked("instruction", "completions", "response", "overall_score", 1),
    ),
}
RANKED: tuple[PairFormat, ...] = ("ranked", "ultrafeedback-raw")
