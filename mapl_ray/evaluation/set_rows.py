"""Parse rows of public evaluation sets in their own formats into relation groups with pref relations.

    pairs, rewardbench  prompt, chosen, rejected (and subset)
    hh                  chosen, rejected: whole transcripts
    rewardbench-2       prompt, chosen, rejected: lists of right and wrong answers; num_correct, subset
    rm-bench            prompt, chosen [3], rejected [3] (and domain): the same content in three styles
    judgebench          question, response_A, response_B, label: A>B or B>A; source
    if-rewardbench      messages, responses, preference_graph: pairs of response ids; instruction_type
    llmbar              input, output_1, output_2, label: the better one, 1 or 2

The columns of a row decide its format. Rows become groups, so that models score them like any other group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mapl_ray.config import DataConfig
from mapl_ray.config.evaluation import SetFormat
from mapl_ray.data.records import Level, PreferencePair, Rejection, Relation, RelationGroup
from mapl_ray.data.records import Sequence as Cell
from mapl_ray.preferences.fields import RowError, blank
from mapl_ray.preferences.formats import parse_pair
from mapl_ray.preferences.shapes import PROMPT_COLUMNS, RawPair

Row = Mapping[str, Any]
NUM_STYLES = 3  # styles of RM-Bench
TIES = "ties"  # RewardBench 2's subset with several right answers, in lowercase
_TIES_ID = re.compile(r"(?:ref|tied):\d{1,9}", re.ASCII)
_SUBSET_COLUMNS: Mapping[SetFormat, str] = {"judgebench": "source", "if-rewardbench": "instruction_type"}
_REWARDBENCH_2 = ("num_correct", "num_incorrect", "num_rejected", "total_completions", "subset")


@dataclass(frozen=True, slots=True)
class SetRow:
    """One row: one group, or for RM-Bench one group per style (chosen[i] and rejected[i])."""

    groups: tuple[RelationGroup, ...]
    subset: str  # "" if the set has none
    row: int = -1  # 0-based in its file, -1 if not known


@dataclass(frozen=True, slots=True)
class Listed:
    """Several responses to one prompt, and preferences between them by index."""

    prompt: RawPair  # without chosen and rejected; its names are the column names of the row
    responses: Sequence[tuple[str, Any]]  # (name in the row, text)
    edges: Sequence[tuple[int, int]]  # (better, worse)


def set_format(values: Row) -> SetFormat | None:
    """The format with the columns of this row; None if there is none."""
    for format_, fits in _FITS.items():
        if fits(values):
            return format_
    return None


def set_row(values: Row, format_: SetFormat, label: str, row: int, subset: str, data: DataConfig) -> SetRow | Rejection:
    """Parse one row of a set; `subset` is used if the row has no subset. Raises `RowError` for a bad row."""
    if format_ == "auto":
        columns = ", ".join(map(repr, values))
        raise RowError("columns", f"{columns}: no known format", "those of a format in docs/evaluation.md")
    groups = []
    for item in _READERS.get(format_, _one_pair)(values):
        if isinstance(item, Listed):
            group = _listed_group(item, label, row, data)
        else:
            group = _group(item, format_, label, row, data)
        if isinstance(group, Rejection):
            return group
        groups.append(group)
    own = values.get(_SUBSET_COLUMNS.get(format_, "subset")) or values.get("domain")
    return SetRow(tuple(groups), str(own) if own else subset, row)


def preference_group(pair: PreferencePair) -> RelationGroup:
    """The pair as a group of one prompt, two sequences and the relation between them."""
    return RelationGroup(
        pair_id=pair.pair_id,
        prompts=(pair.prompt,),
        instructions=((),),
        responses=(pair.chosen, pair.rejected),
        sequences=(Cell(0, 0, ()), Cell(0, 1, ())),
        relations=(Relation(Level.PREF, (0,), (1,)),),
        source=pair.source,
    )


def _group(raw: RawPair, format_: SetFormat, label: str, row: int, data: DataConfig) -> RelationGroup | Rejection:
    parsed = parse_pair(raw, "hh" if format_ == "hh" else "pairs", data, label, row)
    return parsed if isinstance(parsed, Rejection) else preference_group(parsed)


def _listed_group(listed: Listed, label: str, row: int, data: DataConfig) -> RelationGroup | Rejection:
    """One group of all responses that occur in an edge, in their order, with one relation per edge."""
    texts: dict[int, str] = {}
    first: PreferencePair | None = None
    for better, worse in listed.edges:
        (chosen_name, chosen), (rejected_name, rejected) = listed.responses[better], listed.responses[worse]
        raw = RawPair(
            {**listed.prompt.values, "chosen": chosen, "rejected": rejected},
            {**listed.prompt.names, "chosen": chosen_name, "rejected": rejected_name},
        )
        parsed = parse_pair(raw, "pairs", data, label, row)
        if isinstance(parsed, Rejection):
            return parsed
        first = first or parsed
        texts.setdefault(better, parsed.chosen)
        texts.setdefault(worse, parsed.rejected)
    if first is None:
        raise RowError(listed.prompt.names.get("edges", "rejected"), "empty", "at least one pair of responses")
    place = {index: number for number, index in enumerate(sorted(texts))}
    return replace(
        preference_group(first),
        responses=tuple(texts[index] for index in sorted(texts)),
        sequences=tuple(Cell(0, number, ()) for number in range(len(place))),
        relations=tuple(Relation(Level.PREF, (place[b],), (place[w],)) for b, w in listed.edges),
    )


def _one_pair(values: Row) -> Sequence[RawPair | Listed]:
    return [RawPair(values)]


def _styles(values: Row) -> Sequence[RawPair | Listed]:
    """RM-Bench: three pairs, one per style."""
    if found := next((name for name in _REWARDBENCH_2 if name in values), None):
        raise RowError(found, "a column of RewardBench 2, not of RM-Bench", "format: rewardbench-2", values[found])
    for side in ("chosen", "rejected"):
        given = values.get(side)
        if not isinstance(given, list) or len(given) != NUM_STYLES:
            raise RowError(side, "not a list of three", f"{NUM_STYLES} responses, one per style", given)
    kept = {name: values[name] for name in ("id", "prompt") if name in values}
    return [
        RawPair(
            {**kept, "prompt": values.get("prompt"), "chosen": values["chosen"][n], "rejected": values["rejected"][n]},
            {"chosen": f"chosen[{n}]", "rejected": f"rejected[{n}]"},
        )
        for n in range(NUM_STYLES)
    ]


def _rewardbench_2(values: Row) -> Sequence[RawPair | Listed]:
    """RewardBench 2: all right answers above all wrong ones. In the subset Ties, the id links rows of one prompt."""
    chosen, rejected = (_answers(values, side) for side in ("chosen", "rejected"))
    stated = {"num_correct": len(chosen), "num_incorrect": len(rejected), "num_rejected": len(rejected)}
    stated["total_completions"] = len(chosen) + len(rejected)
    for name, number in stated.items():
        if not blank(values.get(name)) and values[name] != number:
            raise RowError(name, f"but the row has {number}", "the number of answers in the row", values[name])
    if str(values.get("subset", "")).lower() == TIES:
        id_ = values.get("id")
        if not isinstance(id_, str) or not _TIES_ID.fullmatch(id_):
            raise RowError("id", "not an id of the Ties subset", "ref:N or tied:N", id_)
        if id_.startswith("tied") and len(chosen) < 2:
            raise RowError("chosen", "one right answer", "two or more in a row tied:N", chosen)
    elif len(chosen) != 1:
        raise RowError("chosen", f"{len(chosen)} right answers", "one, in every subset but Ties", chosen)
    responses = [(f"chosen[{n}]", text) for n, text in enumerate(chosen)]
    responses += [(f"rejected[{n}]", text) for n, text in enumerate(rejected)]
    edges = [(c, len(chosen) + r) for c in range(len(chosen)) for r in range(len(rejected))]
    return [Listed(RawPair({"id": values.get("id"), "prompt": values.get("prompt")}), responses, edges)]


def _llmbar(values: Row) -> Sequence[RawPair | Listed]:
    label = values.get("label")
    if isinstance(label, bool) or label not in (1, 2, "1", "2"):
        raise RowError("label", "not the number of an output", "1 or 2", label)
    return [_better(values, "input", f"output_{int(label)}", f"output_{3 - int(label)}")]


def _judgebench(values: Row) -> Sequence[RawPair | Listed]:
    label = values.get("label")
    if label not in ("A>B", "B>A"):
        raise RowError("label", "not a verdict on the two responses", "A>B or B>A", label)
    return [_better(values, "question", f"response_{label[0]}", f"response_{label[2]}")]


def _better(values: Row, prompt: str, chosen: str, rejected: str) -> RawPair:
    own = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    ids = {name: values[name] for name in ("id", "pair_id") if name in values}
    return RawPair(ids | {name: values.get(column) for name, column in own.items()}, own)


def _if_rewardbench(values: Row) -> Sequence[RawPair | Listed]:
    """IF-RewardBench: the pairs of a row's graph, by `response_id`, or by index if the responses have none."""
    responses, graph = (_objects(values, name) for name in ("responses", "preference_graph"))
    places = {item.get("response_id", place): place for place, item in enumerate(responses)}
    edges = []
    for number, edge in enumerate(graph):
        ends = []
        for side in ("chosen", "rejected"):
            end = edge.get(side)
            response_id = end.get("response_id") if isinstance(end, Mapping) else end
            if not isinstance(response_id, int | str) or response_id not in places:
                where = f"preference_graph[{number}].{side}"
                raise RowError(where, "no such response", "the response_id of one of the responses", response_id)
            ends.append(places[response_id])
        edges.append((ends[0], ends[1]))
    texts = [(f"responses[{place}].response", item.get("response")) for place, item in enumerate(responses)]
    prompt = RawPair(
        {"id": values.get("id"), "prompt": values.get("messages")}, {"prompt": "messages", "edges": "preference_graph"}
    )
    return [Listed(prompt, texts, edges)]


