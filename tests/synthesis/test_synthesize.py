"""Pairs become groups: layouts, conditions, acceptance, purity."""

import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import Level, Message, PreferencePair, Rejection, Relation, RelationGroup, canonical_json
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY, Instruction, compatible
from mapl_ray.synthesis import synthesize, verify_group

PAIR = PreferencePair(
    pair_id="p",
    prompt=(Message("system", "Be brief."), Message("user", "Old turn"), Message("assistant", "Yes."),
            Message("user", "Tell me about rivers")),
    chosen="Rivers carry water from mountains to the sea. They shape valleys, feed fields and link towns! " * 3,
    rejected="A stream?\n\n- Small brook\n- Large canal\n- Old lake\n\nNobody knows 17 of 23 names.",
    source="test",
    margin=0.5,
)  # fmt: skip


def _accepted(outcomes: list[RelationGroup | Rejection]) -> list[RelationGroup]:
    return [outcome for outcome in outcomes if isinstance(outcome, RelationGroup)]


@pytest.mark.parametrize("layout", ["grid", "independent"])
@pytest.mark.parametrize("condition", ["all", "any"])
def test_real_pairs_are_accepted_and_hold(layout, condition, groups_of) -> None:
    outcomes = groups_of(layout, condition)
    groups = _accepted(outcomes)
    assert len(groups) >= 0.95 * len(outcomes)
    for group in groups:
        assert verify_group(group, condition) == []
        assert RelationGroup.from_row(group.to_row()) == group
        for records in group.instructions:
            instructions = [Instruction.from_record(record) for record in records]
            assert all(compatible(a, b) for i, a in enumerate(instructions) for b in instructions[:i])
    for rejection in outcomes:
        if isinstance(rejection, Rejection):
            assert rejection.stage == "synthesize"
            assert rejection.reason


def test_the_grid() -> None:
    group = synthesize(PAIR, SynthesisConfig(min_instructions=2, max_instructions=2), 0)
    assert isinstance(group, RelationGroup)
    assert [(s.prompt, s.response) for s in group.sequences] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert group.relations == (
        Relation(Level.PREF, (0,), (1,)),
        Relation(Level.INTRA, (2,), (4,)),
        Relation(Level.INTRA, (5,), (3,)),
        Relation(Level.INTER_WIDENING, (2, 1), (3, 0)),
        Relation(Level.INTER_NARROWING, (0, 5), (1, 4)),
    )
    assert group.responses == (PAIR.chosen, PAIR.rejected)
    assert (group.source, group.margin, group.pair_id) == ("test", 0.5, "p")
    assert group.prompts[0] == PAIR.prompt
    assert all(group.sequences[2].satisfied)
    assert not all(group.sequences[3].satisfied)
    assert not all(group.sequences[4].satisfied)
    assert all(group.sequences[5].satisfied)


def test_both_sides_are_the_same_functions(groups_of) -> None:
    for group in _accepted(groups_of("grid", "all")):
        plus, minus = group.instructions[1:]
        assert [record.name for record in plus] == [record.name for record in minus]
        assert [record.args for record in plus] != [record.args for record in minus]
    for group in _accepted(groups_of("independent", "any")):
        for first in (1, 3, 5):
            names = [[record.name for record in group.instructions[first + side]] for side in (0, 1)]
            assert names[0] == names[1]


def test_the_independent_layout() -> None:
    group = synthesize(PAIR, SynthesisConfig(layout="independent"), 1)
    assert isinstance(group, RelationGroup)
    assert len(group.prompts) == 7
    used = {i for relation in group.relations for i in (*relation.preferred, *relation.dispreferred)}
    assert used == set(range(len(group.sequences)))  # only the sequences that occur
    levels = Counter(relation.level for relation in group.relations)
    assert levels == {Level.PREF: 1, Level.INTRA: 2, Level.INTER_WIDENING: 1, Level.INTER_NARROWING: 1}
    intra = [relation for relation in group.relations if relation.level is Level.INTRA]
    prompts = {group.sequences[i].prompt for r in intra for i in (*r.preferred, *r.dispreferred)}
    assert len(prompts) == 4
    assert [group.sequences[r.preferred[0]].response for r in intra] == [0, 1]


