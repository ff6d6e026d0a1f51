"""The decorator that registers a draw function as an instruction function.

An example of a user's own function, in the user's module:

    @instruction_function(
        family="topic",
        check=lambda text, args: args["sign"] in text.text,
        phrasings=lambda args: [f"Use the sign {args['sign']}.", f"The sign {args['sign']} must occur."],
    )
    def currency_sign(case: Case, rng: random.Random) -> Args | None:
        signs = [s for s in "$€£" if all((s in text.text) == flag for text, flag in case.flags)]
        return {"sign": rng.choice(signs)} if signs else None
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mapl_ray.instructions.claims import Claims
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.types import Args, Case, IfEval, InstructionFunction, Sides, register
from mapl_ray.instructions.verdicts import Verdict

Draw: TypeAlias = Callable[[Case, random.Random], Args | None]


def instruction_function(
    *,
    family: str,
    check: Callable[[Features, Args], bool],
    phrasings: Callable[[Args], Sequence[str]],
    name: str | None = None,
    quantity: str | None = None,
    ifeval: Callable[[Args], IfEval | None] | None = None,
    claims: Callable[[Args], Claims] | None = None,
    size: bool = False,
    sides: Sides = "two",
    readings: Callable[[Features, Args], Verdict] | None = None,
    spaced: bool = False,
) -> Callable[[Draw], InstructionFunction]:
    """Register the decorated function, which draws JSON-serializable arguments for a `Case` or returns None.

    `name` defaults to the function's name, `quantity` to `name`. Instructions are checked on every text of the case
    before they are used, so a wrong draw only costs a redraw. `readings` returns the verdict of readings other than
    `check`, or None if they differ; no instruction is drawn if one of them disagrees with `check`.
    """

    def decorate(draw: Draw) -> InstructionFunction:
        own_name = name if name is not None else getattr(draw, "__name__", "unnamed")
        return register(
            InstructionFunction(
                name=own_name,
                family=family,
                quantity=quantity if quantity is not None else own_name,
                draw=draw,
                check=check,
                phrasings=phrasings,
                ifeval=ifeval,
                claims=claims,
                size=size,
                sides=sides,
                readings=readings,
                spaced=spaced,
            )
        )

    return decorate
