"""Every measure against numbers derived by hand."""

from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest

from mapl_ray.errors import RunError
from mapl_ray.evaluation.by_family import accuracy_by_family, accuracy_by_novelty, worst_families
from mapl_ray.evaluation.column_table import columns_table
from mapl_ray.evaluation.columns import GroupColumns, columns_of_groups, flat_rewards
from mapl_ray.evaluation.columns import relation_margins as margins_of_columns
from mapl_ray.evaluation.compare import baseline_pairs, compare
from mapl_ray.evaluation.examples import pick_examples
from mapl_ray.evaluation.gaps import gap_histograms
from mapl_ray.evaluation.length_bias import length_bias, spearman
from mapl_ray.evaluation.levels import accuracy_by_k, kind_results, level_results

FAMILIES = {"min_words": "length", "keyword": "content", "json": "format"}
# Cells (x,c) (x,r) (x+,c) (x+,r) (x-,c) (x-,r).
# pref 2-1 = 1; intra c 5-1 = 4, r 0-3 = -3; widening (5-3)-(2-1) = 1; narrowing (2-1)-(1-0) = 0, a tie.
REWARDS = (2.0, 1.0, 5.0, 3.0, 1.0, 0.0)
# pref -1; intra 1-1 = 0 (tie), 2-1 = 1; widening (1-1)-(0-1) = 1; narrowing (0-1)-(1-2) = 0 (tie).
OTHER = (0.0, 1.0, 1.0, 1.0, 1.0, 2.0)


def relation_items(groups, families):
    return columns_of_groups(groups, families).items


def relation_margins(groups, rewards, model):
    columns = columns_of_groups(groups, FAMILIES)
    return margins_of_columns(columns, flat_rewards(columns, rewards, model), model)


def test_margins_are_signed_sums(make_group):
    margins = relation_margins([make_group()], [REWARDS], "m")
    assert margins.tolist() == [1.0, 4.0, -3.0, 1.0, 0.0]


def test_levels_count_ties_as_wrong(make_group):
    groups = [make_group("a", "A"), make_group("b", "B")]
    items = relation_items(groups, FAMILIES)
    margins = relation_margins(groups, [REWARDS, OTHER], "m")
    results = level_results(items, margins, samples=100, seed=0)
    # pref: 1, -1. intra: 4, -3, 0, 1. inter: 1, 0, 1, 0.
    assert {name: result["accuracy"]["value"] for name, result in results.items()} == {
        "pref": 0.5,
        "intra": 0.5,
        "inter": 0.5,
    }
    assert results["intra"]["mean_margin"] == 0.5
    assert results["intra"]["ties"] == 0.25
    assert results["inter"]["accuracy"]["count"] == 4
    assert results["inter"]["accuracy"]["prompts"] == 2
    kinds = kind_results(items, margins, samples=0, seed=0)
    assert kinds["inter_widening"]["accuracy"]["value"] == 1.0
    assert kinds["inter_narrowing"]["accuracy"]["value"] == 0.0
    assert kinds["inter_narrowing"]["accuracy"]["low"] is None


def test_by_k_takes_the_number_of_instructions(make_group):
    groups = [make_group("a", "A"), make_group("b", "B", names=("min_words", "keyword"))]
    items = relation_items(groups, FAMILIES)
    results = accuracy_by_k(items, relation_margins(groups, [REWARDS, OTHER], "m"), samples=0, seed=0)
    assert list(results["intra"]) == ["1", "2"]
    # k=1 is group a: intra 4, -3 -> 1/2, inter 1, 0 -> 1/2. k=2 is group b: intra 0, 1 -> 1/2.
    assert results["intra"]["1"]["value"] == 0.5
    assert results["intra"]["2"]["count"] == 2
    assert results["inter"]["1"]["value"] == 0.5


def test_by_family_counts_a_relation_for_every_family_it_carries(make_group):
    groups = [
        make_group("a", "A", names=("min_words",)),
        make_group("b", "B", names=("min_words", "keyword")),
        make_group("c", "C", names=("mystery",)),
    ]
    # Group a: both intra right. Group b: both intra wrong. Group c: right.
    right, wrong = (1.0, 0.0, 3.0, 0.0, 0.0, 3.0), (1.0, 0.0, 0.0, 3.0, 3.0, 0.0)
    items = relation_items(groups, FAMILIES)
    results = accuracy_by_family(items, relation_margins(groups, [right, wrong, right], "m"), samples=0, seed=0)
    intra = results["intra"]
    assert {name: value["value"] for name, value in intra.items()} == {"length": 0.5, "content": 0.0, "unknown": 1.0}
    assert intra["length"]["count"] == 4
    assert worst_families(results)["intra"]["family"] == "content"


