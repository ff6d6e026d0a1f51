"""docs/instructions.md tells of every function, every counting rule and every kind of IFEval."""

import importlib.util
import random
import re
from pathlib import Path
from types import ModuleType

import pytest

from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.types import all_or_none

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "instructions.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("instruction_tables", DOCS / "instruction_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_function_is_told_of() -> None:
    told = {row[1].split("`")[1]: row[0] for row in rows("All functions")}
    assert told == {name: function.family for name, function in REGISTRY.items()}


def test_the_tables_are_fresh(generator: ModuleType) -> None:
    assert generator.filled(PAGE) == PAGE, "run python docs/instruction_tables.py"


def test_every_kind_of_ifeval_is_told_of(generator: ModuleType, checkers: ModuleType) -> None:
    mapped: dict[str, set[str]] = {}
    for function in REGISTRY.values():
        for kind in generator.ifeval_ids(function):
            mapped.setdefault(kind, set()).add(function.name)
    ifeval, ifbench = rows("IFEval's kinds"), rows("IFBench's kinds")
    told = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in (*ifeval, *ifbench)}
    assert len(told) == 25 + len(ifbench)
    assert {kind: names for kind, names in told.items() if names} == mapped
    for row in (*ifeval, *ifbench):
        same = set(re.findall(r"`(\w+)`", row[2]))
        assert same <= set(REGISTRY), row
        assert same or row[3], row  # a function, or the reason why there is none
        assert all(REGISTRY[name].sides == "two" for name in same), row
    assert sum(bool(row[2]) for row in ifeval) >= 24
    ids = {row[0].strip("`") for row in ifeval}
    assert ids == set(checkers.INSTRUCTION_DICT)


def test_the_example_works() -> None:
    code = PAGE.split("## A function of your own")[1].split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    with all_or_none():
        exec(compile(code, "instructions.md", "exec"), {})
    for flag in (True, False):
        instruction = REGISTRY["currency_sign"].generate("It costs $5.", flag, random.Random(0))
        assert instruction is not None
        assert instruction.check("It costs $5.") == flag
        assert len(set(REGISTRY["currency_sign"].phrasings(instruction.args))) == 4
