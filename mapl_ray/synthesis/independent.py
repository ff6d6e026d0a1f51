"""The independent layout: the intra prompts of either response and the inter prompts are drawn apart, as in the paper.

Prompts: x; x_w and x_l of the chosen response; x_w and x_l of the rejected response; x+ and x-.

Every draw is a contrast of the grid's kind. A side written for the chosen response serves as x_w of the one and, drawn
again, as x_l of the other, so that preferred and dispreferred prompts have one distribution.
"""

from __future__ import annotations

from mapl_ray.records import Level, Relation

INDEPENDENT_CONTRASTS = 3
"""Contrasts that the layout needs; contrast i gives prompts 2i+1 (written for chosen) and 2i+2 (for rejected)."""

INDEPENDENT_CELLS: tuple[tuple[int, int], ...] = (
    (0, 0),
    (0, 1),
    (1, 0),  # intra of chosen: x_w is written for chosen, x_l for rejected
    (2, 0),
    (3, 1),  # intra of rejected: x_l is written for chosen, x_w for rejected
    (4, 1),
    (5, 0),  # inter
    (5, 1),
    (6, 0),
    (6, 1),
)
INDEPENDENT_RELATIONS: tuple[Relation, ...] = (
    Relation(Level.PREF, (0,), (1,)),
    Relation(Level.INTRA, (2,), (3,)),
    Relation(Level.INTRA, (5,), (4,)),
    Relation(Level.INTER_WIDENING, (6, 1), (7, 0)),
    Relation(Level.INTER_NARROWING, (0, 9), (1, 8)),
)