def test_by_novelty_parts_the_relations_that_carry_an_unseen_family(make_group):
    groups = [
        make_group("a", "A", names=("min_words",)),
        make_group("b", "B", names=("min_words", "keyword")),
        make_group("c", "C", names=("keyword",)),
    ]
    right, wrong = (1.0, 0.0, 3.0, 0.0, 0.0, 3.0), (1.0, 0.0, 0.0, 3.0, 3.0, 0.0)
    items = relation_items(groups, FAMILIES)
    margins = relation_margins(groups, [right, wrong, right], "m")
    results = accuracy_by_novelty(items, margins, {"content"}, samples=0, seed=0)
    # a carries seen families alone and is right; b (wrong) and c (right) carry the unseen one.
    assert {level: {k: v["value"] for k, v in of.items()} for level, of in results.items()} == {
        "intra": {"seen": 1.0, "unseen": 0.5},
        "inter": {"seen": 1.0, "unseen": 0.5},
    }
    assert results["intra"]["unseen"]["count"] == 4
    assert accuracy_by_novelty(items, margins, (), samples=0, seed=0) == {}


def test_length_bias_splits_by_words(make_group):
    groups = [
        make_group("a", "A", chosen="w w w w", rejected="w"),  # chosen longer, by 3
        make_group("b", "B", chosen="w w w w w", rejected="w w w"),  # chosen longer, by 2
        make_group("c", "C", chosen="w w", rejected="w w w w w w"),  # chosen shorter, by 4
        make_group("d", "D", chosen="w", rejected="w"),  # equal: in neither
    ]
    # The reward is the number of words: right where the chosen is longer, wrong where it is shorter.
    rewards = [(4.0, 1.0, *REWARDS[2:]), (5.0, 3.0, *REWARDS[2:]), (2.0, 6.0, *REWARDS[2:]), (1.0, 1.0, *REWARDS[2:])]
    margins = relation_margins(groups, rewards, "m")
    columns = columns_of_groups(groups, FAMILIES)
    bias = length_bias(columns, margins, flat_rewards(columns, rewards, "m"), samples=0, seed=0)
    assert (bias["chosen_longer"]["value"], bias["chosen_longer"]["count"]) == (1.0, 2)
    assert (bias["chosen_shorter"]["value"], bias["chosen_shorter"]["count"]) == (0.0, 1)
    assert bias["reward_length"] == pytest.approx(1.0)
    assert bias["gap_length"] == pytest.approx(1.0)


