"""The Arrow columns that the metrics need, one row per relation group: numbers and names, no text.

Workers write these columns next to the groups (`distributed/evaluation_groups.py`). The driver reads them instead of
the groups (`columns.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mapl_ray.data.records import InstructionRecord, Level, Relation, RelationGroup
from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.phrasing import held_out_wordings

LEVELS: tuple[Level, ...] = tuple(Level)  # a level is stored as its index
GAP_KINDS = ("x", "x+", "x-")  # a prompt's kind is stored as its index, -1 for any other prompt
NAME_SEPARATOR = "\n"

_INTS = pa.list_(pa.int32())
COLUMN_SCHEMA = pa.schema(
    [
        ("prompt_key", pa.uint64()),  # digest of the original prompt's text
        ("text_words", pa.int32()),  # number of words in the original prompt and the responses
        ("functions", pa.string()),  # sorted names of the group's functions
        ("response_words", _INTS),
        ("cell_prompts", _INTS),  # indices of prompt and response of each sequence
        ("cell_responses", _INTS),
        ("prompt_kinds", pa.list_(pa.int8())),
        ("levels", pa.list_(pa.int8())),  # this and the following columns: one entry per relation
        ("preferred", pa.list_(_INTS)),
        ("dispreferred", pa.list_(_INTS)),
        ("instructions_k", _INTS),  # maximum number of instructions of the relation's prompts, 0 for pref
        ("relation_functions", pa.list_(pa.string())),  # sorted names of the functions of its prompts
        ("unseen_phrasing", pa.list_(pa.bool_())),
    ]
)


def columns_table(groups: Sequence[RelationGroup]) -> pa.Table:
    """A table in `COLUMN_SCHEMA`, one row per group."""
    return pa.Table.from_pylist([_row(group) for group in groups], schema=COLUMN_SCHEMA)


def prompt_text(group: RelationGroup) -> str:
    """The text of the group's original prompt. The bootstrap resamples by it."""
    return "\n\n".join(f"{message.role}: {message.content}" for message in group.prompts[0])


def prompt_kinds(group: RelationGroup) -> dict[int, str]:
    """Map prompt indices to x, x+ or x-. The inter relations decide, so it works for every layout."""
    kinds = {0: "x"}
    names = {Level.INTER_WIDENING: "x+", Level.INTER_NARROWING: "x-"}
    for relation in group.relations:
        if relation.level in names:
            for index in (*relation.preferred, *relation.dispreferred):
                kinds.setdefault(group.sequences[index].prompt, names[relation.level])
    return kinds


def is_unseen_wording(record: InstructionRecord) -> bool:
    """Whether the text is a phrasing that `synthesis.held_out_phrasings` holds out; False for unknown functions."""
    function = REGISTRY.get(record.name)
    if function is None:
        return False
    phrasings = function.phrasings(record.args)
    return any(phrasings[index] == record.text for index in held_out_wordings(phrasings))


def _row(group: RelationGroup) -> dict[str, Any]:
    words = [len(response.split()) for response in group.responses]
    kinds = prompt_kinds(group)
    unseen_P = [any(map(is_unseen_wording, some)) for some in group.instructions]
    prompts_R = [sorted(_prompts(group, relation)) for relation in group.relations]
    digest = hashlib.blake2b(prompt_text(group).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return {
        "prompt_key": int.from_bytes(digest, "big"),
        "text_words": sum(len(message.content.split()) for message in group.prompts[0]) + sum(words),
        "functions": _names(group, range(len(group.instructions))),
        "response_words": words,
        "cell_prompts": [cell.prompt for cell in group.sequences],
        "cell_responses": [cell.response for cell in group.sequences],
        "prompt_kinds": [GAP_KINDS.index(kinds[p]) if p in kinds else -1 for p in range(len(group.prompts))],
        "levels": [LEVELS.index(relation.level) for relation in group.relations],
        "preferred": [list(relation.preferred) for relation in group.relations],
        "dispreferred": [list(relation.dispreferred) for relation in group.relations],
        "instructions_k": [max((len(group.instructions[p]) for p in prompts), default=0) for prompts in prompts_R],
        "relation_functions": [_names(group, prompts) for prompts in prompts_R],
        "unseen_phrasing": [any(unseen_P[p] for p in prompts) for prompts in prompts_R],
    }


def _prompts(group: RelationGroup, relation: Relation) -> set[int]:
    return {group.sequences[s].prompt for s in (*relation.preferred, *relation.dispreferred)}


def _names(group: RelationGroup, prompts: Sequence[int]) -> str:
    return NAME_SEPARATOR.join(sorted({record.name for p in prompts for record in group.instructions[p]}))
