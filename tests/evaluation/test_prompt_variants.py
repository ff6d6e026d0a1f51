"""Unseen phrasings, other orders, other words: what changes, and what may not."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.data.records import InstructionRecord, PreferencePair, RelationGroup
from mapl_ray.evaluation.by_family import accuracy_by_phrasing
from mapl_ray.evaluation.column_table import is_unseen_wording
from mapl_ray.evaluation.columns import columns_of_groups, flat_rewards, relation_margins
from mapl_ray.evaluation.invariance import ScoredVariant, invariance
from mapl_ray.evaluation.variants import UNSEEN_PHRASING, reordered, rephrased, variant_kinds, variant_of
from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.phrasing import fill, held_out_wordings, seen_wordings
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import synthesize, verify_group

CONFIG = SynthesisConfig(held_out_phrasings=True, max_instructions=4)


def groups_of(config: SynthesisConfig) -> list[RelationGroup]:
    pairs = [pair for pair in read_pairs(DataConfig(limit=60)) if isinstance(pair, PreferencePair)]
    made = [synthesize(pair, config, 0) for pair in pairs]
    return [group for group in made if isinstance(group, RelationGroup)]


@pytest.fixture(scope="module")
def groups() -> list[RelationGroup]:
    """Of the held-out split."""
    return groups_of(CONFIG)


def records(groups: list[RelationGroup]) -> list[InstructionRecord]:
    return [record for group in groups for some in group.instructions for record in some]


def test_the_last_wording_is_held_out() -> None:
    wordings = fill(["Use {n}.", "Give {n}.", "Write {n}."], n=5)
    assert [wordings[index] for index in held_out_wordings(wordings)] == ["Write 5."]
    assert [wordings[i] for i in seen_wordings(wordings)] == ["Use 5.", "Give 5."]
    assert [*held_out_wordings(["a", "b", "c"])] == [2]
    assert ([*held_out_wordings(["a"])], [*seen_wordings(["a"])]) == ([], [0])


def test_training_never_meets_a_held_out_phrasing(groups: list[RelationGroup]) -> None:
    trained = records(groups_of(CONFIG.for_training()))
    assert len(trained) > 100
    assert not [record for record in trained if is_unseen_wording(record)]
    kinds = Counter(map(is_unseen_wording, records(groups)))
    assert kinds[True] > 20
    assert kinds[False] > 20


def test_without_the_option_nothing_changes() -> None:
    plain = SynthesisConfig(max_instructions=4)
    assert groups_of(plain.for_training()) == groups_of(plain) == groups_of(CONFIG)


def test_another_order_keeps_all_but_the_order(groups: list[RelationGroup]) -> None:
    several = [group for group in groups if len(group.instructions[1]) > 1]
    assert several
    assert all(reordered(group) is None for group in groups if len(group.instructions[1]) == 1)
    for group in several:
        other = reordered(group)
        assert other is not None
        assert other.instructions == tuple(tuple(reversed(some)) for some in group.instructions)
        assert verify_group(other, CONFIG.condition) == []
        assert other.prompts[0] == group.prompts[0]
        for before, after in zip(group.prompts[1:], other.prompts[1:], strict=True):
            assert sorted(before[-1].content) == sorted(after[-1].content)
            assert before != after
        assert reordered(other) == group


def test_other_words_keep_all_but_the_words(groups: list[RelationGroup]) -> None:
    for group in groups:
        other = rephrased(group, random.Random(0))
        assert other is not None
        assert verify_group(other, CONFIG.condition) == []
        for before, after in zip(group.instructions, other.instructions, strict=True):
            assert [(r.name, r.args) for r in before] == [(r.name, r.args) for r in after]
        for prompt, some in zip(other.prompts, other.instructions, strict=True):
            assert all(record.text in prompt[-1].content for record in some)
            assert all(record.text in REGISTRY[record.name].phrasings(record.args) for record in some)
    unseen = [variant_of(group, UNSEEN_PHRASING, 0) for group in groups]
    found = [group for group in unseen if group is not None]
    assert len(found) > len(groups) / 2
    assert all(map(is_unseen_wording, records(found)))
    assert all(other is None or other.pair_id == group.pair_id for group, other in zip(groups, unseen, strict=True))
    assert UNSEEN_PHRASING in variant_kinds(held_out_phrasings=True)
    assert UNSEEN_PHRASING not in variant_kinds(held_out_phrasings=False)
    assert unseen == [variant_of(group, UNSEEN_PHRASING, 0) for group in groups]


def test_accuracy_by_phrasing_parts_the_relations(groups: list[RelationGroup]) -> None:
    columns = columns_of_groups(groups, {})
    # Right exactly where a prompt carries an unseen phrasing.
    rewards = []
    for group in groups:
        sign = 1.0 if any(is_unseen_wording(record) for some in group.instructions for record in some) else -1.0
        rewards.append((0.0, 0.0, sign, -sign, -sign, sign))
    margins = relation_margins(columns, flat_rewards(columns, rewards, "m"), "m")
    unseen = {index for index, group in enumerate(groups) if rewards[index][2] > 0}
    found = accuracy_by_phrasing(columns.items, margins, samples=0, seed=0)
    # A wording that only one side of a contrast has (its text differs with the arguments) may part a group's relations.
    assert found["intra"]["unseen"]["value"] == 1.0
    assert found["intra"]["unseen"]["count"] == 2 * len(unseen)
    assert found["intra"]["seen"]["value"] == 0.0


def test_invariance_by_hand(make_group) -> None:
    groups = [make_group("a", "A"), make_group("b", "B")]
    # Margins of (x,c) (x,r) (x+,c) (x+,r) (x-,c) (x-,r): intra r2-r4, r5-r3; inter (r2-r3)-(r0-r1), (r0-r1)-(r4-r5).
    before = [(1.0, 0.0, 3.0, 0.0, 0.0, 3.0), (1.0, 0.0, 3.0, 0.0, 0.0, 3.0)]
    # Of b alone, as asked for otherwise: both intra relations turn round, and narrowing and widening with them.
    after = [(1.0, 0.0, 0.0, 3.0, 3.0, 0.0)]
    columns = columns_of_groups(groups, {})
    rewards = flat_rewards(columns, before, "m")
    margins = relation_margins(columns, rewards, "m")

    def measured(index: int, others: list[tuple[float, ...]]) -> Any:
        scored = ScoredVariant(columns_of_groups([groups[index]], {}), np.array([index]), {"m": np.array(others[0])})
        return invariance(columns, rewards, margins, {"order": scored}, "m", samples=0, seed=0)["order"]

    found = measured(1, after)
    assert found["groups"] == 1
    assert {level: value["value"] for level, value in found["flips"].items()} == {"intra": 1.0, "inter": 1.0}
    assert found["accuracy_before"]["intra"]["value"] == 1.0
    assert found["accuracy"]["intra"]["value"] == 0.0
    assert found["reward_change"] == 3.0
    assert found["reward_deviation"] == 1.5
    still = measured(0, before[:1])
    assert (still["flips"]["inter"]["value"], still["reward_change"]) == (0.0, 0.0)
