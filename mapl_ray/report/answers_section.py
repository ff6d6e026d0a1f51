"""The report's section on answers to the run's own prompts, before and after DPO: rates, and a few full answers.

Prompts and answers are untrusted text, so everything is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapl_ray.evaluation.own_text import SIGNS, own_counts, own_legend, own_table
from mapl_ray.report.examples_section import highlighted
from mapl_ray.report.markup import Markup, el, join, table
from mapl_ray.report.result_sections import Evaluation, with_interval


def answers_section(evaluation: Evaluation) -> Markup | None:
    """The rates of all models, their paired differences, and the prompts whose texts are in `evaluation.json`."""
    own = evaluation.get("own_prompts")
    if own is None:
        return None
    head, models, differences = own_table(own)
    rows: list[list[str | Markup]] = [
        [model, with_interval(prompt), with_interval(instruction), *counts]
        for model, prompt, instruction, *counts in models
    ]
    rows += [[el("em", name), *map(with_interval, cells), "", ""] for name, *cells in differences]
    note = (
        f"{own_counts(own)}. vLLM, greedy, at most {own['max_new_tokens']} tokens. Percent of prompts with all "
        "instructions met, and percent of instructions met. An instruction that is met only under some readings is "
        "undecided and counts as not met. Differences are paired and in points."
    )
    left_out = [[model, reason] for model, reason in own["left_out"].items()]
    return join(
        [
            el("p", note, class_="note"),
            *(el("p", f"{text}.", class_="note") for text in own["notes"]),
            table(head, rows, "results") if rows else None,
            table(["no answers by", "reason"], left_out, "wrap") if left_out else None,
            *(_prompt(own, shown, number) for number, shown in enumerate(own["shown"], start=1) if shown["answers"]),
        ]
    )


def _prompt(own: Mapping[str, Any], shown: Mapping[str, Any], number: int) -> Markup:
    turns = [
        el("p", el("b", f"{message['role']}: "), highlighted(message["content"], shown["instructions"]))
        for message in shown["prompt"]
    ]
    answers = shown["answers"]
    marks = [
        [instruction, *(SIGNS[answer["marks"][place]] for answer in answers.values())]
        for place, instruction in enumerate(shown["instructions"])
    ]
    parts = [
        el("div", el("h4", "Prompt"), *turns, class_="prompt"),
        table([own_legend(own), *answers], marks, "wrap"),
        *(
            el(
                "div",
                el("h4", model + (" (truncated at max_new_tokens)" if answer["cut"] else "")),
                el("p", answer["text"]),
                class_="response",
            )
            for model, answer in answers.items()
        ),
    ]
    title = f"Prompt {number}: {shown['original'][-1]['content'].strip()[:80]}"
    return el("details", el("summary", title), *parts, open="" if number == 1 else None)
