"""Soft functions: properties that only a judge model can check, by a yes/no question about each response.

The judge's p(yes) comes with the pair (`PreferencePair.judgements`). An instruction's arguments store p(yes) of the
texts that it was drawn for, by digest, so that it can be checked from the stored record:

    {"use": true, "judged": {"<digest>": 0.97, "<digest>": 0.04}}
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from mapl_ray.errors import UserError
from mapl_ray.instructions.claims import absent, all_of, used
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.types import Args, Case, InstructionFunction, register


def soft_function(
    name: str,
    family: str,
    question: str,
    use: Sequence[str],
    avoid: Sequence[str],
    *,
    quantity: str | None = None,
    against: Iterable[str] = (),
) -> InstructionFunction:
    """Register a property that a judge checks; `use[i]` and `avoid[i]` are the two sides of one wording.

    `question` is about one response, and the answer is yes if it has the property. Arguments: `use`, a bool, and
    `judged`, p(yes) by digest. Only drawn for judged texts; checking any other text raises `UserError`.
    """

    def draw(case: Case, rng: random.Random) -> Args | None:
        judged: dict[str, float] = {}
        sides: set[bool] = set()
        for text, flag in case.flags:
            p = case.judgements.get(text.digest, {}).get(name)
            if p is None:
                return None
            judged[text.digest] = p
            sides.add((p >= 0.5) == flag)
        return {"use": sides.pop(), "judged": judged} if len(sides) == 1 else None

    counted = quantity or name
    against = tuple(against)
    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=counted,
            draw=draw,
            check=_check_of(name, question),
            phrasings=lambda args: use if args["use"] else avoid,
            claims=lambda args: all_of(
                used(counted, args["use"]), *(absent(other) for other in against if args["use"])
            ),
            sides="soft",
            question=question,
            validate=_validate,
        )
    )


def _check_of(name: str, question: str) -> Callable[[Features, Args], bool]:
    def check(text: Features, args: Args) -> bool:
        p = args["judged"].get(text.digest)
        if p is None:
            raise UserError(
                f"instruction {name!r}: the response {text.text[:40]!r} (digest {text.digest}) was never judged; "
                f"judged digests: {', '.join(args['judged']) or 'none'}. Have a judge answer {question!r} for it first "
                "(PreferencePair.judgements), then draw the instruction again."
            )
        return bool((p >= 0.5) == args["use"])

    return check


def _validate(args: Args) -> None:
    if set(args) != {"use", "judged"} or not isinstance(args["use"], bool):
        raise ValueError("expected use: true or false, and judged")
    for digest, p in args["judged"].items():
        if not isinstance(digest, str) or not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
            raise ValueError(f"judged: expected one probability per digest, got {digest!r}: {p!r}")