def test_spearman_by_hand():
    # Ranks 1 2 3 4 against 2 1 4 3: differences +-1, rho = 1 - 6 * 4 / (4 * 15) = 0.6.
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([20.0, 10.0, 400.0, 30.0])) == pytest.approx(0.6)
    # Ties: ranks 1.5 1.5 3 against 1 2 3: centred (-.5,-.5,1), (-1,0,1): 1.5 / sqrt(1.5 * 2) = 0.8660.
    assert spearman(np.array([7.0, 7.0, 9.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(0.75**0.5)
    assert spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None


def test_gap_histograms_hold_every_gap(make_group):
    groups = [make_group("a", "A"), make_group("b", "B")]
    results = gap_histograms(columns_of_groups(groups, FAMILIES), np.array([*REWARDS, *OTHER]))
    # x: 2-1, 0-1; x+: 5-3, 1-1; x-: 1-0, 1-2.
    assert {name: kind["mean"] for name, kind in results["kinds"].items()} == {"x": 0.0, "x+": 1.0, "x-": 0.0}
    assert all(sum(kind["counts"]) == kind["count"] == 2 for kind in results["kinds"].values())
    assert len(results["edges"]) == len(results["kinds"]["x"]["counts"]) + 1


def test_gap_histogram_of_a_constant_reward(make_group):
    results = gap_histograms(columns_of_groups([make_group()], FAMILIES), np.ones(6))
    assert results["edges"][0] < 0.0 < results["edges"][-1]
    assert sum(results["kinds"]["x"]["counts"]) == 1


def test_compare_is_paired(make_group):
    groups = [make_group(f"p{n}", f"prompt {n}") for n in range(20)]
    items = relation_items(groups, FAMILIES)
    right = relation_margins(groups, [(1.0, 0.0, *OTHER[2:])] * 20, "a")
    wrong = relation_margins(groups, [(0.0, 1.0, *OTHER[2:])] * 20, "b")
    pref = compare(items, right, wrong, samples=200, seed=0)["pref"]
    # Every item differs by +1, so every resample does; no resample is at or below 0: p = 2 * 1 / 201.
    assert (pref["accuracy"]["value"], pref["accuracy"]["low"], pref["accuracy"]["high"]) == (1.0, 1.0, 1.0)
    assert pref["p_value"] == pytest.approx(2 / 201)
    same = compare(items, right, right, samples=200, seed=0)["pref"]
    assert (same["accuracy"]["value"], same["p_value"]) == (0.0, 1.0)


def test_baseline_pairs():
    assert baseline_pairs(["rm", "rm-baseline", "dpo"]) == [("rm", "rm-baseline")]


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([REWARDS, REWARDS], "rewards of 2 groups, expected 1"),
        ([REWARDS[:5]], "model m, group a: got 5 rewards, expected 6"),
        ([(*REWARDS[:5], float("nan"))], "model m, group a: the rewards are not finite"),
    ],
)
def test_rewards_that_do_not_fit_are_refused(make_group, rewards, message):
    with pytest.raises(RunError, match=message):
        relation_margins([make_group()], rewards, "m")


def test_columns_of_parts_are_those_of_the_whole(make_group):
    """Tables of one group each, as parts of a data set, give the arrays of one table of all groups."""
    groups = [
        make_group("a", "A", chosen="w w w", names=("min_words",)),
        make_group("b", "B", names=("keyword", "min_words")),
        replace(make_group("c", "C"), relations=(), sequences=make_group().sequences[:2]),
        make_group("d", "A", rejected="w w", names=("json",)),
    ]
    whole = columns_of_groups(groups, FAMILIES)
    parts = GroupColumns.of_tables(
        [columns_table([one]).append_column("pair_id", pa.array([one.pair_id], pa.string())) for one in groups],
        FAMILIES,
    )
    for field in fields(GroupColumns):
        a, b = getattr(whole, field.name), getattr(parts, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=field.name)
            assert a.dtype == b.dtype
    assert parts.pair_ids.to_pylist() == ["a", "b", "c", "d"]
    assert parts.items.prompt_R.tolist() == [0] * 5 + [1] * 5 + [0] * 5
    assert parts.items.group_R.tolist() == [0] * 5 + [1] * 5 + [3] * 5
    assert parts.original_S.tolist() == [True, True, *[False] * 4] * 2 + [True] * 2 + [True, True, *[False] * 4]
    assert parts.words_S.tolist() == [3, 1] * 3 + [3, 1] * 3 + [3, 1] + [3, 2] * 3
    assert parts.chosen_longer_G.tolist() == [2, 2, 2, 1]
    assert [sorted(parts.function_sets[code]) for code in parts.functions_G] == [
        ["min_words"],
        ["keyword", "min_words"],
        ["min_words"],
        ["json"],
    ]
    rewards = np.arange(20.0) ** 2
    assert margins_of_columns(parts, rewards, "m").tolist() == margins_of_columns(whole, rewards, "m").tolist()
    empty = GroupColumns.of_tables([], FAMILIES)
    assert (len(empty), len(empty.items.level_R), len(margins_of_columns(empty, np.empty(0), "m"))) == (0, 0, 0)


def test_examples_are_short_and_add_functions(make_group):
    long = make_group("a", "A", chosen="w " * 200, names=("json",))
    groups = [
        long,
        make_group("b", "B"),
        make_group("c", "C"),
        make_group("d", "D", names=("min_words", "keyword")),
    ]
    columns = columns_of_groups(groups, FAMILIES)
    assert pick_examples(columns, 2) == [3, 1]  # two functions at once, then the first of those that add none
    assert pick_examples(columns, 9) == [3, 0, 1, 2]  # the long one as well where there are too few
