"""Select the instruction functions that a config allows and that a pair can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import Judgement
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY, Features, InstructionFunction, lookup
from mapl_ray.synthesis.draw import Families, weighted_families
from mapl_ray.synthesis.user_modules import load_modules

_DRAWABLE: dict[tuple[str, frozenset[str], tuple[str, ...]], Families] = {}
_DIGITS = 4  # digits of p(yes) that are compared: a float32 column preserves them


def select_functions(config: SynthesisConfig) -> list[InstructionFunction]:
    """The functions that the config allows, including the user's own.

    Raises `UserError` for unknown names or families, too few functions, or a module that can't be imported.
    """
    if config.modules:
        load_modules(config.modules)
    if config.functions is None and not config.family_weights and not config.held_out_families:
        return list(REGISTRY.values())
    if config.functions is not None and not config.functions:
        raise UserError("synthesis.functions is empty: name at least one function, or leave it out to use all.")
    named = REGISTRY.values() if config.functions is None else map(lookup, dict.fromkeys(config.functions))
    _check_families(config)
    functions = [function for function in named if config.family_weights.get(function.family, 1.0) > 0]
    quantities = len({function.quantity for function in functions})
    if quantities < config.least_instructions:
        raise UserError(
            f"synthesis.min_instructions={config.least_instructions}, but only {quantities} of the functions that "
            "synthesis.functions, family_weights and held_out_families allow can be combined in one prompt. Allow more "
            "functions, or lower min_instructions."
        )
    return functions


def _check_families(config: SynthesisConfig) -> None:
    known = {function.family for function in REGISTRY.values()}
    for key, names in (("family_weights", config.family_weights), ("held_out_families", config.held_out_families)):
        for name in names:
            if name not in known:
                raise UserError(f"synthesis.{key}: no family {name!r}. Known: {', '.join(sorted(known))}.")


def confident_judgements(
    judgements: Sequence[Judgement], chosen: Features, rejected: Features, confidence: float
) -> dict[str, dict[str, float]]:
    """Digest of a response -> soft function -> p(yes), for functions judged with enough confidence on both responses.

    Raises `UserError` for a judgement of anything but a soft function.
    """
    found: dict[str, dict[str, float]] = {chosen.digest: {}, rejected.digest: {}}
    for judgement in judgements:
        function = REGISTRY.get(judgement.name)
        if function is None or function.sides != "soft":
            soft = ", ".join(sorted(name for name, known in REGISTRY.items() if known.sides == "soft"))
            raise UserError(f"judgements: {judgement.name!r} is not a soft instruction function. Known: {soft}.")
        p = [(chosen, round(judgement.chosen, _DIGITS)), (rejected, round(judgement.rejected, _DIGITS))]
        if all(max(yes, round(1.0 - yes, _DIGITS)) >= confidence for _, yes in p):
            for text, yes in p:
                found[text.digest][judgement.name] = yes
    return found


def drawable_families(config: SynthesisConfig, judgements: Mapping[str, Mapping[str, float]]) -> Families:
    """Families to draw a pair's instructions from; empty if only soft functions are allowed and none is usable.

    Cached per config and set of judged functions. Raises as `select_functions` does.
    """
    judged = frozenset(name for of_text in judgements.values() for name in of_text)
    key = (config.digest, judged, tuple(REGISTRY))
    if key not in _DRAWABLE:
        if len(_DRAWABLE) > 256:
            _DRAWABLE.clear()
        usable = usable_functions(select_functions(config), judgements)
        key = (config.digest, judged, tuple(REGISTRY))  # `select_functions` may have imported user modules
        _DRAWABLE[key] = weighted_families(usable, config.family_weights)
    return _DRAWABLE[key]


def usable_functions(
    functions: Sequence[InstructionFunction], judgements: Mapping[str, Mapping[str, float]]
) -> list[InstructionFunction]:
    """The functions without soft ones that have no confident judgement: drawing those would only waste attempts."""
    judged = {name for of_text in judgements.values() for name in of_text}
    return [function for function in functions if function.sides != "soft" or function.name in judged]
