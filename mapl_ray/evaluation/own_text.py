"""Terminal output for the run's own prompts: a table of rates, and a few answers before and after DPO.

Prompts and answers are untrusted text, so control characters are not printed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mapl_ray.evaluation.bootstrap import format_percent, format_points
from mapl_ray.evaluation.compare import BASELINE_SUFFIX

SIGNS = {"met": "✓", "not met": "✗", "undecided": "?", "not checked": "-"}
_WIDTH = 110
_LINES = 2  # shown of a question or an answer
_BREAK = " ↵ "  # replaces a line break


def own_table(own: Mapping[str, Any]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Header, one row per model, and one row `[model - baseline, prompts, instructions]` per comparison."""
    head = ["model", "prompts with all met", "instructions met", "undecided", "cut"]
    rows = [
        [
            model,
            format_percent(results["prompt"]),
            format_percent(results["instruction"]),
            str(results["undecided"]),
            str(results["cut"]),
        ]
        for model, results in own["models"].items()
    ]
    differences = [
        [
            f"{comparison['model']} - {comparison['baseline']}",
            *(format_points(comparison[level]["accuracy"]) for level in ("prompt", "instruction")),
        ]
        for comparison in own["comparisons"]
    ]
    return head, rows, differences


def own_counts(own: Mapping[str, Any]) -> str:
    """`3 held-out prompts, 7 instructions checked, 1 not (soft ones, which need a judge)`."""
    counts = own["counts"]
    line = f"{counts['prompts']} held-out prompts, {counts['instructions']} instructions checked"
    return line + (f", {counts['not checked']} not (soft ones, which need a judge)" if counts["not checked"] else "")


def own_legend(own: Mapping[str, Any]) -> str:
    """A legend of the signs that occur."""
    found = {mark for shown in own["shown"] for answer in shown["answers"].values() for mark in answer["marks"]}
    words = {"undecided": "undecided: readings differ", "not checked": "not checked: needs a judge"}
    return ", ".join(
        f"{sign} {words.get(mark, mark)}" for mark, sign in SIGNS.items() if mark in found or mark in ("met", "not met")
    )


def before_and_after(own: Mapping[str, Any]) -> dict[str, str]:
    """Map `before` and `after` to models, if they have answers.

    `after` is the first model that is neither the one that DPO started from nor a plain baseline.
    """
    before = own["before"]
    others = [model for model in own["models"] if model != before]
    after = next((model for model in others if not model.endswith(BASELINE_SUFFIX)), next(iter(others), None))
    return {label: model for label, model in (("before", before), ("after", after)) if model is not None}


def answers_text(own: Mapping[str, Any]) -> str:
    """A block per shown prompt: question, instructions with signs before and after DPO, the start of both answers."""
    sides = before_and_after(own)
    if not own["shown"] or not sides:
        return ""
    named = "; ".join(f"{label} DPO: {model}" for label, model in sides.items() if model != f"{label} DPO")
    lines = [
        "Answers before and after DPO" + (f" ({named})" if named else ""),
        f"  greedy, at most {own['max_new_tokens']} tokens; {own_legend(own)}",
        *(f"  {note}" for note in own["notes"]),
    ]
    for number, shown in enumerate(own["shown"], start=1):
        lines += _block(number, shown, sides)
    return "\n".join(lines)


def _block(number: int, shown: Mapping[str, Any], sides: Mapping[str, str]) -> list[str]:
    lines = _beginning(f"{number}. ", _question(shown["original"]))
    answers = {label: shown["answers"][model] for label, model in sides.items()}
    for place, instruction in enumerate(shown["instructions"]):
        signs = " → ".join(SIGNS[answer["marks"][place]] for answer in answers.values())
        lines += _beginning(f"   {signs}  ", instruction, 1)
    for label, answer in answers.items():
        note = " (truncated at max_new_tokens)" if answer["cut"] else ""
        lines += _beginning(f"   {label + ':':7} ", answer["text"] if answer["text"].strip() else "(empty)", note=note)
    return lines


def _question(messages: Sequence[Mapping[str, str]]) -> str:
    """The last user turn; tool turns after it are not shown."""
    turns = [message["content"] for message in messages if message["role"] == "user"]
    return turns[-1] if turns else messages[-1]["content"]


def _beginning(lead: str, text: str, most: int = _LINES, note: str = "") -> list[str]:
    """The first lines of a text, and the number of characters left out."""
    plain = printable(text)
    wrapped = textwrap.wrap(plain, _WIDTH - len(lead)) or [""]
    if len(wrapped) > most:
        left_out = len(plain) - len(" ".join(wrapped[:most]))
        wrapped = [*wrapped[:most]]
        note = f" [{left_out} more characters]{note}"
    wrapped[-1] += note
    return [(lead if not index else " " * len(lead)) + line for index, line in enumerate(wrapped)]


def printable(text: str) -> str:
    """The text on one line, with marked line breaks and without control and other invisible characters."""
    lines = [" ".join(line.split()) for line in text.strip().splitlines()]
    return "".join(char for char in _BREAK.join(line for line in lines if line) if char.isprintable())
