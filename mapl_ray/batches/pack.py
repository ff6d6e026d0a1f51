"""Which trees share a row: first-fit decreasing, plain arithmetic."""

from __future__ import annotations

from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` a row, so that no row is longer than `budget`, in tokens.

    Longest first, each into the first row that holds it (first-fit decreasing: at most 11/9 of the fewest rows, plus
    one; Dósa 2007). What is longer than the budget gets a row of its own. Depends on the arguments alone; indices
    ascend within a row, and rows are ordered by their first index.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for row, free in enumerate(room):
            if lengths[index] <= free:
                rows[row].append(index)
                room[row] -= lengths[index]
                break
        else:
            rows.append([index])
            room.append(budget - lengths[index])
    return sorted(sorted(row) for row in rows)
