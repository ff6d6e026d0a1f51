"""The layouts of a group: its sequences and the relations over them.

Grid: three prompts (x, x+, x-) times two responses; these six sequences give every relation.

Independent, as in the paper: the intra prompts of each response and the inter prompts are drawn separately. Prompts: x;
x_w and x_l of the chosen response; x_w and x_l of the rejected response; x+ and x-. Every draw is a contrast as in the
grid. A side written for the chosen response serves as its x_w and, drawn again, as x_l of the rejected response. So
preferred and dispreferred prompts have the same distribution.
"""

from __future__ import annotations

from mapl_ray.data.records import Level, Relation

# Sequences are numbered (x,c) (x,r) (x+,c) (x+,r) (x-,c) (x-,r).
GRID_CELLS: tuple[tuple[int, int], ...] = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
GRID_RELATIONS: tuple[Relation, ...] = (
    Relation(Level.PREF, (0,), (1,)),
    Relation(Level.INTRA, (2,), (4,)),  # chosen: x+ over x-
    Relation(Level.INTRA, (5,), (3,)),  # rejected: x- over x+
    Relation(Level.INTER_WIDENING, (2, 1), (3, 0)),
    Relation(Level.INTER_NARROWING, (0, 5), (1, 4)),
)
GRID_CONTRASTS = 1
"""Number of contrasts of the layout: prompts 1 and 2 are the two sides."""

INDEPENDENT_CONTRASTS = 3
"""Number of contrasts of the layout: contrast i gives prompts 2i+1 (written for chosen) and 2i+2 (for rejected)."""

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
