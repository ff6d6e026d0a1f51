"""Draw one contrast for a pair of texts: instructions of the same functions G1 with two sets of arguments.

`plus` is written for the chosen response, `minus` for the rejected one (docs/method.md, "The two data sets"):
(all) the winner satisfies every instruction and the loser violates at least one;
(any) the winner satisfies at least one instruction and the loser violates every one.

Both sides are drawn by the same rule with the responses swapped. A prompt of either side is preferred for one response
and dispreferred for the other, so neither its words nor its numbers reveal its side.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from mapl_ray.instructions import Case, Company, Features, Instruction, InstructionFunction
from mapl_ray.instructions.weights import family_weight, weight_of
from mapl_ray.synthesis.tally import Tally

T = TypeVar("T")
Condition = Literal["all", "any"]
_TRIES = 3  # draws of an instruction before giving up on its function


class Family(NamedTuple):
    """The drawable functions of one family."""

    weight: float
    members: Sequence[InstructionFunction]
    weights: Sequence[float]  # one per member


Families: TypeAlias = Sequence[Family]


@dataclass(frozen=True, slots=True)
class PairFeatures:
    """Features of the texts of one pair, and its judgements."""

    chosen: Features
    rejected: Features
    prompt: Features  # the text of the last user turn
    judgements: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # see `Case.judgements`


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two equally long lists of instructions, from the same functions in the same order."""

    plus: tuple[Instruction, ...]
    minus: tuple[Instruction, ...]


class _Slot(NamedTuple):
    function: InstructionFunction
    wording: int  # the same for both sides, so that only the arguments differ
    seen_only: bool  # exclude held-out phrasings


def weighted_families(functions: Sequence[InstructionFunction], weights: Mapping[str, float]) -> Families:
    """Group functions by family, in an order that depends only on names; `weights` multiply the families' weights."""
    families: dict[str, list[InstructionFunction]] = {}
    for function in sorted(functions, key=lambda function: function.name):
        families.setdefault(function.family, []).append(function)
    return [
        Family(family_weight(family) * weights.get(family, 1.0), members, [weight_of(one.name) for one in members])
        for family, members in sorted(families.items())
    ]


def draw_functions(families: Families, k: int, rng: random.Random) -> list[InstructionFunction]:
    """Draw G1: k functions that can be combined, or fewer if no more fit together.

    Families are drawn first, in proportion to their weights and without replacement, so that no family dominates.
    """
    waiting: Iterable[Iterator[InstructionFunction]] = (
        _in_order(family.members, family.weights, rng)
        for family in _in_order(families, [one.weight for one in families], rng)
    )
    chosen: list[InstructionFunction] = []
    # Take one function of every family before a second one of any family.
    while len(chosen) < k and waiting:
        left = []
        for members in waiting:
            if len(chosen) == k:
                break
            function = next((one for one in members if _fits(one, chosen)), None)
            if function is not None:
                chosen.append(function)
                left.append(members)
        waiting = left
    return chosen


def _in_order(items: Sequence[T], weights: Sequence[float], rng: random.Random) -> Iterator[T]:
    """Items in the order of weighted draws without replacement, which is the order of exponential waiting times.

    The times (`rng.expovariate(weight)`, inlined) are drawn with the first item. Nothing is sorted, because most items
    are never requested; each step searches for the minimum.
    """
    uniform, log = rng.random, math.log
    times = [-log(1.0 - uniform()) / weight for weight in weights]
    left = [*items]
    while left:
        index = times.index(min(times))
        del times[index]
        yield left.pop(index)


def _fits(function: InstructionFunction, chosen: Sequence[InstructionFunction]) -> bool:
    return all(function.quantity != other.quantity for other in chosen)


def draw_contrast(
    pair: PairFeatures,
    functions: Sequence[InstructionFunction],
    condition: Condition,
    rng: random.Random,
    tally: Tally,
    seen_phrasings_only: bool = False,
) -> Contrast | None:
    """Draw both sides for one G1, or return None if its functions cannot separate the responses in both directions.

    `tally` counts the requests to each function and its successes.
    """
    slots = [_Slot(function, rng.getrandbits(32), seen_phrasings_only) for function in functions]
    tally.draws[len(slots)] += 1
    plus = _draw_side(slots, pair.chosen, pair.rejected, pair, condition, rng, tally)
    if plus is None:
        return None
    minus = _draw_side(slots, pair.rejected, pair.chosen, pair, condition, rng, tally)
    if minus is None:
        return None
    tally.separating[len(slots)] += 1
    return Contrast(plus, minus)


def _draw_side(
    slots: Sequence[_Slot],
    winner: Features,
    loser: Features,
    pair: PairFeatures,
    condition: Condition,
    rng: random.Random,
    tally: Tally,
) -> tuple[Instruction, ...] | None:
    """Instructions, in the order of slots, that the winner satisfies and the loser violates under the condition."""
    drawn: dict[int, Instruction] = {}
    cases: dict[tuple[bool, bool], Case] = {}
    beside = Company()
    separated = False
    for index in _random_order(len(slots), rng):
        instruction = None
        tally.asked[slots[index].function.name] += 1
        last = len(drawn) == len(slots) - 1
        for flags in _flag_order(condition, separated, last, rng):
            if not _satisfiable(slots[index], flags, drawn, slots, winner):
                continue
            if flags not in cases:
                texts = (winner, flags[0]), (loser, flags[1])
                cases[flags] = Case(texts, (pair.prompt,), pair.judgements, pair.prompt)
            instruction = _draw_slot(slots[index], cases[flags], beside, rng)
            if instruction is not None:
                separated |= flags == (True, False)
                break
        if instruction is None:
            return None
        tally.written[slots[index].function.name] += 1
        drawn[index] = instruction
    return tuple(drawn[index] for index in range(len(slots))) if separated else None


def _random_order(number: int, rng: random.Random) -> list[int]:
    """Same draws as `rng.sample(range(number), number)`, without the checks that take most of its time."""
    order = [*range(number)]
    drawn = []
    for left in range(number, 0, -1):
        place = rng.randrange(left)
        drawn.append(order[place])
        order[place] = order[left - 1]
    return drawn


def _flag_order(condition: Condition, separated: bool, last: bool, rng: random.Random) -> list[tuple[bool, bool]]:
    """(flag of the winner, flag of the loser) in the order to try; at least one slot must separate the two."""
    separating = (True, False)
    neutral = (True, True) if condition == "all" else (False, False)
    if last and not separated:
        return [separating]
    if separated and rng.random() < 0.5:
        return [neutral, separating]
    return [separating, neutral]


def _satisfiable(
    slot: _Slot, flags: tuple[bool, bool], drawn: dict[int, Instruction], slots: Sequence[_Slot], winner: Features
) -> bool:
    """Whether one response can satisfy all: the winner does, or no two size functions conflict."""
    if not slot.function.size:
        return True
    others = [drawn[index] for index in drawn if slots[index].function.size]
    return not others or (flags[0] and all(other.check(winner) for other in others))


def _draw_slot(slot: _Slot, case: Case, beside: Company, rng: random.Random) -> Instruction | None:
    for _ in range(_TRIES):
        instruction = slot.function.generate_for(case, rng, slot.wording, slot.seen_only)
        if instruction is None:
            return None
        if beside.take(instruction):
            return instruction
    return None
