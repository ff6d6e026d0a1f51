"""Verify a group from its stored records: every flag, and the condition of every relation."""

from __future__ import annotations

from collections.abc import Sequence

from mapl_ray.data.records import Level, Relation, RelationGroup
from mapl_ray.data.records import Sequence as Cell
from mapl_ray.errors import UserError
from mapl_ray.instructions import Instruction, features_of
from mapl_ray.synthesis.draw import Condition
from mapl_ray.synthesis.join import last_user_turn


def verify_group(group: RelationGroup, condition: Condition | None = None) -> list[str]:
    """Return the problems of a group; empty if it is as docs/method.md defines.

    `condition` is `all` or `any`; None accepts either, but the same for the whole group.
    """
    problems = _structure(group) or [*_prompts(group), *_flags(group)]
    if problems:
        return problems
    found = [_relations(group, one) for one in (("all", "any") if condition is None else (condition,))]
    return min(found, key=len)


def _structure(group: RelationGroup) -> list[str]:
    problems: list[str] = []
    if len(group.instructions) != len(group.prompts) or not group.prompts or group.instructions[0]:
        problems.append("instructions: expected one list per prompt, empty for the original")
    if len(group.responses) != 2:
        problems.append(f"responses: expected chosen and rejected, got {len(group.responses)}")
    if not group.relations:
        problems.append("relations: expected at least one, got none")
    for index, cell in enumerate(group.sequences):
        if not (0 <= cell.prompt < len(group.prompts) and 0 <= cell.response < len(group.responses)):
            problems.append(f"sequence {index}: no prompt {cell.prompt} or no response {cell.response}")
    for index, relation in enumerate(group.relations):
        cells = (*relation.preferred, *relation.dispreferred)
        if not all(0 <= cell < len(group.sequences) for cell in cells) or len(set(cells)) != len(cells):
            problems.append(f"relation {index}: {cells} are not different sequences of the group")
    return problems


def _prompts(group: RelationGroup) -> list[str]:
    problems: list[str] = []
    turn = last_user_turn(group.prompts[0])
    if turn is None:
        return ["prompt 0: no user turn"]
    original = group.prompts[0]
    for index, prompt in enumerate(group.prompts[1:], start=1):
        same = len(prompt) == len(original) and all(
            here == there for i, (here, there) in enumerate(zip(prompt, original, strict=True)) if i != turn
        )
        if not same or not prompt[turn].content.startswith(original[turn].content):
            problems.append(f"prompt {index}: does not continue the original's last user turn")
            continue
        added = prompt[turn].content[len(original[turn].content) :]
        if any(record.text not in added for record in group.instructions[index]):
            problems.append(f"prompt {index}: an instruction is missing from its text")
    return problems


def _flags(group: RelationGroup) -> list[str]:
    problems: list[str] = []
    responses = [features_of(response) for response in group.responses]
    try:
        instructions = [[Instruction.from_record(record) for record in records] for records in group.instructions]
        # A soft instruction also raises for a response that was never judged.
        verdicts = [tuple(i.verdict(responses[c.response]) for i in instructions[c.prompt]) for c in group.sequences]
    except UserError as error:
        return [str(error)]
    for index, (cell, actual) in enumerate(zip(group.sequences, verdicts, strict=True)):
        if actual != cell.satisfied:
            problems.append(
                f"sequence {index}: satisfied is {cell.satisfied}, the verdicts are {actual} (None: readings differ)"
            )
    return problems


def _relations(group: RelationGroup, condition: Condition) -> list[str]:
    return [
        f"relation {index} ({relation.level}): its sequences do not meet condition {condition!r}"
        for index, relation in enumerate(group.relations)
        if not _holds(group, relation, condition)
    ]


def _holds(group: RelationGroup, relation: Relation, condition: Condition) -> bool:
    preferred = [group.sequences[i] for i in relation.preferred]
    dispreferred = [group.sequences[i] for i in relation.dispreferred]
    cells = [(cell.prompt, cell.response) for cell in (*preferred, *dispreferred)]
    if relation.level is Level.PREF:
        return cells == [(0, 0), (0, 1)]
    if relation.level is Level.INTRA:
        return _intra(preferred, dispreferred, condition)
    if len(preferred) != 2 or len(dispreferred) != 2:
        return False
    # docs/method.md: widening (x+,c) (x,r) over (x+,r) (x,c); narrowing (x,c) (x-,r) over (x,r) (x-,c).
    widening = relation.level is Level.INTER_WIDENING
    winner, loser = (preferred[0], dispreferred[0]) if widening else (preferred[1], dispreferred[1])
    best = 0 if widening else 1
    x = winner.prompt
    expected = [(x, 0), (0, 1), (x, 1), (0, 0)] if widening else [(0, 0), (x, 1), (0, 1), (x, 0)]
    return x != 0 and cells == expected and winner.response == best and _separates(winner, loser, condition)


def _intra(preferred: Sequence[Cell], dispreferred: Sequence[Cell], condition: Condition) -> bool:
    if len(preferred) != 1 or len(dispreferred) != 1:
        return False
    (winner,), (loser,) = preferred, dispreferred
    same = winner.response == loser.response and winner.prompt != loser.prompt
    return same and min(winner.prompt, loser.prompt) > 0 and _separates(winner, loser, condition)


def _separates(winner: Cell, loser: Cell, condition: Condition) -> bool:
    """(all) the winner satisfies every instruction, the loser not; (any) the winner at least one, the loser none."""
    if condition == "all":
        return all(winner.satisfied) and not all(loser.satisfied)
    return any(winner.satisfied) and not any(loser.satisfied)
