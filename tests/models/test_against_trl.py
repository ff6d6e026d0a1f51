"""With lambda_intra = lambda_inter = 0 the losses and their variants are TRL's, on the same batch of real text."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from mapl_ray.batches import Batch, EncodedGroup, collate, encode_group
from mapl_ray.config import LevelWeights, Method, ObjectiveConfig
from mapl_ray.data.records import Level, Message, Relation, RelationGroup, Sequence
from mapl_ray.models import PolicyLogps, RewardScores
from mapl_ray.objective import Objective, dpo_rewards, relation_loss

BASELINE = LevelWeights(lambda_intra=0.0, lambda_inter=0.0)


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    """Short real pairs, without margins: the tiny model has 512 positions."""
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [{**json.loads(line), "margin": None} for line in lines]
    return [row for row in found if max(len(row[key]) for key in ("prompt", "chosen", "rejected")) < 240][:4]


def our_batch(rows: list[dict[str, Any]], tokenizer: Any) -> Batch:
    groups = []
    for row in rows:
        group = RelationGroup(
            pair_id=row["id"],
            prompts=((Message("user", row["prompt"]),),),
            instructions=((),),
            responses=(row["chosen"], row["rejected"]),
            sequences=(Sequence(0, 0, ()), Sequence(0, 1, ())),
            relations=(Relation(Level.PREF, (0,), (1,)),),
            source="alpaca_eval",
            margin=row["margin"],
        )
        encoded = encode_group(group, tokenizer, 512)
        assert isinstance(encoded, EncodedGroup)
        groups.append(encoded)
    return collate(groups, "tree", tokenizer.pad_token_id)


def our_loss(outputs_S: torch.Tensor, batch: Batch, method: Method, **options: Any) -> float:
    return Objective(method, BASELINE, 0.1, ObjectiveConfig(**options))(outputs_S, batch).loss.item()


def trl_data(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                **({"margin": row["margin"]} if row["margin"] is not None else {}),
                **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
            }
            for row in rows
        ]
    )


def options(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "use_cpu": True, "bf16": False,
        "report_to": [], "max_length": None, "gradient_checkpointing": False,
    }  # fmt: skip


def perturbed(model: torch.nn.Module) -> Any:
    """A policy that has moved away from its reference."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_dpo(rows: list[dict[str, Any]], tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(str(tiny_model)).eval()
    policy = perturbed(AutoModelForCausalLM.from_pretrained(str(tiny_model)))
    config = DPOConfig(beta=0.1, **options(tmp_path))
    trainer = DPOTrainer(policy, reference, config, train_dataset=trl_data(rows), processing_class=tokenizer)
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    expected = trainer.compute_loss(policy, inputs).item()
    batch = our_batch(rows, tokenizer)
    with torch.no_grad():
        logps_S, ref_logps_S = PolicyLogps(policy)(batch), PolicyLogps(reference)(batch)
        loss = relation_loss(dpo_rewards(logps_S, ref_logps_S, beta=0.1), batch.relations, BASELINE).loss.item()
    assert abs(loss - torch.log(torch.tensor(2.0)).item()) > 1e-2  # the policy has moved
    # A margin is of four logps, which TRL sums in another order: each may be off by a unit in float32's last place.
    unit = np.spacing(torch.cat((logps_S, ref_logps_S)).abs().max().numpy()).item()
    assert loss == pytest.approx(expected, abs=4 * 0.1 * unit)


def test_bradley_terry(rows: list[dict[str, Any]], tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    model = perturbed(AutoModelForSequenceClassification.from_pretrained(str(tiny_model), num_labels=1))
    trainer = RewardTrainer(
        model, RewardConfig(**options(tmp_path)), train_dataset=trl_data(rows), processing_class=tokenizer
    )
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    expected = trainer.compute_loss(model, inputs).item()
    batch = our_batch(rows, tokenizer)
    with torch.no_grad():
        loss = relation_loss(RewardScores(model)(batch), batch.relations, BASELINE).loss.item()
    assert loss == pytest.approx(expected, abs=1e-5)


# TRL's options and ours. Its conservative DPO is found in `aot`, which for a single pair sorts nothing.
DPO_VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "label smoothing": ({"loss_type": ["aot"], "label_smoothing": 0.2}, {"label_smoothing": 0.2}),
    "ipo": ({"loss_type": ["ipo"]}, {"loss": "ipo", "length_normalised": True}),
    "length-normalised": ({"loss_type": ["sigmoid_norm"]}, {"length_normalised": True}),
    "nll": ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}, {"nll_weight": 0.7}),
}


def test_dpo_variants(rows: list[dict[str, Any]], tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """TRL's mean over batches of one pair (its NLL is a mean over the tokens of a batch) is our loss of all four."""
    reference = AutoModelForCausalLM.from_pretrained(str(tiny_model)).eval()
    policy = perturbed(AutoModelForCausalLM.from_pretrained(str(tiny_model)))
    batch = our_batch(rows, tokenizer)
    with torch.no_grad():
        batch = replace(batch, ref_logps_S=PolicyLogps(reference)(batch))
        logps_S = PolicyLogps(policy)(batch)
    plain = our_loss(logps_S, batch, "dpo")
    config = DPOConfig(beta=0.1, **options(tmp_path))
    trainer = DPOTrainer(policy, reference, config, train_dataset=trl_data(rows), processing_class=tokenizer)
    inputs = [trainer.data_collator([trainer.train_dataset[i]]) for i in range(len(rows))]
    for name, (theirs, ours) in DPO_VARIANTS.items():
        trainer.loss_types, trainer.loss_weights = theirs["loss_type"], theirs.get("loss_weights", [1.0])
        trainer.label_smoothing = theirs.get("label_smoothing", 0.0)
        with torch.no_grad():
            losses = [trainer.compute_loss(policy, dict(pair)).item() for pair in inputs]
        loss = our_loss(logps_S, batch, "dpo", **ours)
        assert abs(loss - plain) > 1e-3, name
        assert loss == pytest.approx(sum(losses) / len(losses), abs=1e-5, rel=1e-5), name


def test_bradley_terry_variants(rows: list[dict[str, Any]], tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    model = perturbed(AutoModelForSequenceClassification.from_pretrained(str(tiny_model), num_labels=1))
    rows = [{**row, "margin": margin} for row, margin in zip(rows, (1.0, 0.0, 2.0 / 3.0, -0.5), strict=True)]
    trainer = RewardTrainer(
        model,
        RewardConfig(center_rewards_coefficient=0.3, **options(tmp_path)),
        train_dataset=trl_data(rows),
        processing_class=tokenizer,
    )
    batch = our_batch(rows, tokenizer)
    with torch.no_grad():
        inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
        expected = trainer.compute_loss(model, inputs).item()
        rewards_S = RewardScores(model)(batch)
    assert "margin" in inputs
    loss = our_loss(rewards_S, batch, "rm", margin_scale=1.0, center_rewards_coefficient=0.3)
    parts = [our_loss(rewards_S, batch, "rm", **o) for o in ({}, {"margin_scale": 1.0})]
    assert min(abs(parts[1] - parts[0]), abs(loss - parts[1])) > 1e-3
    assert loss == pytest.approx(expected, abs=1e-5)
