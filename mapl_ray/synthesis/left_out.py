"""Count what rows for TRL and OpenRLHF leave out of a relation group.

A row is one prompt with a chosen and a rejected response. `pair_id` links a row to its group, which holds everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mapl_ray.data.records import Level, Relation, RelationGroup

# In the order in which they are printed.
_TEXTS = {
    "intra": "intra relations (one response under two prompts) have no row",
    "inter": (
        "inter relations (two sequences on each side) are one row each, under the instructed prompt: the row does not "
        "hold the gap under the original prompt"
    ),
    "prompts": "prompts are in no row",
    "groups": "groups are split into rows: each row is computed separately, without the prefixes that a group shares",
    "kinds": "rows have their level in `kind`, which the trainer does not read: it weights all levels equally",
    "margins": "groups have a margin: rows have none",
    "instructions": "instructions are in the prompts only as text, without function, arguments and flags",
}


def left_out(group: RelationGroup) -> Counter[str]:
    """Counts for one group, by the keys of `left_out_lines`; counts of 0 are left out.

    * intra, inter: relations of these levels
    * prompts: prompts that are in no row
    * groups: 1 for a group with more than one row
    * kinds: rows
    * margins: 1 for a group with a margin
    * instructions: instructions of all prompts
    """
    rows = [relation for relation in group.relations if relation.level is not Level.INTRA]
    counts = Counter(relation.level.family for relation in group.relations)
    del counts["pref"]
    shown = {_prompt_of_row(group, relation) for relation in rows}
    counts["prompts"] = len(group.prompts) - len(shown)
    counts["groups"] = int(len(rows) > 1)
    counts["kinds"] = len(rows)
    counts["margins"] = int(group.margin is not None)
    counts["instructions"] = sum(map(len, group.instructions))
    return +counts


def left_out_lines(counts: Mapping[str, int]) -> list[str]:
    """One line per count above 0, such as `"12 prompts are in no row"`."""
    return [f"{counts[key]:,} {text}" for key, text in _TEXTS.items() if counts.get(key)]


def _prompt_of_row(group: RelationGroup, relation: Relation) -> int:
    return 0 if relation.level is Level.PREF else instructed_prompt(group, relation)


def instructed_prompt(group: RelationGroup, relation: Relation) -> int:
    """Index of the instructed prompt of an inter relation; the original prompt is 0."""
    return max(group.sequences[index].prompt for index in relation.preferred)
