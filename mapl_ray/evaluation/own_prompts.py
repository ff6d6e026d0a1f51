"""Select prompts from the run's held-out groups, and check which of their instructions an answer meets.

The prompt of a group is x+: the original prompt with the instructions that the chosen response satisfies. An answer is
new text, so each function's checker decides. Soft functions have none: their judge has not read the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from mapl_ray.data.records import InstructionRecord, RelationGroup
from mapl_ray.data.shards import fingerprint_of
from mapl_ray.errors import UserError, first_line
from mapl_ray.evaluation.column_table import GAP_KINDS, prompt_kinds
from mapl_ray.instructions import REGISTRY, Features, Instruction, features_of

# undecided: readings of the instruction differ on this answer. not checked: a soft function, or one that was removed.
Mark = Literal["met", "not met", "undecided", "not checked"]
_OF_VERDICT: Mapping[bool | None, Mark] = {True: "met", False: "not met", None: "undecided"}
_SEVERAL = 2


def asked_prompt(group: RelationGroup) -> int:
    """Index of the prompt to answer. Raises `ValueError` for a group without instructions."""
    found = _asked(prompt_kinds(group), group.instructions)
    if found is None:
        raise ValueError(f"group {group.pair_id} has no prompt with instructions")
    return found


def candidates(rows: Sequence[Mapping[str, Any]], seed: int) -> Iterator[tuple[tuple[bool, str], int]]:
    """Yield (rank, index) of each row whose prompt has an instruction with a checker; lower ranks are used first.

    Rows have `pair_id`, `instructions` and `prompt_kinds` (`COLUMN_SCHEMA`). Prompts with several such instructions
    come before those with one. Among equals, the order depends only on `seed` and the ids.
    """
    for index, row in enumerate(rows):
        kinds = {place: GAP_KINDS[kind] for place, kind in enumerate(row["prompt_kinds"]) if kind >= 0}
        asked = _asked(kinds, row["instructions"])
        number = 0 if asked is None else sum(has_checker(one["name"]) for one in row["instructions"][asked])
        if number:
            yield (number < _SEVERAL, fingerprint_of([seed, row["pair_id"]])), index


def has_checker(name: str) -> bool:
    """Whether the function with this name can check any text."""
    function = REGISTRY.get(name)
    return function is not None and function.sides != "soft"


def marks_of(instructions: Sequence[InstructionRecord], answer: str) -> list[Mark]:
    """A mark for each instruction of an answer's prompt, in order.

    `met` means under every reasonable reading (`Instruction.verdict`). An empty answer meets none, as in IFEval. Raises
    `UserError` if a checker fails.
    """
    text = features_of(answer)
    return [_mark(record, text, empty=not answer.strip()) for record in instructions]


def _mark(record: InstructionRecord, text: Features, *, empty: bool) -> Mark:
    if not has_checker(record.name):
        return "not checked"
    if empty:
        return "not met"
    try:
        return _OF_VERDICT[Instruction.from_record(record).verdict(text)]
    except UserError:
        raise
    except Exception as error:  # e.g. in a user's own function
        raise UserError(
            f"instruction {record.name!r}: its checker failed on the answer {text.text[:60]!r}: "
            f"{type(error).__name__}: {first_line(error)}. Fix the function, or set evaluation.own_prompts=0."
        ) from error


def _asked(kinds: Mapping[int, str], instructions: Sequence[Sequence[Any]]) -> int | None:
    """Index of x+, or of the first prompt with instructions in a layout without inter relations."""
    named = [place for place, kind in kinds.items() if kind == "x+" and instructions[place]]
    return next(iter(named), next((place for place, some in enumerate(instructions) if some), None))
