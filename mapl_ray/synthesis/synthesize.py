"""One preference pair -> one relation group, or the reason why not."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence as SequenceOf

from mapl_ray.config import SynthesisConfig
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY, Instruction, InstructionFunction, features_of, lookup
from mapl_ray.records import PreferencePair, Rejection, Relation, RelationGroup, Sequence
from mapl_ray.synthesis.draw import Contrast, PairFeatures, draw_contrast, draw_functions
from mapl_ray.synthesis.grid import GRID_CELLS, GRID_CONTRASTS, GRID_RELATIONS
from mapl_ray.synthesis.independent import INDEPENDENT_CELLS, INDEPENDENT_CONTRASTS, INDEPENDENT_RELATIONS
from mapl_ray.synthesis.join import join_prompt, last_user_turn
from mapl_ray.synthesis.verify import verify_group

Cells = tuple[tuple[int, int], ...]
_LAYOUTS: dict[str, tuple[int, Cells, tuple[Relation, ...]]] = {
    "grid": (GRID_CONTRASTS, GRID_CELLS, GRID_RELATIONS),
    "independent": (INDEPENDENT_CONTRASTS, INDEPENDENT_CELLS, INDEPENDENT_RELATIONS),
}


def synthesize(pair: PreferencePair, config: SynthesisConfig, seed: int) -> RelationGroup | Rejection:
    """The relation group of a pair. Pure: depends on (pair, config, seed) alone.

    Every flag and condition of the group is checked again from its records before it is handed out. Raises `UserError`
    for a config that names unknown functions, or too few.
    """
    functions = select_functions(config)
    turn = last_user_turn(pair.prompt)
    if turn is None:
        return _rejection(pair, "prompt: no user turn; instructions are joined with the last one")
    if pair.chosen == pair.rejected:
        return _rejection(pair, "chosen and rejected are the same text: no instruction tells them apart")
    rng = _rng(seed, pair.pair_id)
    k = rng.randint(config.min_instructions, config.max_instructions)
    texts = PairFeatures(features_of(pair.chosen), features_of(pair.rejected), features_of(pair.prompt[turn].content))
    count, cells, relations = _LAYOUTS[config.layout]
    contrasts: list[Contrast] = []
    for _ in range(count):
        contrast = _draw(texts, functions, k, config, rng)
        if contrast is None:
            return _rejection(
                pair,
                f"none of {config.attempts} draws of {k} instruction functions separates chosen and rejected in both "
                f"directions (condition {config.condition!r}); raise synthesis.attempts or allow more functions",
            )
        contrasts.append(contrast)
    group = _assemble(pair, texts, contrasts, cells, relations, rng)
    problems = verify_group(group, config.condition)
    return _rejection(pair, "; ".join(problems)) if problems else group


def _draw(
    texts: PairFeatures,
    functions: SequenceOf[InstructionFunction],
    k: int,
    config: SynthesisConfig,
    rng: random.Random,
) -> Contrast | None:
    for _ in range(config.attempts):
        drawn = draw_functions(functions, k, rng)
        # Functions of the config's own choice may not fit together k at a time: then as many as do.
        if len(drawn) < config.min_instructions:
            continue
        contrast = draw_contrast(texts, drawn, config.condition, rng)
        if contrast is not None:
            return contrast
    return None


def _assemble(
    pair: PreferencePair,
    texts: PairFeatures,
    contrasts: SequenceOf[Contrast],
    cells: Cells,
    relations: tuple[Relation, ...],
    rng: random.Random,
) -> RelationGroup:
    prompts = [pair.prompt]
    instructions: list[tuple[Instruction, ...]] = [()]
    for contrast in contrasts:
        layout = rng.getrandbits(64)  # one for both sides: nothing but the arguments differ
        for side in (contrast.plus, contrast.minus):
            prompts.append(join_prompt(pair.prompt, side, random.Random(layout)))
            instructions.append(side)
    responses = (texts.chosen, texts.rejected)
    return RelationGroup(
        pair_id=pair.pair_id,
        prompts=tuple(prompts),
        instructions=tuple(tuple(i.to_record() for i in side) for side in instructions),
        responses=(pair.chosen, pair.rejected),
        sequences=tuple(
            Sequence(prompt, response, tuple(i.check(responses[response]) for i in instructions[prompt]))
            for prompt, response in cells
        ),
        relations=relations,
        source=pair.source,
        margin=pair.margin,
    )


def select_functions(config: SynthesisConfig) -> list[InstructionFunction]:
    """The functions that the config allows. Raises `UserError` for unknown names, or too few."""
    if config.functions is None:
        return list(REGISTRY.values())
    if not config.functions:
        raise UserError("synthesis.functions is empty: name at least one function, or leave it out to take all.")
    functions = [lookup(name) for name in dict.fromkeys(config.functions)]
    quantities = len({function.quantity for function in functions})
    if quantities < config.min_instructions:
        raise UserError(
            f"synthesis.min_instructions={config.min_instructions}, but only {quantities} of the functions named in "
            "synthesis.functions can stand in one prompt. Name more functions, or lower it."
        )
    return functions


def _rng(seed: int, pair_id: str) -> random.Random:
    digest = hashlib.sha256(f"{seed}\n{pair_id}".encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _rejection(pair: PreferencePair, reason: str) -> Rejection:
    return Rejection(source=pair.source, row=-1, pair_id=pair.pair_id, stage="synthesize", reason=reason)
