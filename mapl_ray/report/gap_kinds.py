"""Names of a group's prompts for people: x, x+, x-."""

from __future__ import annotations

from mapl_ray.evaluation.gaps import prompt_kinds
from mapl_ray.records import RelationGroup


def prompt_names(group: RelationGroup) -> dict[int, str]:
    """`x`, `x+`, `x-` where the inter relations identify them, else `x1`, `x2`, ... by position."""
    kinds = prompt_kinds(group)
    return {number: kinds.get(number, f"x{number}") for number in range(len(group.prompts))}
