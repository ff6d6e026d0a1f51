"""The variants of the loss against numbers worked out by hand; tests/models/test_against_trl.py has TRL's."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mapl_ray.batches import Batch, EncodedGroup, RelationBatch, collate
from mapl_ray.config import LevelWeights, Method, ObjectiveConfig, TrainConfig, load_config
from mapl_ray.data.records import Level, Relation, Sequence
from mapl_ray.errors import UserError
from mapl_ray.objective import Objective, relation_loss

# Rewards of (x,c) (x,r) (x+,c) (x+,r); m = 0.5 at pref, 1.5 at intra, 1.5 at inter.
REWARDS = torch.tensor([1.0, 0.5, 2.0, 0.0])
RELATIONS = RelationBatch(
    signs_RS=torch.tensor([[1.0, -1, 0, 0], [-0.0, 0, 1, -1], [-1, 1, 1, -1]]),
    level_R=torch.tensor([0, 1, 2]),
    margin_R=torch.tensor([0.8, 0.0, 0.0]),
)
PREF_ALONE = LevelWeights(lambda_intra=0.0, lambda_inter=0.0)


def sigma(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def loss_and_gradient(
    options: dict[str, Any], weights: LevelWeights = PREF_ALONE, beta: float = 1.0
) -> tuple[float, list[float]]:
    rewards = REWARDS.clone().requires_grad_()
    out = relation_loss(rewards, RELATIONS, weights, options=ObjectiveConfig(**options), beta=beta)
    out.loss.backward()
    assert rewards.grad is not None
    return out.loss.item(), rewards.grad.tolist()


# name -> options, beta, loss of the pref relation, its slopes in r(x,c) and r(x,r); m = 0.5, d = 0.8
BY_HAND: dict[str, tuple[dict[str, Any], float, float, tuple[float, float]]] = {
    "label smoothing": (
        {"label_smoothing": 0.2},
        1.0,
        -0.8 * math.log(sigma(0.5)) - 0.2 * math.log(sigma(-0.5)),
        (sigma(0.5) - 0.8, 0.8 - sigma(0.5)),
    ),
    "margin": ({"margin_scale": 0.5}, 1.0, -math.log(sigma(0.1)), (sigma(0.1) - 1.0, 1.0 - sigma(0.1))),
    "both": (
        {"margin_scale": 1.0, "label_smoothing": 0.2},
        1.0,
        -0.8 * math.log(sigma(-0.3)) - 0.2 * math.log(sigma(0.3)),
        (sigma(-0.3) - 0.8, 0.8 - sigma(-0.3)),
    ),
    # h = m / beta = 2, its target 1 / (2 beta) = 2; and with beta 0.5 h = 1, target 1
    "ipo": ({"loss": "ipo"}, 0.25, 0.0, (0.0, 0.0)),
    "centring": (
        {"center_rewards_coefficient": 0.1},
        1.0,
        -math.log(sigma(0.5)) + 0.1 * 1.5**2,
        (sigma(0.5) - 1.0 + 0.2 * 1.5, 1.0 - sigma(0.5) + 0.2 * 1.5),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_loss_and_gradient_by_hand(name: str) -> None:
    options, beta, expected, slopes = BY_HAND[name]
    loss, gradient = loss_and_gradient(options, beta=beta)
    assert loss == pytest.approx(expected, abs=1e-6)
    assert gradient == pytest.approx([*slopes, 0.0, 0.0], abs=1e-6)


def test_ipo_by_hand_away_from_its_target() -> None:
    """Every level is drawn to the same distance: with beta = 0.5, h = 1, 3 and 3, and the target is 1."""
    loss, gradient = loss_and_gradient({"loss": "ipo"}, LevelWeights(lambda_intra=0.5, lambda_inter=2.0), beta=0.5)
    assert loss == pytest.approx((1 - 1) ** 2 + 0.5 * (4 - 1) ** 2 + 2.0 * (3 - 1) ** 2)
    # intra: 0.5 * 2 * 3 / beta on (x+,c) and (x+,r); inter: 2 * 2 * 2 / beta on all four
    assert gradient == pytest.approx([-16.0, 16.0, 16.0 + 6.0, -16.0 - 6.0])


def test_smoothing_and_margins_leave_verified_levels_alone() -> None:
    weights = LevelWeights()
    pref = {
        name: loss_and_gradient({**options})[0] for name, options in (("plain", {}), ("e", {"label_smoothing": 0.2}))
    }
    plain, smoothed = loss_and_gradient({}, weights)[0], loss_and_gradient({"label_smoothing": 0.2}, weights)[0]
    assert smoothed - plain == pytest.approx(pref["e"] - pref["plain"], abs=1e-6)
    everywhere = {"label_smoothing": 0.2, "label_smoothing_levels": ["pref", "intra", "inter"]}
    # -0.2 log sigma(-m) + 0.2 log sigma(m) = 0.2 m more at every level
    assert loss_and_gradient(everywhere, weights)[0] - plain == pytest.approx(0.2 * (0.5 + 2.0 + 1.5), abs=1e-6)
    with_margin = loss_and_gradient({"margin_scale": 1.0}, weights)[0]
    assert with_margin - plain == pytest.approx(math.log(sigma(0.5)) - math.log(sigma(-0.3)), abs=1e-6)


def group(number: int, margin: float | None) -> EncodedGroup:
    """Two prompts by two responses, of 3 and 2 tokens, with a relation of every level."""
    return EncodedGroup(
        f"pair-{number}",
        ((1, 2), (1, 2, 3)),
        ((4, 5 + number, 9), (6, 9)),
        tuple(Sequence(p, r, ()) for p in range(2) for r in range(2)),
        (
            Relation(Level.PREF, (0,), (1,)),
            Relation(Level.INTRA, (2,), (0,)),
            Relation(Level.INTER_WIDENING, (2, 1), (3, 0)),
        ),
        ref_logps=(-3.0, -2.0, -3.5, -2.5),
        margin=margin,
    )


def batch_of(*groups: EncodedGroup) -> Batch:
    return collate(groups, "tree", 0)


LOGPS = torch.tensor([-2.4, -2.6, -3.0, -2.75])


def test_dpo_terms_by_hand() -> None:
    batch = batch_of(group(0, None))
    assert batch.response_lengths().tolist() == [3.0, 2.0, 3.0, 2.0]
    logps = LOGPS.clone().requires_grad_()
    normalised = Objective("dpo", PREF_ALONE, 2.0, ObjectiveConfig(length_normalised=True, nll_weight=0.7))
    result = normalised(logps, batch)
    # r = 2 * 0.6 / 3 = 0.4 and 2 * -0.6 / 2 = -0.6
    nll = 2.4 / 3
    assert result.loss.item() == pytest.approx(-math.log(sigma(1.0)) + 0.7 * nll, abs=1e-6)
    result.loss.backward()
    slope = sigma(1.0) - 1.0
    assert logps.grad is not None
    assert logps.grad.tolist() == pytest.approx([slope * 2 / 3 - 0.7 / 3, -slope * 2 / 2, 0.0, 0.0], abs=1e-6)
    by_level = normalised.by_level(result.sums)
    others = [0.4, -0.6, -2.4, -2.6, nll]
    assert by_level[0].tolist() == pytest.approx([-math.log(sigma(1.0)), 1.0, 1.0, 1.0, sum(others)], abs=1e-6)
    assert by_level[1:, -1].tolist() == [0.0, 0.0]
    metrics = normalised.metrics(result.sums)
    assert metrics["loss"] == pytest.approx(result.loss.item(), abs=1e-6)
    expected = {
        "loss/nll": nll, "logps/chosen": -2.4, "logps/rejected": -2.6, "rewards/chosen": 0.4, "rewards/rejected": -0.6,
        "rewards/margins/pref": 1.0, "rewards/accuracies/pref": 1.0,
    }  # fmt: skip
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_margins_travel_to_pref_relations_alone() -> None:
    batch = batch_of(group(0, 0.8), group(1, None))
    assert batch.relations.margin_R is not None
    assert batch.relations.margin_R.tolist() == pytest.approx([0.8, 0, 0, 0, 0, 0])
    assert batch.to("cpu").relations.margin_R is not None


VARIANTS: list[tuple[Method, dict[str, Any]]] = [
    ("rm", {"label_smoothing": 0.1, "margin_scale": 0.5, "center_rewards_coefficient": 0.1}),
    ("dpo", {"label_smoothing": 0.1, "margin_scale": 0.5, "length_normalised": True, "nll_weight": 0.3}),
    ("dpo", {"loss": "ipo", "nll_weight": 0.3}),
]


@pytest.mark.parametrize(("method", "options"), VARIANTS)
def test_the_cut_changes_nothing(method: Method, options: dict[str, Any]) -> None:
    """Loss, gradients and metrics of parts add up to those of the step, a filler and a level without relations too."""
    objective = Objective(method, LevelWeights(lambda_intra=0.5, lambda_inter=2.0), 0.3, ObjectiveConfig(**options))
    groups = [group(0, 0.8), group(1, None), group(2, 2.0)]
    groups[1] = replace(groups[1], relations=groups[1].relations[1:])  # no pref relation
    outputs = torch.linspace(-4.0, -1.0, 12).sin()
    whole_outputs, cut_outputs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    step = batch_of(*groups)
    whole = objective(whole_outputs, step)
    whole.loss.backward()
    parts = [
        objective(cut_outputs[4 * i : 4 * j], batch_of(*groups[i:j]), step.relations.counts())
        for i, j in ((0, 1), (1, 2), (2, 3))
    ]
    filler = objective(cut_outputs[:4], batch_of(replace(groups[0], relations=())), step.relations.counts())
    total = torch.stack([part.loss for part in (*parts, filler)]).sum()
    total.backward()
    # Sums of the same numbers in another order: some units in the last place of float32 (1.2e-7 of the value).
    assert total.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    torch.testing.assert_close(cut_outputs.grad, whole_outputs.grad, rtol=0, atol=1e-6)
    assert whole_outputs.grad is not None
    assert whole_outputs.grad.abs().max() > 0.01
    of_whole, of_parts = objective.metrics(whole.sums), objective.metrics(sum(p.sums for p in (*parts, filler)))
    assert of_parts == pytest.approx(of_whole, rel=1e-6, abs=1e-6)
    assert of_whole["loss"] == pytest.approx(whole.loss.item(), rel=1e-6)


def test_nothing_to_measure() -> None:
    objective = Objective("dpo", LevelWeights(), 0.1, ObjectiveConfig(nll_weight=1.0))
    assert objective.metrics(torch.zeros(objective.num_sums, dtype=torch.float64)) == {"loss": 0.0}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.objective.nll_weight=1"], r"rm.objective=.*is for DPO: set dpo.objective.nll_weight"),
        (["rm.objective.loss=ipo"], r"rm.objective=.*loss=ipo is for DPO"),
        (["rm.objective.length_normalised=true"], r"length_normalised=True is for DPO"),
        (["dpo.objective.center_rewards_coefficient=0.1"], r"dpo.objective=.*is for reward models: set rm.objective"),
        (["dpo.objective={loss: ipo, label_smoothing: 0.1}"], r"label_smoothing=0.1 needs loss=logistic"),
        (["dpo.objective={loss: ipo, margin_scale: 1}"], r"margin_scale=1.0 needs loss=logistic"),
        (["train.objective.label_smoothing=0.5"], r"train.objective.label_smoothing=0.5: .*less than 0.5"),
        (["train.objective.label_smoothing_levels=[prefs]"], r"'pref', 'intra' or 'inter'"),
        (["train.objective.margin_scale=.inf"], r"finite number"),
        (["train.loggers=[tensorbord]"], r"'tensorboard', 'wandb' or 'mlflow'"),
    ],
)
def test_options_that_do_not_fit_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, overrides)


def test_options_of_each_method_stand_side_by_side() -> None:
    config = load_config(None, ["dpo.objective.nll_weight=1", "rm.objective.center_rewards_coefficient=0.01"])
    assert Objective.of(config.training("dpo"), "dpo").options.nll_weight == 1.0
    assert Objective.of(config.training("rm"), "rm").options.nll_weight == 0.0
    with pytest.raises(UserError, match=r"train\.objective: nll_weight=1\.0 is for DPO"):
        Objective.of(TrainConfig(objective=ObjectiveConfig(nll_weight=1.0)), "rm")
