"""Generate `docs/reliability.md` from the texts of the registry and the measured rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.reliability.fault import Fault
from benchmarks.reliability.registry import FAULTS

HEAD = """# What happens when something breaks

Made by `make reliability` (`python -m benchmarks.reliability --output docs/reliability.md`); do not edit. Every row is
a fault that was done to real processes (Ray, vLLM, DeepSpeed on a model of two layers), and the run after it was
compared with an undisturbed one: the same ids, none twice, and the same content hash for data; equal weights for
training. Each round has a time limit: a run that hangs, or tries again without end, is a failure of its row. Times are
of a small machine where other work went on as well: most of each is starting Python, Ray and engines again. A row
names the commit, and a digest of `mapl_ray/` and `benchmarks/reliability/` as they were when it was measured (with "+"
where files differed from the commit). `make test` warns of rows that are of other code than the checkout's.

"""
COLUMNS = (
    "Fault",
    "What happens",
    "What is lost",
    "Recovery: median, worst",
    "Holds",
    "Command",
    "Machine, date, code",
)


def render(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    rows = [_row(fault, results.get(name)) for name, fault in FAULTS.items()]
    rule = "|" + "---|" * len(COLUMNS)
    table = "\n".join([f"| {' | '.join(COLUMNS)} |", rule, *rows])
    sections = "\n".join(_section(fault, results.get(name)) for name, fault in FAULTS.items())
    return f"{HEAD}{table}\n\n{sections}"


def _row(fault: Fault, row: Mapping[str, Any] | None) -> str:
    command = f"`--only {fault.name}`"
    if row is None:
        cells = [fault.title, fault.happens, "", "", "not run", command, ""]
    else:
        code = f"commit {row['commit']}, code {row['code'][:12]}" if "code" in row else "its code was not recorded"
        place = f"{row['machine']}; {row['date']}; {code}"
        holds = f"not run: {row['not_run']}" if row["holds"] is None else "yes" if row["holds"] else "**no**"
        cells = [fault.title, fault.happens, row.get("lost", ""), _times(row), holds, command, place]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _times(row: Mapping[str, Any]) -> str:
    seconds = row.get("seconds") or []
    if not seconds:
        return ""
    rounds = f"{len(seconds)} time{'s' if len(seconds) > 1 else ''}"
    return f"{statistics.median(seconds):.1f} s, {max(seconds):.1f} s ({rounds})"


def _section(fault: Fault, row: Mapping[str, Any] | None) -> str:
    lines = [f"## {fault.title}", "", fault.user]
    if row and row.get("message"):
        lines += ["", "```", row["message"], "```"]
    if row and row.get("seconds"):
        lines += ["", f"Recovery is counted {fault.recovery}."]
    if row and row.get("checks"):
        lines += ["", "Checked:", ""]
        lines += [f"* {sentence}{'' if holds else ' (**not so**)'}" for sentence, holds in row["checks"].items()]
    return "\n".join(lines) + "\n"
