"""Rewards of original pairs, and the uses of their margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mapl_ray.config import PairMarginConfig
from mapl_ray.data.records import Judgement, Level, PreferencePair, Rejection, Relation, RelationGroup
from mapl_ray.data.records import Sequence as Cell
from mapl_ray.scoring.protocol import Scorer
from mapl_ray.scoring.score_groups import score_groups

Rewards = tuple[float, float]  # r(x, chosen), r(x, rejected)


def score_pairs(pairs: Sequence[PreferencePair], scorer: Scorer) -> list[Rewards | Rejection]:
    """Rewards of both responses, or a rejection: too long, or not finite."""
    results: list[Rewards | Rejection] = []
    for scored in score_groups([pair_group(pair) for pair in pairs], scorer, "rewards"):
        if isinstance(scored, Rejection):
            results.append(scored)
        else:
            chosen, rejected = scored.rewards or ()
            results.append((chosen, rejected))
    return results


def with_scores(
    pair: PreferencePair,
    config: PairMarginConfig,
    rewards: Mapping[str, Rewards],
    judgements: Mapping[str, Sequence[Judgement]],
) -> PreferencePair | Rejection:
    """Add judgements and the margin to a pair, or reject it by its margin.

    Both mappings are by pair id. A pair that the judge or reward model could not score is kept, except that
    `min_margin` rejects it, and `fill_margin` sets its margin to null, so that the column has one scale.
    """
    pair = replace(pair, judgements=(*pair.judgements, *judgements.get(pair.pair_id, ())))
    found = rewards.get(pair.pair_id)
    margin = None if found is None else found[0] - found[1]
    if config.min_margin is not None:
        bound = f"scoring.pair_margin.min_margin={config.min_margin:g}"
        if margin is None:
            return _rejection(pair, f"no reward, so no margin to compare with {bound}")
        if margin < config.min_margin:
            return _rejection(pair, f"margin {margin:+.4f} under the reward model is below {bound}")
    return replace(pair, margin=margin) if config.fill_margin else pair


def pair_group(pair: PreferencePair) -> RelationGroup:
    """The pair as a group with one prompt and two sequences."""
    return RelationGroup(
        pair_id=pair.pair_id,
        prompts=(pair.prompt,),
        instructions=((),),
        responses=(pair.chosen, pair.rejected),
        sequences=(Cell(0, 0, ()), Cell(0, 1, ())),
        relations=(Relation(Level.PREF, (0,), (1,)),),
        source=pair.source,
    )


def _rejection(pair: PreferencePair, reason: str) -> Rejection:
    return Rejection(pair.source, -1, pair.pair_id, "score", reason)
