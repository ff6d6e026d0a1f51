"""Write the generated tables of docs/instructions.md: all functions, the counting rules, and what is drawn how often.

    python docs/instruction_tables.py

Run it after a change of the function set; a test compares the page with what it gives.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from instruction_demand import demand

from mapl_ray.instructions import REGISTRY, Instruction, InstructionFunction
from mapl_ray.instructions import text as rules

PAGE = Path(__file__).with_name("instructions.md")
_PROMPT = "Which museums should I visit in Paris?"
_RESPONSES = (
    "Paris has 130 museums, so take your time. First visit the Louvre: its paintings are worth a whole morning.\n\n"
    "- Buy tickets early.\n- Avoid Tuesdays.\n\nThen walk along the river. Shall we plan your second day?",
    "I love small places! The Picasso museum shows sculptures and drawings; Rodin's garden is quiet.\n\n"
    "# Getting there\nTake the metro.",
)
_SEEDS = 60


def tables(page: str) -> dict[str, str]:
    """Name of a generated part of the page -> its Markdown."""
    return {"functions": _functions(), "counting": _counting(), "demand": demand(page)}


def ifeval_ids(function: InstructionFunction) -> set[str]:
    """The IFEval and IFBench kinds that the function's instructions are mapped to."""
    mapped = [instruction.to_ifeval() for instruction in _samples(function)]
    return {one[0] for one in mapped if one is not None}


def filled(page: str) -> str:
    """The page with its generated parts renewed."""
    for name, table in tables(page).items():
        part = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        page = part.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)
    return page


def _samples(function: InstructionFunction) -> list[Instruction]:
    found = []
    for seed in range(_SEEDS):
        response, other = _RESPONSES[:: 1 if seed % 2 else -1]
        rng = random.Random(seed)
        found.append(function.generate(response, seed % 4 < 2, rng, other=other, prompt=_PROMPT))
    return [instruction for instruction in found if instruction is not None]


def _functions() -> str:
    lines = ["| family | function | for example | arguments | IFEval, IFBench |", "|---|---|---|---|---|"]
    for function in sorted(REGISTRY.values(), key=lambda function: (function.sides == "soft", function.family)):
        if function.sides == "soft":
            example, arguments = function.question or "", "use, judged"
        else:
            first = _samples(function)[0]
            example, arguments = function.phrasings(first.args)[0], ", ".join(first.args)
        name = f"`{function.name}`" + (" (one-sided)" if function.sides == "one" else "")
        ids = ", ".join(f"`{one}`" for one in sorted(ifeval_ids(function)))
        cells = (function.family, name, _code(example), arguments, ids)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _code(text: str) -> str:
    # A code span of two backticks holds one or three of them, and nothing in it is taken for Markdown.
    return f"`` {text} ``".replace("|", "\\|")


def _counting() -> str:
    table = [line for line in (rules.__doc__ or "").splitlines() if line.startswith("|")]
    lines: list[str] = []
    for line in table:
        if line.startswith("| | "):  # goes on from the line above
            lines[-1] = lines[-1].removesuffix(" |") + line.removeprefix("| |")
        else:
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
