"""Acceptance rates of synthesis: by function, by family, by number of instructions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mapl_ray.data.shards import Manifest, read_notes
from mapl_ray.report.markup import Markup, el, join, table
from mapl_ray.synthesis import Tally


def read_tally(data_sets: Sequence[tuple[Path, Manifest]]) -> Tally | None:
    """The summed counts of all parts; None if a part has no counts (parts of earlier releases)."""
    total = Tally()
    for directory, manifest in data_sets:
        for part in manifest.parts:
            try:
                total.add(Tally.from_json(read_notes(directory, part)))
            except (KeyError, TypeError, ValueError, AttributeError):
                return None
    return total


def acceptance_section(tally: Tally | None, families: Mapping[str, str]) -> Markup | None:
    """Three tables, sorted by ascending acceptance; `families` maps each function to its family."""
    if tally is None or not tally.asked:
        return None
    asked, written = (_grouped(counts, families) for counts in (tally.asked, tally.written))
    by_k = [
        [
            str(k),
            f"{pairs:,}",
            f"{tally.groups[k]:,}",
            _share(tally.groups[k], pairs),
            f"{tally.draws[k]:,}",
            _share(tally.separating[k], tally.draws[k]),
        ]
        for k, pairs in sorted(tally.pairs.items())
    ]
    note = (
        "A function is asked for an instruction that a response satisfies or violates, as the contrast requires. If it "
        "can't write one, another set of functions is drawn. Counts include rejected pairs."
    )
    head = ["asked", "written", "acceptance"]
    return join(
        [
            el("p", note, class_="note"),
            el("h3", "By number of instructions"),
            table(["k", "pairs", "groups", "acceptance", "draws", "that separate"], by_k),
            el("h3", "By family"),
            table(["family", *head], _rows(asked, written, lambda family: [family])),
            el("h3", "By function"),
            table(
                ["function", "family", *head],
                _rows(tally.asked, tally.written, lambda name: [name, families.get(name, "unknown")]),
            ),
        ]
    )


def _grouped(counts: Counter[str], families: Mapping[str, str]) -> Counter[str]:
    grouped: Counter[str] = Counter()
    for name, count in counts.items():
        grouped[families.get(name, "unknown")] += count
    return grouped


def _rows(asked: Counter[str], written: Counter[str], head: Callable[[str], list[str]]) -> list[list[str]]:
    worst_first = sorted(asked, key=lambda name: (written[name] / asked[name], name))
    return [
        [*head(name), f"{asked[name]:,}", f"{written[name]:,}", _share(written[name], asked[name])]
        for name in worst_first
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
