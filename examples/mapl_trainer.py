"""`MaplTrainer`: MAPL's loss in `transformers.Trainer`, for a DPO policy or a reward model.

python examples/mapl_trainer.py [MODEL]
accelerate launch examples/mapl_trainer.py MODEL        # several GPUs, with DDP or FSDP
"""

import sys
import tempfile
from pathlib import Path

from groups import groups, pairs
from tiny import tiny_model
from transformers import TrainingArguments

import mapl_ray


def main(model_path: str | None = None, method: mapl_ray.Method = "dpo", steps: int = 8) -> dict[str, float]:
    """Train, and return the metrics of the held-out groups."""
    dataset = mapl_ray.groups_dataset(groups(pairs(limit=40))).train_test_split(test_size=0.1, seed=0)
    config = mapl_ray.TrainConfig(beta=0.1, weights=mapl_ray.LevelWeights(lambda_intra=0.5, lambda_inter=0.5))
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=f"{folder}/run",
            per_device_train_batch_size=2,  # groups
            gradient_accumulation_steps=2,
            max_steps=steps,
            learning_rate=1e-3,
            logging_steps=4,
            use_cpu=model_path is None,
            report_to="none",
        )
        trainer = mapl_ray.MaplTrainer(
            model=model_path or tiny_model(Path(folder)),
            args=args,
            objective=mapl_ray.Objective.of(config, method),
            train_dataset=dataset["train"],
            eval_dataset=dataset["test"],  # without ref_logps, so the trainer computes them before the first step
            max_sequence_tokens=1024,
        )
        trainer.train()
        metrics = trainer.evaluate()
        trainer.save_model(f"{folder}/model")  # a Hugging Face directory; trainer.push_to_hub() uploads it
    return metrics


if __name__ == "__main__":
    for name, value in main(*sys.argv[1:2]).items():
        print(f"{name}: {value:.4g}")
