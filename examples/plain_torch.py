"""A custom training loop in plain torch: a reward model on relation groups.

python examples/plain_torch.py [MODEL]
"""

import sys
import tempfile
from pathlib import Path

import torch
from groups import groups, pairs
from tiny import tiny_model

import mapl_ray


def main(model_path: str | None = None, steps: int = 10) -> list[float]:
    """Train, and return the loss of every step."""
    with tempfile.TemporaryDirectory() as folder:
        path = model_path or tiny_model(Path(folder))
        tokenizer = mapl_ray.load_tokenizer(path)
        model = mapl_ray.load_reward_model(path, "float32", seed=0)  # seed of the new reward head
    mapl_ray.prepare_for_trees(model)  # attention for prefix trees; not needed with batching "padded"
    scores = mapl_ray.RewardScores(model)  # for DPO: mapl_ray.PolicyLogps(mapl_ray.load_policy(path, "float32"))
    objective = mapl_ray.Objective.of(mapl_ray.TrainConfig(), "rm")
    optimizer = torch.optim.AdamW(scores.parameters(), lr=1e-3)

    encoded = (mapl_ray.encode_group(group, tokenizer, max_sequence_tokens=1024) for group in groups(pairs(limit=40)))
    usable = [group for group in encoded if isinstance(group, mapl_ray.EncodedGroup)]
    losses = []
    for step in range(steps):
        of_step = [usable[(4 * step + i) % len(usable)] for i in range(4)]
        batch = mapl_ray.collate(of_step, "tree", tokenizer.pad_token_id)
        result = objective(scores(batch), batch)
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(scores.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        metrics = objective.metrics(result.sums)
        print(f"step {step + 1}: loss {metrics['loss']:.3f}, pref accuracy {metrics['rewards/accuracies/pref']:.2f}")
        losses.append(metrics["loss"])
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:2])
