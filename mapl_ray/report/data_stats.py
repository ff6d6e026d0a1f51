"""What the data report shows of the groups: counts, lengths, flags; from whole parts, and no more than it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import Manifest, read_part

SAMPLED_GROUPS = 20_000  # counts are of about so many at most, every n-th part of a larger data set
KEPT_GROUPS = 2_000  # texts are looked at in so many


def sample_rows(directory: Path, manifest: Manifest, most: int = SAMPLED_GROUPS) -> Iterator[dict[str, Any]]:
    """Rows of every n-th part, about `most` of them; all of a smaller data set. One part is in memory at a time."""
    step = max(1, -(-manifest.rows // most))
    for part in manifest.parts[::step]:
        yield from read_part(directory, part)


@dataclass(slots=True)
class DataStats:
    """Sums over the groups that were looked at."""

    groups: int = 0
    of_groups: int = 0  # that there are
    per_prompt: Counter[int] = field(default_factory=Counter)  # instructions of an instructed prompt
    margins: int = 0  # groups whose pair has one
    nonpositive_margins: int = 0  # of these, 0 or below
    levels: Counter[str] = field(default_factory=Counter)
    flags: dict[str, Counter[tuple[str, bool]]] = field(default_factory=dict)  # function -> (response, satisfied)
    words: dict[str, list[int]] = field(default_factory=lambda: {"prompt": [], "chosen": [], "rejected": []})
    kept: list[RelationGroup] = field(default_factory=list)


def data_stats(data_sets: list[tuple[Path, Manifest]]) -> DataStats:
    """Look at the groups of all data sets (one per split)."""
    stats = DataStats(of_groups=sum(manifest.rows for _, manifest in data_sets))
    keep_every = max(1, -(-min(stats.of_groups, SAMPLED_GROUPS) // KEPT_GROUPS))
    for directory, manifest in data_sets:
        for row in sample_rows(directory, manifest):
            _count(stats, RelationGroup.from_row(row), keep=stats.groups % keep_every == 0)
    return stats


def _count(stats: DataStats, group: RelationGroup, keep: bool) -> None:
    stats.groups += 1
    stats.margins += group.margin is not None
    stats.nonpositive_margins += group.margin is not None and group.margin <= 0.0
    stats.per_prompt.update(len(instructions) for instructions in group.instructions[1:])
    stats.levels.update(relation.level.value for relation in group.relations)
    for cell in group.sequences:
        response = ("chosen", "rejected")[cell.response]
        for record, satisfied in zip(group.instructions[cell.prompt], cell.satisfied, strict=True):
            stats.flags.setdefault(record.name, Counter())[response, satisfied] += 1
    stats.words["prompt"].append(sum(len(message.content.split()) for message in group.prompts[0]))
    for name, response in zip(("chosen", "rejected"), group.responses, strict=True):
        stats.words[name].append(len(response.split()))
    if keep and len(stats.kept) < KEPT_GROUPS:
        stats.kept.append(group)
