"""The warm start of all arms: language modeling on prompts with instructions and responses that satisfy them.

The model learns the vocabulary, but sees no response that violates its prompt's instructions.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence.groups import GroupStream
from benchmarks.evidence.model import fresh_model, save
from benchmarks.evidence.scale import Scale
from mapl_ray.batches import EncodedGroup, collate
from mapl_ray.data.records import RelationGroup, Sequence
from mapl_ray.evaluation.column_table import prompt_text


def warm_start(stream: GroupStream, tokenizer: Any, scale: Scale, target: Path) -> list[dict[str, float]]:
    """Train the model that every arm starts from and save it in `target`; return rows of step and mean loss (nats per
    token)."""
    model = fresh_model(tokenizer, scale, seed=0)
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=scale.warm_learning_rate, betas=(0.9, 0.95))
    warmup = max(1, scale.warm_steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.05, 1.0 - step / scale.warm_steps))
    )
    rng = random.Random(0)
    losses: list[float] = []
    rows: list[dict[str, float]] = []
    every = max(1, scale.warm_steps // 20)
    for step in range(scale.warm_steps):
        size = scale.warm_sequences_per_step
        groups = [one_satisfied(stream[step * size + index], rng) for index in range(size)]
        batch = collate(groups, "padded", tokenizer.pad_token_id).to(model.device)
        assert batch.attention_mask is not None  # padded batches have one
        labels = batch.input_ids.masked_fill(batch.attention_mask.eq(0), -100)
        loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.item()))
        if (step + 1) % every == 0 or step + 1 == scale.warm_steps:
            rows.append({"step": step + 1, "loss": sum(losses) / len(losses)})
            losses = []
            print(f"  warm start: step {step + 1} of {scale.warm_steps}, loss {rows[-1]['loss']:.3f}", flush=True)
    save(model, tokenizer, target)
    return rows


def one_satisfied(group: EncodedGroup, rng: random.Random) -> EncodedGroup:
    """The group with only one sequence, whose response satisfies all instructions."""
    kept: list[Sequence] = [cell for cell in group.sequences if all(cell.satisfied)]
    return EncodedGroup(group.pair_id, group.prompt_ids, group.response_ids, (rng.choice(kept),), ())


def texts_of(groups: list[RelationGroup]) -> list[str]:
    """The texts that the tokenizer is trained on: prompts, responses, instructions."""
    texts = []
    for group in groups:
        texts += [prompt_text(group), *group.responses]
        texts += [instruction.text for some in group.instructions for instruction in some]
    return texts
