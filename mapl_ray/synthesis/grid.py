"""The grid: three prompts (x, x+, x-) by two responses, six sequences that give every relation."""

from __future__ import annotations

from mapl_ray.records import Level, Relation

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
"""Contrasts that the layout needs: prompts 1 and 2 are its two sides."""
