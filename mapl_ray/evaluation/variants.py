"""Variants of groups: instructions reordered or rephrased. Nothing else changes.

A reward model that understands the instructions gives a variant the same rewards as the original group.
"""

from __future__ import annotations

import random
from dataclasses import replace

from mapl_ray.data.records import InstructionRecord, RelationGroup
from mapl_ray.data.records import Sequence as Cell
from mapl_ray.evaluation.column_table import is_unseen_wording
from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.phrasing import held_out_wordings
from mapl_ray.synthesis import rejoin_prompt

ORDER, PHRASING, UNSEEN_PHRASING = "order", "phrasing", "unseen phrasing"


def variant_kinds(held_out_phrasings: bool) -> tuple[str, ...]:
    """`order` and `phrasing`, and `unseen phrasing` if training held phrasings out."""
    return (ORDER, PHRASING, UNSEEN_PHRASING) if held_out_phrasings else (ORDER, PHRASING)


def variant_of(group: RelationGroup, kind: str, seed: int) -> RelationGroup | None:
    """The variant of a group; None if it has none of this kind.

    Only `seed` and the group's id decide which phrasings are drawn.
    """
    if kind == ORDER:
        return reordered(group)
    return rephrased(group, random.Random(f"{seed} {group.pair_id}"), unseen=kind == UNSEEN_PHRASING)


def reordered(group: RelationGroup) -> RelationGroup | None:
    """Reverse the order of each prompt's instructions; None if no prompt has two."""
    if max(map(len, group.instructions)) < 2:
        return None
    instructions = tuple(tuple(reversed(some)) for some in group.instructions)
    flags = tuple(replace(cell, satisfied=tuple(reversed(cell.satisfied))) for cell in group.sequences)
    return _with_instructions(group, instructions, flags)


def rephrased(group: RelationGroup, rng: random.Random, unseen: bool = False) -> RelationGroup | None:
    """Rephrase every instruction with another phrasing of its function; with `unseen`, one that training held out.

    Instructions at the same index of two prompts get the same phrasing, as in synthesis. An instruction without
    another phrasing keeps its text. None if nothing changes; with `unseen`, None unless all instructions are unseen.
    """
    draws = [rng.getrandbits(32) for _ in range(max(map(len, group.instructions)))]
    instructions = tuple(
        tuple(_reworded(record, draw, unseen) for record, draw in zip(some, draws, strict=False))
        for some in group.instructions
    )
    if unseen:
        wanted = bool(draws) and all(is_unseen_wording(record) for some in instructions for record in some)
    else:
        wanted = instructions != group.instructions
    return _with_instructions(group, instructions, group.sequences) if wanted else None


def _reworded(record: InstructionRecord, draw: int, unseen: bool) -> InstructionRecord:
    function = REGISTRY.get(record.name)
    if function is None or (unseen and is_unseen_wording(record)):
        return record
    phrasings = function.phrasings(record.args)
    allowed = held_out_wordings(phrasings) if unseen else range(len(phrasings))
    others = [phrasings[index] for index in allowed if phrasings[index] != record.text]
    return replace(record, text=others[draw % len(others)]) if others else record


def _with_instructions(
    group: RelationGroup, instructions: tuple[tuple[InstructionRecord, ...], ...], sequences: tuple[Cell, ...]
) -> RelationGroup:
    """The group with other instructions, without scores, which belong to the original prompts."""
    prompts = tuple(
        rejoin_prompt(group.prompts[0], prompt, [i.text for i in old], [i.text for i in new]) if old else prompt
        for prompt, old, new in zip(group.prompts, group.instructions, instructions, strict=True)
    )
    return replace(group, prompts=prompts, instructions=instructions, sequences=sequences, ref_logps=None, rewards=None)
