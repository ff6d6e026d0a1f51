"""`build_data_report`: a report on the synthesized groups, as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import read_manifest
from mapl_ray.evaluation.columns import columns_of_groups
from mapl_ray.evaluation.examples import Example, pick_examples
from mapl_ray.instructions import REGISTRY
from mapl_ray.report.acceptance import acceptance_section, read_tally
from mapl_ray.report.charts import histograms
from mapl_ray.report.data_stats import DataStats, data_stats
from mapl_ray.report.examples_section import examples_section
from mapl_ray.report.markup import Markup, Section, el, join, table, write_page
from mapl_ray.report.run_files import read_run
from mapl_ray.report.run_sections import data_section
from mapl_ray.synthesis.leak import BOUND, Leak, leak

QUESTION = (
    "How many preference pairs became groups, what do the instructions ask for, and does a prompt alone reveal whether "
    "it is preferred?"
)
FILE = "data_report.html"
_EXAMPLES = 6


def build_data_report(run_dir: Path) -> Path:
    """Write `run_dir/data_report.html`. Raises `UserError` if there are no finished groups."""
    splits = [run_dir / "groups" / split for split in ("train", "eval")]
    data_sets = [(directory, read_manifest(directory, verify=False)) for directory in splits]
    stats = data_stats(data_sets)
    files = read_run(run_dir)
    families = {name: function.family for name, function in REGISTRY.items()}
    few = "There are too few groups for an estimate."
    sections: list[Section] = [
        (
            "rows",
            "Rows, functions, families",
            data_section(files.data_sets, families),
            "There is no finished data set.",
        ),
        (
            "acceptance",
            "Acceptance by number of instructions, family, function",
            acceptance_section(read_tally(data_sets), families),
            "The groups were made by an earlier release, which did not count acceptance.",
        ),
        ("k", "Instructions per prompt, relations by level", _counts(stats), few),
        ("flags", "Satisfied instructions by function", _flags(stats), few),
        ("leak", "Does the prompt reveal whether it is preferred?", _leak(leak(stats.kept)), few),
        ("lengths", "Text lengths", _lengths(stats), few),
        ("examples", "Examples", examples_section(_examples(stats.kept), _EXAMPLES), few),
    ]
    return write_page(run_dir / FILE, f"MAPL data: {run_dir.resolve().name}", QUESTION, sections, files.notes)


def _examples(groups: Sequence[RelationGroup]) -> list[Example]:
    picked = pick_examples(columns_of_groups(groups, {}), _EXAMPLES)
    return [Example(group=groups[index].to_row(), rewards={}) for index in picked]


def _counts(stats: DataStats) -> Markup | None:
    if not stats.groups:
        return None
    note = f"Counted in {stats.groups:,} of {stats.of_groups:,} groups."
    if stats.margins:
        note += f" Of {stats.margins:,} with a margin, {stats.nonpositive_margins:,} have a margin of 0 or below."
    per_prompt, levels = stats.per_prompt.total(), stats.levels.total()
    return join(
        [
            el("p", note, class_="note"),
            table(
                ["instructions of a prompt", "prompts", "share"],
                [[str(k), f"{n:,}", f"{n / per_prompt:.1%}"] for k, n in sorted(stats.per_prompt.items())],
            ),
            table(
                ["level", "relations", "share"],
                [[level, f"{n:,}", f"{n / levels:.1%}"] for level, n in sorted(stats.levels.items())],
            ),
        ]
    )


def _flags(stats: DataStats) -> Markup | None:
    if not stats.flags:
        return None
    rows = []
    for name, counts in sorted(stats.flags.items(), key=lambda item: (-item[1].total(), item[0])):
        shares = []
        for response in ("chosen", "rejected"):
            yes, no = counts[response, True], counts[response, False]
            shares.append(f"{yes / (yes + no):.0%}" if yes + no else "-")
        function = REGISTRY.get(name)
        rows.append([name, "unknown" if function is None else function.family, f"{counts.total():,}", *shares])
    note = (
        "Every instruction is checked on both responses. With layout `grid`, each function is used for both responses "
        "equally often, so the two shares should be close."
    )
    head = ["function", "family", "checked", "chosen satisfies", "rejected satisfies"]
    return join([el("p", note, class_="note"), table(head, rows)])


def _leak(found: Leak | None) -> Markup | None:
    if found is None:
        return None
    verdict = "chance level" if max(found.single, found.paired) <= BOUND else "better than chance: check the data"
    rows = [
        ["single prompts classified correctly", f"{found.single:.1%}"],
        ["pairs of prompts classified correctly", f"{found.paired:.1%}"],
        ["relations tested", f"{found.relations:,}"],
        ["verdict", f"{verdict} (bound {BOUND:.0%})"],
    ]
    note = (
        "A bag-of-words classifier sees only the instructions, not the response. It is trained on two thirds of the "
        "prompts and predicts for the others whether they are preferred. It should be no better than chance."
    )
    return join([el("p", note, class_="note"), table(["", ""], rows)])


def _lengths(stats: DataStats) -> Markup | None:
    if not stats.groups:
        return None
    figures = []
    for name, words in stats.words.items():
        edges = _edges(words)
        counts, _ = np.histogram(np.clip(words, edges[0], edges[-1]), bins=edges)
        kind = {"counts": counts.tolist(), "count": len(words), "median": float(np.median(words))}
        figure = histograms(edges, {name: kind}, "words", signed=False)
        figures.append(el("figure", el("figcaption", name), figure))
    note = "In words. The last bin includes values above the 99th percentile."
    return join([el("p", note, class_="note"), el("div", *figures, class_="panels")])


def _edges(words: Sequence[int]) -> list[float]:
    top = max(10.0, float(np.quantile(words, 0.99)))
    return [float(edge) for edge in np.linspace(0.0, top, 31)]
