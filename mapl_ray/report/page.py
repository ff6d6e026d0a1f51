"""`build_report`: the report of a run, as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from mapl_ray.report.answers_section import answers_section
from mapl_ray.report.evaluation_sections import calibration_section, sets_section, wording_section
from mapl_ray.report.examples_section import examples_section
from mapl_ray.report.markup import Section, write_page
from mapl_ray.report.result_sections import (
    by_family_section,
    by_k_section,
    gaps_section,
    length_section,
    levels_section,
    results_section,
)
from mapl_ray.report.run_files import RunFiles, read_run
from mapl_ray.report.run_sections import (
    cost_section,
    curves_section,
    data_section,
    provenance_section,
)
from mapl_ray.report.tuning_section import tuning_section

QUESTION = (
    "Do models that also learn from intra-sample relations (one response, two prompts) and inter-sample relations "
    "(one response pair, two prompts) follow several instructions better than plain preference learning on the same "
    "pairs, without losing preference accuracy?"
)


def build_report(run_dir: Path, data_dir: Path | None = None) -> Path:
    """Write `run_dir/report.html` and return its path; `data_dir` is the run that has the data, if it is another one.

    A section without data says so. Raises `UserError` if there is no run directory.
    """
    files = read_run(run_dir, data_dir)
    sections = _result_sections(files) + _run_sections(files)
    return write_page(run_dir / "report.html", f"MAPL run: {run_dir.resolve().name}", QUESTION, sections, files.notes)


def _result_sections(files: RunFiles) -> list[Section]:
    evaluation = files.evaluation
    missing = "There is no evaluation.json in this run yet: run `mapl evaluate`."
    if evaluation is None:
        return [("results", "Results", None, missing)]
    sets = (
        "sets",
        "Public sets",
        sets_section(evaluation),
        "No public sets were evaluated: `--set NAME=PATH` adds one.",
    )
    if not evaluation.get("models"):
        return [sets]
    return [
        ("results", "Results", results_section(evaluation), missing),
        ("levels", "Accuracy by level", levels_section(evaluation), missing),
        (
            "k",
            "Accuracy by number of instructions",
            by_k_section(evaluation),
            "No intra or inter relation was evaluated.",
        ),
        ("families", "Accuracy by family", by_family_section(evaluation), "No intra or inter relation was evaluated."),
        ("gaps", "Gaps under x, x+ and x-", gaps_section(evaluation), "There are no gaps to show."),
        ("length", "Length bias", length_section(evaluation), missing),
        ("calibration", "Calibration", calibration_section(evaluation), "Calibration was not measured."),
        (
            "wording",
            "Order and phrasing of instructions",
            wording_section(evaluation),
            "Not measured: set evaluation.invariance=true, or synthesis.held_out_phrasings=true before synthesis.",
        ),
        (
            "answers",
            "Answers before and after DPO",
            answers_section(evaluation),
            "No own prompts were answered: set evaluation.own_prompts to their number.",
        ),
        sets,
    ]


def _run_sections(files: RunFiles) -> list[Section]:
    evaluation = files.evaluation or {}
    provenance = evaluation.get("provenance")
    return [
        (
            "curves",
            "Learning curves",
            curves_section(files.metrics, list(evaluation.get("models", {}))),
            "No run has written a metrics.jsonl yet.",
        ),
        ("tuning", "Tuning", tuning_section(files.trials), "There was no search: tune/trials.json does not exist."),
        ("examples", "Examples", examples_section(files.examples), "There are no groups to show."),
        (
            "data",
            "Data",
            data_section(files.data_sets, evaluation.get("families", {})),
            "There are no finished data sets in this run.",
        ),
        ("cost", "Cost", cost_section(files.costs), "No run has written its cost to a result.json yet."),
        (
            "provenance",
            "Provenance",
            None if provenance is None else provenance_section(provenance),
            "The evaluation has no provenance.",
        ),
    ]
