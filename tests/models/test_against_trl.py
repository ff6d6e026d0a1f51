"""With lambda_intra = lambda_inter = 0 the losses are TRL's, on the same batch of real text."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from mapl_ray.batches import Batch, EncodedGroup, collate, encode_group
from mapl_ray.config import LevelWeights
from mapl_ray.models import PolicyLogps, RewardScores
from mapl_ray.objective import dpo_rewards, relation_loss
from mapl_ray.records import Level, Message, Relation, RelationGroup, Sequence

BASELINE = LevelWeights(lambda_intra=0.0, lambda_inter=0.0)


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    """Short real pairs: the tiny model has 512 positions."""
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
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
        )
        encoded = encode_group(group, tokenizer, 512)
        assert isinstance(encoded, EncodedGroup)
        groups.append(encoded)
    return collate(groups, "tree", tokenizer.pad_token_id)


def trl_data(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
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
        rewards_S = dpo_rewards(PolicyLogps(policy)(batch), PolicyLogps(reference)(batch), beta=0.1)
        loss = relation_loss(rewards_S, batch.relations, BASELINE).loss.item()
    assert abs(loss - torch.log(torch.tensor(2.0)).item()) > 1e-2  # the policy has moved
    assert loss == pytest.approx(expected, abs=1e-5)


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
