"""MAPL's data in TRL's `DPOTrainer` and `RewardTrainer`.

    python examples/trl_trainers.py [MODEL]

TRL trains on rows with one prompt, a chosen and a rejected response. That covers L_pref, and the two prompts with
instructions as further pairs: under x+ chosen stays chosen, under x- chosen and rejected are swapped.

Rows can't express relations between two prompts:

* L_intra, one response under two prompts, has no row.
* L_inter compares the gap under a prompt with instructions with the gap under the original prompt. TRL only sees two
  separate pairs, not the difference of their gaps.
* The weights lambda_intra and lambda_inter. The closest substitute is to sample rows by their column `kind`.

`mapl export --format trl` prints what the rows leave out, with counts (docs/data.md, "Export").

TRL also computes every sequence separately, while groups share their prefixes (docs/training.md). `MaplTrainer`
supports all relations and shared prefixes.
"""

import sys
import tempfile
from pathlib import Path

from datasets import Dataset
from groups import groups, pairs
from tiny import tiny_model
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

import mapl_ray


def main(model_path: str | None = None, steps: int = 4) -> dict[str, float]:
    """Train with both trainers, and return their training losses."""
    rows = Dataset.from_list([row for group in groups(pairs(limit=20)) for row in mapl_ray.export_rows(group, "trl")])
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        path = model_path or tiny_model(Path(folder))
        tokenizer = mapl_ray.load_tokenizer(path)
        for name in ("dpo", "reward"):
            options = {
                "output_dir": f"{folder}/{name}",
                "max_steps": steps,
                "per_device_train_batch_size": 2,
                "max_length": 1024,
                "use_cpu": model_path is None,
                "bf16": model_path is not None,
                "report_to": "none",
            }
            if name == "dpo":
                policy = mapl_ray.load_policy(path, "float32")
                trainer = DPOTrainer(policy, args=DPOConfig(**options), train_dataset=rows, processing_class=tokenizer)
            else:
                model = mapl_ray.load_reward_model(path, "float32", seed=0)
                trainer = RewardTrainer(
                    model, args=RewardConfig(**options), train_dataset=rows, processing_class=tokenizer
                )
            losses[name] = trainer.train().training_loss
    return losses


if __name__ == "__main__":
    print(main(*sys.argv[1:2]))
