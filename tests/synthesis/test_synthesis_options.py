"""Options of synthesis on real pairs: k, family weights, several groups per pair, held-out families, judgements."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import Judgement, Message, PreferencePair, Rejection, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.weights import family_weight
from mapl_ray.synthesis import select_functions, synthesize, synthesize_all, verify_group

PAIR = PreferencePair("p", (Message("user", "Count"),), "one two three. " * 20, "four five, six? " * 60, "test")
SOFT = {name for name, function in REGISTRY.items() if function.sides == "soft"}


def groups_of(pairs: list[PreferencePair], config: SynthesisConfig) -> list[RelationGroup]:
    return [group for pair in pairs if isinstance(group := synthesize(pair, config, 5), RelationGroup)]


def families_of(groups: list[RelationGroup]) -> Counter[str]:
    return Counter(REGISTRY[record.name].family for group in groups for record in group.instructions[1])


def test_k_from_a_distribution(pairs: list[PreferencePair]) -> None:
    config = SynthesisConfig(k_weights={1: 2, 2: 1, 5: 1, 4: 0}, max_instructions=3)
    groups = groups_of(pairs, config)
    k = Counter(len(group.instructions[1]) for group in groups)
    assert set(k) == {1, 2, 5}
    assert 0.42 * len(groups) < k[1] < 0.58 * len(groups)
    assert 0.18 * len(groups) < k[5] < 0.32 * len(groups)
    assert SynthesisConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_the_smallest_k_is_the_least_that_must_fit() -> None:
    config = SynthesisConfig(functions=("word_count", "word_count_between"), k_weights={2: 1, 1: 0})
    with pytest.raises(UserError, match="min_instructions=2, but only 1"):
        synthesize(PAIR, config, 0)


@pytest.mark.parametrize("value", [{}, {0: 1}, {1: -1, 2: 2}, {1: 0}, {1: float("inf")}, {"a": 1}])
def test_k_weights_that_are_none(value: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="k_weights"):
        SynthesisConfig.model_validate({"k_weights": value})


@pytest.mark.parametrize(("k_weights", "multiple"), [(None, 1.8), ({1: 1.0}, 2.6), ({3: 1.0, 5: 1.0}, 1.6)])
def test_no_family_dominates(pairs: list[PreferencePair], k_weights: dict[int, float] | None, multiple: float) -> None:
    assert len(pairs) >= 500
    families = families_of(groups_of(pairs, SynthesisConfig(k_weights=k_weights)))
    share = sum(families.values()) / sum(map(family_weight, families))
    # What separates two responses often (words, lengths) is rejected less often than what seldom does. Alone in a
    # prompt it has to separate them, beside others it need not.
    by_weight = {family: count / family_weight(family) for family, count in families.items()}
    assert max(by_weight.values()) <= multiple * share, by_weight


def test_family_weights(pairs: list[PreferencePair]) -> None:
    plain = families_of(groups_of(pairs, SynthesisConfig(k_weights={1: 1})))
    weights = {"numbers": 8.0, "keywords": 0.0, "length": 0.25}
    families = families_of(groups_of(pairs, SynthesisConfig(k_weights={1: 1}, family_weights=weights)))
    assert families["keywords"] == 0 < plain["keywords"]
    assert families["numbers"] > 3 * plain["numbers"]
    assert families["length"] < 0.5 * plain["length"]


def test_unknown_and_wrong_families() -> None:
    for key, value in (("family_weights", {"lenght": 1.0}), ("held_out_families", ("lenght",))):
        with pytest.raises(UserError, match=rf"synthesis.{key}: no family 'lenght'. Known: .*length"):
            synthesize(PAIR, SynthesisConfig.model_validate({key: value}), 0)
    for value in ({"length": -1.0}, {"length": float("nan")}):
        with pytest.raises(ValueError, match="family_weights"):
            SynthesisConfig.model_validate({"family_weights": value})
    every = tuple({function.family for function in REGISTRY.values()})
    with pytest.raises(UserError, match="only 0 of the functions"):
        select_functions(SynthesisConfig(held_out_families=every).for_training())


def test_held_out_families(pairs: list[PreferencePair]) -> None:
    config = SynthesisConfig(held_out_families=("keywords", "numbers"), family_weights={"length": 2.0})
    seen, all_of_them = families_of(groups_of(pairs, config.for_training())), families_of(groups_of(pairs, config))
    assert set(all_of_them) - set(seen) == {"keywords", "numbers"}
    assert config.for_training().family_weights["length"] == 2.0


def test_several_groups_a_pair(pairs: list[PreferencePair]) -> None:
    config = SynthesisConfig(groups_per_pair=3)
    results = {pair.pair_id: synthesize_all(pair, config, 5) for pair in pairs[:60]}
    for pair in pairs[:60]:
        found = results[pair.pair_id]
        assert found[0] == synthesize(pair, config, 5)  # the first is the one it always was
        assert [result.pair_id for result in found] == [pair.pair_id, f"{pair.pair_id}#2", f"{pair.pair_id}#3"]
        groups = [result for result in found if isinstance(result, RelationGroup)]
        assert len({group.prompts for group in groups}) == len(groups)
        assert all(verify_group(group) == [] and group.prompts[0] == pair.prompt for group in groups)
    assert {pair.pair_id: synthesize_all(pair, config, 5) for pair in pairs[59::-1]} == results
    assert synthesize_all(PAIR, SynthesisConfig(), 5) == [synthesize(PAIR, SynthesisConfig(), 5)]


def test_groups_that_would_be_the_same_are_rejected() -> None:
    config = SynthesisConfig(functions=("word_count",), groups_per_pair=300)
    results = synthesize_all(PAIR, config, 0)
    groups = [result for result in results if isinstance(result, RelationGroup)]
    assert len(results) == 300
    assert len({group.prompts for group in groups}) == len(groups) > 10
    same = [result.reason for result in results if isinstance(result, Rejection)]
    assert same
    assert all("the same prompts" in reason for reason in same)


def test_an_id_that_could_be_anothers() -> None:
    results = synthesize_all(replace(PAIR, pair_id="p#2"), SynthesisConfig(groups_per_pair=2), 0)
    assert [isinstance(result, Rejection) for result in results] == [True, True]
    assert isinstance(synthesize_all(replace(PAIR, pair_id="p#2"), SynthesisConfig(), 0)[0], RelationGroup)


def judged(chosen: float, rejected: float, *names: str) -> PreferencePair:
    return replace(PAIR, judgements=tuple(Judgement(name, chosen, rejected) for name in names or ("formal_tone",)))


def test_soft_functions_enter_where_a_judge_was_sure() -> None:
    config = SynthesisConfig(functions=("formal_tone",), max_instructions=1)
    group = synthesize(judged(0.95, 0.05), config, 0)
    assert isinstance(group, RelationGroup)
    assert [sequence.satisfied for sequence in group.sequences[2:]] == [(True,), (False,), (False,), (True,)]
    restored = RelationGroup.from_row(json.loads(json.dumps(group.to_row())))
    assert verify_group(restored) == []  # the record alone tells
    for p in ((0.95, 0.3), (0.7, 0.05), (0.5, 0.5)):
        outcome = synthesize(judged(*p), config, 0)
        assert isinstance(outcome, Rejection)
        assert "soft_confidence=0.8" in outcome.reason
    assert isinstance(
        synthesize(judged(0.7, 0.3), config.model_copy(update={"soft_confidence": 0.7}), 0), RelationGroup
    )
    # 0.8 and 0.2 are sure enough, also after a float32 column.
    assert isinstance(synthesize(judged(0.800000011920929, 0.20000000298023224), config, 0), RelationGroup)


def test_soft_functions_stay_out_of_pairs_without_judgements(pairs: list[PreferencePair]) -> None:
    used = {record.name for group in groups_of(pairs, SynthesisConfig()) for record in group.instructions[1]}
    assert not used & SOFT
    all_judged = [replace(p, judgements=tuple(Judgement(name, 0.9, 0.1) for name in sorted(SOFT))) for p in pairs]
    groups = groups_of(all_judged, SynthesisConfig(max_instructions=5))
    assert len(groups) >= 0.95 * len(pairs)
    assert {r.name for group in groups for r in group.instructions[1]} >= SOFT
    for group in groups:
        assert verify_group(group) == []
        names = {record.name for record in group.instructions[1]}
        assert not {"formal_tone", "informal_tone"} <= names
        assert not {"for_a_child", "for_an_expert"} <= names


def test_a_doctored_soft_group() -> None:
    group = synthesize(judged(0.95, 0.05), SynthesisConfig(functions=("formal_tone",), max_instructions=1), 0)
    assert isinstance(group, RelationGroup)
    other = replace(group, responses=(group.responses[0], "never seen"))
    assert any("never judged" in problem for problem in verify_group(other))
    swapped = replace(group, responses=(group.responses[1], group.responses[0]))
    assert any("the verdicts are" in problem for problem in verify_group(swapped))


def test_a_judgement_of_something_else_is_a_reason() -> None:
    for name in ("formal_tonne", "word_count"):
        outcome = synthesize(judged(0.9, 0.1, name), SynthesisConfig(), 0)
        assert isinstance(outcome, Rejection)
        assert f"'{name}' is not a soft instruction function" in outcome.reason
        assert "formal_tone" in outcome.reason