def _answers(values: Row, side: str) -> list[Any]:
    given = values.get(side)
    if not isinstance(given, list) or not given:
        raise RowError(side, "not a list of answers", "a list with at least one", given)
    return given


def _objects(values: Row, name: str) -> list[Mapping[str, Any]]:
    given = values.get(name)
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        raise RowError(name, "not a list of objects", "a list, as docs/evaluation.md shows", given)
    return given


def _are_lists(values: Row) -> bool:
    sides = [values.get("chosen"), values.get("rejected")]
    return all(isinstance(side, list) and not any(isinstance(item, Mapping) for item in side) for side in sides)


def _is_pair(values: Row) -> bool:
    has_sides = {"chosen", "rejected"} <= values.keys()
    return has_sides and (any(name in values for name in PROMPT_COLUMNS) or isinstance(values["chosen"], list))


# Tried in this order, from specific to general.
_FITS: Mapping[SetFormat, Callable[[Row], bool]] = {
    "ifeval": lambda values: "instruction_id_list" in values and "chosen" not in values,
    "llmbar": lambda values: values.keys() >= {"output_1", "output_2", "label"},
    "judgebench": lambda values: values.keys() >= {"question", "response_A", "response_B", "label"},
    "if-rewardbench": lambda values: values.keys() >= {"messages", "responses", "preference_graph"},
    "rewardbench-2": lambda values: _are_lists(values) and any(name in values for name in _REWARDBENCH_2),
    "rm-bench": _are_lists,
    "rewardbench": lambda values: _is_pair(values) and "subset" in values,
    "pairs": _is_pair,
    "hh": lambda values: isinstance(values.get("chosen"), str) and "\n\nHuman:" in values["chosen"],
}
_READERS: Mapping[SetFormat, Callable[[Row], Sequence[RawPair | Listed]]] = {
    "rm-bench": _styles,
    "rewardbench-2": _rewardbench_2,
    "llmbar": _llmbar,
    "judgebench": _judgebench,
    "if-rewardbench": _if_rewardbench,
}
