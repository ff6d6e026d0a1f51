"""One row of a prefix tree is the same as its sequences one by one, in losses and gradients."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from mapl_ray.batches import Batch, EncodedGroup, collate, encode_group, of_levels
from mapl_ray.config import LevelWeights, Method, ObjectiveConfig
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model
from mapl_ray.objective import Objective, dpo_rewards, relation_loss

METHODS = ("rm", "dpo")


def encoded(groups: list[Any], tokenizer: Any) -> list[EncodedGroup]:
    found = [encode_group(group, tokenizer, 512) for group in groups]
    return [group for group in found if isinstance(group, EncodedGroup)]


def module_of(method: str, path: Path) -> torch.nn.Module:
    return (
        RewardScores(load_reward_model(path, "float32", seed=0))
        if method == "rm"
        else PolicyLogps(load_policy(path, "float32"))
    )


def loss_of(module: torch.nn.Module, method: str, batch: Batch, counts_L: torch.Tensor | None = None) -> torch.Tensor:
    rewards_S = module(batch)
    if method == "dpo":
        assert batch.ref_logps_S is not None
        rewards_S = dpo_rewards(rewards_S, batch.ref_logps_S, beta=0.1)
    return relation_loss(rewards_S, batch.relations, LevelWeights(), counts_L).loss


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


def assert_same_gradients(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert max(gradient.abs().max().item() for gradient in a.values()) > 1e-3
    for name, gradient in a.items():
        torch.testing.assert_close(gradient, b[name], rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("method", METHODS)
def test_tree_equals_padded(method: str, tiny_model: Path, tokenizer: Any, grid_groups: Any) -> None:
    groups = encoded(grid_groups(6), tokenizer)
    module = module_of(method, tiny_model)
    found = {}
    for batching in ("tree", "padded"):
        kind: Literal["tree", "padded"] = "tree" if batching == "tree" else "padded"
        batch = collate(groups, kind, tokenizer.pad_token_id)
        outputs = module(batch).detach()
        loss = loss_of(module, method, batch)
        loss.backward()
        found[batching] = (outputs, loss.item(), gradients(module))
    torch.testing.assert_close(found["tree"][0], found["padded"][0], rtol=0, atol=1e-4 if method == "dpo" else 1e-5)
    assert found["tree"][1] == pytest.approx(found["padded"][1], abs=1e-5)
    assert_same_gradients(found["tree"][2], found["padded"][2])


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_equal_the_full_batch(method: str, tiny_model: Path, tokenizer: Any, grid_groups: Any) -> None:
    groups = encoded(grid_groups(6), tokenizer)
    module = module_of(method, tiny_model)
    whole = collate(groups, "tree", tokenizer.pad_token_id)
    full = loss_of(module, method, whole)
    full.backward()
    of_full = gradients(module)
    total = 0.0
    for part in (groups[:1], groups[1:3], groups[3:]):
        loss = loss_of(module, method, collate(part, "tree", tokenizer.pad_token_id), whole.relations.counts())
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(full.item(), abs=1e-5)
    assert_same_gradients(of_full, gradients(module))


@pytest.mark.parametrize("method", METHODS)
def test_a_level_of_weight_0_need_not_be_computed(
    method: Method, tiny_model: Path, tokenizer: Any, grid_groups: Any
) -> None:
    weights, module = LevelWeights(lambda_intra=0.0, lambda_inter=0.0), module_of(method, tiny_model)
    groups = encoded(grid_groups(6), tokenizer)
    found = []
    for some in (groups, [of_levels(group, weights.families) for group in groups]):
        batch = collate(some, "tree", tokenizer.pad_token_id)
        loss = Objective(method, weights, 0.1, ObjectiveConfig())(module(batch), batch).loss
        loss.backward()
        found.append((loss.item(), gradients(module), batch.num_tokens))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert_same_gradients(found[0][1], found[1][1])
    assert found[1][2] < 0.6 * found[0][2]


def test_a_branch_does_not_see_its_sibling(tiny_model: Path, tokenizer: Any, grid_groups: Any) -> None:
    """Changing one response changes its own sequences and no other."""
    group = grid_groups(1)[0]
    changed = type(group).from_row({**group.to_row(), "responses": [group.responses[0], "stone stone lamp"]})
    module = module_of("rm", tiny_model)
    a, b = (module(collate(encoded([g], tokenizer), "tree", tokenizer.pad_token_id)) for g in (group, changed))
    assert torch.allclose(a[0::2], b[0::2], atol=1e-6)
    assert not torch.allclose(a[1::2], b[1::2], atol=1e-4)


def test_reward_is_what_transformers_gives(tiny_model: Path, tokenizer: Any, grid_groups: Any) -> None:
    groups = encoded(grid_groups(3), tokenizer)
    module = module_of("rm", tiny_model)
    rewards_S = module(collate(groups, "tree", tokenizer.pad_token_id))
    assert isinstance(module, RewardScores)
    plain = AutoModelForSequenceClassification.from_pretrained(str(tiny_model), num_labels=1)
    plain.load_state_dict(module.model.state_dict())
    plain.config.pad_token_id = tokenizer.pad_token_id
    batch = collate(groups, "padded", tokenizer.pad_token_id)
    logits = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    torch.testing.assert_close(rewards_S, logits, rtol=0, atol=1e-5)


def test_logps_are_what_transformers_gives(tiny_model: Path, tokenizer: Any, grid_groups: Any) -> None:
    group = encoded(grid_groups(1), tokenizer)[0]
    module = module_of("dpo", tiny_model)
    assert isinstance(module, PolicyLogps)
    logps_S = module(collate([group], "tree", tokenizer.pad_token_id))
    for sequence in range(6):
        ids = torch.tensor([group.token_ids(sequence)])
        logps = module.model(input_ids=ids).logits[0].log_softmax(-1)
        start = group.prompt_length(sequence)
        expected = sum(logps[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1]))
        assert logps_S[sequence].item() == pytest.approx(expected, abs=1e-3)