def test_k_and_families_are_spread(groups_of) -> None:
    groups = _accepted(groups_of("grid", "all"))
    k = Counter(len(group.instructions[1]) for group in groups)
    assert set(k) == {1, 2, 3}
    assert min(k.values()) >= 0.25 * len(groups)  # a third each, but for chance and rejections
    families = Counter(REGISTRY[record.name].family for group in groups for record in group.instructions[1])
    judged = {function.family for function in REGISTRY.values() if function.sides == "soft"}
    assert set(families) == {function.family for function in REGISTRY.values()} - judged
    assert max(families.values()) <= 0.2 * sum(families.values())


def test_a_pure_function_of_pair_config_and_seed(pairs) -> None:
    config = SynthesisConfig()
    some = pairs[:40]
    first = {pair.pair_id: synthesize(pair, config, 3) for pair in some}
    random.Random(0).shuffle(some)
    assert {pair.pair_id: synthesize(pair, config, 3) for pair in some} == first
    other = {pair.pair_id: synthesize(pair, config, 4) for pair in some}
    assert sum(first[key] != other[key] for key in first) > 30


def test_the_same_in_another_process() -> None:
    code = (
        "import sys; from mapl_ray.data.records import PreferencePair, Message, canonical_json\n"
        "from mapl_ray.synthesis import synthesize; from mapl_ray.config import SynthesisConfig\n"
        f"pair = PreferencePair('p', (Message('user', 'Tell me'),), {PAIR.chosen!r}, {PAIR.rejected!r}, 'test')\n"
        "rows = [synthesize(pair, SynthesisConfig(layout=l), s).to_row() for l in ('grid', 'independent') "
        "for s in range(15)]\n"
        "sys.stdout.buffer.write(canonical_json(rows).encode())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) > 10_000


def test_functions_can_be_named() -> None:
    group = synthesize(PAIR, SynthesisConfig(functions=("word_count",)), 0)
    assert isinstance(group, RelationGroup)
    assert {record.name for records in group.instructions for record in records} == {"word_count"}
    with pytest.raises(UserError, match=r"no instruction function 'wrod_count'.*word_count"):
        synthesize(PAIR, SynthesisConfig(functions=("wrod_count",)), 0)
    with pytest.raises(UserError, match="empty"):
        synthesize(PAIR, SynthesisConfig(functions=()), 0)
    config = SynthesisConfig(functions=("word_count", "word_count_between"), min_instructions=2)
    with pytest.raises(UserError, match="min_instructions=2, but only 1"):
        synthesize(PAIR, config, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": PAIR.chosen}, "the same text"),
        ({"prompt": (Message("system", "Only a system turn"),)}, "no user turn"),
        ({"chosen": "a", "rejected": "b"}, None),
        ({"chosen": "", "rejected": "\ud800"}, None),
        ({"pair_id": "\udfff🙂"}, None),
    ],
)
def test_odd_pairs_are_rejected_with_a_reason_or_served(change, reason) -> None:
    pair = PreferencePair(**{**{name: getattr(PAIR, name) for name in PAIR.__dataclass_fields__}, **change})
    outcome = synthesize(pair, SynthesisConfig(), 0)
    if isinstance(outcome, RelationGroup):
        assert reason is None
        assert verify_group(outcome) == []
    else:
        assert (outcome.stage, outcome.pair_id, outcome.source) == ("synthesize", pair.pair_id, "test")
        assert reason is None or reason in outcome.reason


def test_rows_are_plain(groups_of) -> None:
    canonical_json([group.to_row() for group in _accepted(groups_of())[:5]])
