"""Convert one preference pair to a relation group, or to a rejection with the reason."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence as SequenceOf
from dataclasses import replace

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import Message, PreferencePair, Rejection, Relation, RelationGroup, Sequence
from mapl_ray.errors import UserError
from mapl_ray.instructions import Instruction, features_of
from mapl_ray.synthesis.draw import (
    Contrast,
    Families,
    PairFeatures,
    draw_contrast,
    draw_functions,
)
from mapl_ray.synthesis.join import join_prompt, last_user_turn
from mapl_ray.synthesis.layouts import (
    GRID_CELLS,
    GRID_CONTRASTS,
    GRID_RELATIONS,
    INDEPENDENT_CELLS,
    INDEPENDENT_CONTRASTS,
    INDEPENDENT_RELATIONS,
)
from mapl_ray.synthesis.select import confident_judgements, drawable_families
from mapl_ray.synthesis.tally import Tally
from mapl_ray.synthesis.verify import verify_group

Cells = tuple[tuple[int, int], ...]
_LAYOUTS: dict[str, tuple[int, Cells, tuple[Relation, ...]]] = {
    "grid": (GRID_CONTRASTS, GRID_CELLS, GRID_RELATIONS),
    "independent": (INDEPENDENT_CONTRASTS, INDEPENDENT_CELLS, INDEPENDENT_RELATIONS),
}


def synthesize_all(
    pair: PreferencePair, config: SynthesisConfig, seed: int, tally: Tally | None = None
) -> list[RelationGroup | Rejection]:
    """Convert one pair to `groups_per_pair` groups or rejections, each with other instructions and its own id.

    The first is `synthesize(pair, ...)`; the others have the ids `pair_id#2`, `pair_id#3`, ... Counts and raises as
    `synthesize` does.
    """
    if config.groups_per_pair > 1 and re.search(r"#\d+\Z", pair.pair_id):
        reason = (
            f"pair_id={pair.pair_id!r}: ends like the ids of further groups; expected no #NUMBER with groups_per_pair"
        )
        return [_rejection(pair, reason)] * config.groups_per_pair
    results: list[RelationGroup | Rejection] = []
    prompts: set[tuple[tuple[Message, ...], ...]] = set()
    for number in range(1, config.groups_per_pair + 1):
        # The id is part of the seed, so another id gives other draws.
        named = pair if number == 1 else replace(pair, pair_id=f"{pair.pair_id}#{number}")
        result = synthesize(named, config, seed, tally)
        if isinstance(result, RelationGroup):
            if result.prompts in prompts:
                result = _rejection(named, "the same prompts as an earlier group of this pair; allow more functions")
            else:
                prompts.add(result.prompts)
        results.append(result)
    return results


def synthesize(
    pair: PreferencePair, config: SynthesisConfig, seed: int, tally: Tally | None = None
) -> RelationGroup | Rejection:
    """Make the relation group of a pair. Pure: depends only on (pair, config, seed); attempts are counted in `tally`.

    Every flag and condition of the group is verified from its records before it is returned. Held-out families and
    phrasings are used too: for the train split, pass `config.for_training()`. Raises `UserError` for a config that
    names unknown functions, families or modules, or leaves too few functions.
    """
    turn = last_user_turn(pair.prompt)
    if turn is None:
        return _rejection(pair, "prompt: no user turn; instructions are appended to the last one")
    if pair.chosen == pair.rejected:
        return _rejection(pair, "chosen and rejected are the same text: no instruction separates them")
    try:
        texts = _features(pair, pair.prompt[turn].content, config)
    except UserError as error:
        return _rejection(pair, str(error))
    families = drawable_families(config, texts.judgements)
    if not families:
        return _rejection(
            pair,
            "every function that the config allows is soft, and none has judgements of both responses that reach "
            f"synthesis.soft_confidence={config.soft_confidence}",
        )
    rng = _rng(seed, pair.pair_id)
    k = _draw_k(config, rng)
    tally = Tally() if tally is None else tally
    tally.pairs[k] += 1
    count, cells, relations = _LAYOUTS[config.layout]
    contrasts: list[Contrast] = []
    for _ in range(count):
        contrast = _draw(texts, families, k, config, rng, tally)
        if contrast is None:
            return _rejection(
                pair,
                f"none of {config.attempts} draws of {k} instruction functions separates chosen and rejected in both "
                f"directions (condition {config.condition!r}); raise synthesis.attempts or allow more functions",
            )
        contrasts.append(contrast)
    group = _assemble(pair, texts, contrasts, cells, relations, rng)
    if problems := verify_group(group, config.condition):
        return _rejection(pair, "; ".join(problems))
    tally.groups[k] += 1
    return group


def _features(pair: PreferencePair, prompt: str, config: SynthesisConfig) -> PairFeatures:
    chosen, rejected = features_of(pair.chosen), features_of(pair.rejected)
    if not pair.judgements:
        return PairFeatures(chosen, rejected, features_of(prompt))
    judgements = confident_judgements(pair.judgements, chosen, rejected, config.soft_confidence)
    return PairFeatures(chosen, rejected, features_of(prompt), judgements)


def _draw_k(config: SynthesisConfig, rng: random.Random) -> int:
    if config.k_weights is None:
        return rng.randint(config.min_instructions, config.max_instructions)
    numbers = sorted(config.k_weights)
    return rng.choices(numbers, [config.k_weights[k] for k in numbers])[0]


def _draw(
    texts: PairFeatures, families: Families, k: int, config: SynthesisConfig, rng: random.Random, tally: Tally
) -> Contrast | None:
    for _ in range(config.attempts):
        drawn = draw_functions(families, k, rng)
        # With the functions that the config allows, fewer than k may fit together: then use as many as do.
        if len(drawn) < config.least_instructions:
            continue
        contrast = draw_contrast(texts, drawn, config.condition, rng, tally, config.seen_phrasings_only)
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
        layout = rng.getrandbits(64)  # the same for both sides, so that only the arguments differ
        for side in (contrast.plus, contrast.minus):
            prompts.append(join_prompt(pair.prompt, side, layout))
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


def _rng(seed: int, pair_id: str) -> random.Random:
    digest = hashlib.sha256(f"{seed}\n{pair_id}".encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _rejection(pair: PreferencePair, reason: str) -> Rejection:
    return Rejection(source=pair.source, row=-1, pair_id=pair.pair_id, stage="synthesize", reason=reason)
