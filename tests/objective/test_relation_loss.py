"""The loss against numbers worked out by hand."""

import math

import pytest
import torch

from mapl_ray.batches import RelationBatch
from mapl_ray.config import LevelWeights
from mapl_ray.objective import dpo_rewards, level_sums, metrics_of, relation_loss

# Rewards of the six cells (x,c) (x,r) (x+,c) (x+,r) (x-,c) (x-,r).
REWARDS = torch.tensor([1.0, 0.5, 2.0, 0.0, -1.0, 0.25])
RELATIONS = RelationBatch(
    signs_RS=torch.tensor(
        [
            [1.0, -1, 0, 0, 0, 0],  # pref: 1 - 0.5 = 0.5
            [0, 0, 1, 0, -1, 0],  # intra, chosen: 2 + 1 = 3
            [0, 0, 0, -1, 0, 1],  # intra, rejected: 0.25 - 0 = 0.25
            [-1, 1, 1, -1, 0, 0],  # inter, widening: (2 - 0) - (1 - 0.5) = 1.5
            [1, -1, 0, 0, -1, 1],  # inter, narrowing: (1 - 0.5) - (-1 - 0.25) = 1.75
        ]
    ),
    level_R=torch.tensor([0, 1, 1, 2, 2]),
)


def softplus(x: float) -> float:
    """-log sigma(x)."""
    return math.log(1.0 + math.exp(-x))


def test_loss_by_hand() -> None:
    weights = LevelWeights(lambda_intra=0.5, lambda_inter=2.0)
    out = relation_loss(REWARDS, RELATIONS, weights)
    assert out.margins_R.tolist() == pytest.approx([0.5, 3.0, 0.25, 1.5, 1.75])
    intra = (softplus(3.0) + softplus(0.25)) / 2
    inter = (softplus(1.5) + softplus(1.75)) / 2
    assert out.loss.item() == pytest.approx(softplus(0.5) + 0.5 * intra + 2.0 * inter, abs=1e-6)


def test_baseline_is_bradley_terry_alone() -> None:
    out = relation_loss(REWARDS, RELATIONS, LevelWeights(lambda_intra=0.0, lambda_inter=0.0))
    assert out.loss.item() == pytest.approx(softplus(0.5), abs=1e-6)


def test_parts_of_a_step_add_up_to_the_step() -> None:
    weights = LevelWeights(lambda_intra=0.7, lambda_inter=1.3)
    whole = relation_loss(REWARDS, RELATIONS, weights).loss
    counts_L = RELATIONS.counts()
    parts = []
    for rows in ([0, 3], [1, 2, 4], []):
        part = RelationBatch(RELATIONS.signs_RS[rows], RELATIONS.level_R[rows])
        parts.append(relation_loss(REWARDS, part, weights, counts_L).loss)
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-6)
    assert parts[2].item() == 0.0


def test_empty_micro_batch_keeps_its_graph() -> None:
    rewards = REWARDS.clone().requires_grad_()
    empty = RelationBatch(RELATIONS.signs_RS[:0], RELATIONS.level_R[:0])
    relation_loss(rewards, empty, LevelWeights()).loss.backward()
    assert rewards.grad is not None
    assert torch.equal(rewards.grad, torch.zeros(6))


def test_gradient_of_pref_by_hand() -> None:
    rewards = REWARDS.clone().requires_grad_()
    relation_loss(rewards, RELATIONS, LevelWeights(lambda_intra=0.0, lambda_inter=0.0)).loss.backward()
    # d/dm of -log sigma(m) is -(1 - sigma(m)); m = 0.5.
    slope = -(1.0 - 1.0 / (1.0 + math.exp(-0.5)))
    assert rewards.grad is not None
    assert rewards.grad.tolist() == pytest.approx([slope, -slope, 0, 0, 0, 0], abs=1e-6)


def test_metrics_add_up() -> None:
    weights = LevelWeights(lambda_intra=0.5, lambda_inter=2.0)
    out = relation_loss(REWARDS, RELATIONS, weights)
    flipped = relation_loss(-REWARDS, RELATIONS, weights)
    sums = level_sums(out.margins_R, RELATIONS) + level_sums(flipped.margins_R, RELATIONS)
    metrics = metrics_of(sums, weights)
    assert metrics["rewards/accuracies/pref"] == 0.5
    assert metrics["rewards/margins/intra"] == pytest.approx(0.0)
    assert metrics["loss"] == pytest.approx((out.loss.item() + flipped.loss.item()) / 2, abs=1e-6)
    assert "loss/inter" in metrics_of(level_sums(out.margins_R, RELATIONS), weights)
    assert metrics_of(torch.zeros(3, 4), weights) == {"loss": 0.0}


def test_dpo_rewards() -> None:
    rewards = dpo_rewards(torch.tensor([-10.0, -20.0]), torch.tensor([-12.0, -19.0]), beta=0.1)
    assert rewards.tolist() == pytest.approx([0.2, -0.1])
