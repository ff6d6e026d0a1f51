"""What a finished training run leaves, and how a rerun knows that there is nothing to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mapl_ray.config import Method, TrainConfig
from mapl_ray.shards import Manifest, fingerprint_of, write_json
from mapl_ray.training.weight_files import WeightFile, weight_damage

# What changes how a run is carried out, and not what comes out of it.
OPERATIONAL = {
    "attention",
    "loggers",
    "prefetch",
    "cpus_per_worker",
    "gpus_per_worker",
    "eval_every_steps",
    "checkpoint_every_steps",
    "checkpoints_to_keep",
    "best_by",
    "max_failures",
    "min_workers",
    "worker_wait_seconds",
    "on_unusable_checkpoint",
}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Contents of `result.json`, written last."""

    method: Method
    fingerprint: str
    steps: int
    model_dir: str
    metrics: dict[str, float]  # held-out, after the last step
    wall_seconds: float
    tokens_per_second: float
    num_workers: int
    zero_stage: int
    tokens: int
    too_long: int  # groups left out of the steps because of max_sequence_tokens
    resumed_step: int = 0
    counts: dict[str, int] = field(default_factory=dict)  # groups left out or cut since the last start, by reason
    config: dict[str, object] = field(default_factory=dict)
    weights: dict[str, WeightFile] = field(default_factory=dict)  # of `model_dir`, by file

    def write(self, output_dir: Path) -> None:
        """Mark the run finished."""
        write_json(output_dir / "result.json", asdict(self))


def run_fingerprint(config: TrainConfig, method: Method, model: str, train: Manifest) -> str:
    """Identity of a run: what it learns from, starts from and how. `model` names or hashes the base model."""
    return fingerprint_of(
        {
            "method": method,
            "model": model,
            "data": train.content_hash,
            "config": config.model_dump(mode="json", exclude=OPERATIONAL),
        }
    )


def other_result(output_dir: Path, fingerprint: str) -> bool:
    """Whether a finished run is there that is another one than this."""
    path = output_dir / "result.json"
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["fingerprint"] != fingerprint)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError):
        return True


def finished_result(output_dir: Path, fingerprint: str) -> TrainResult | None:
    """The result of this very run if it is there and its weights are whole, else None. Reads all of them."""
    try:
        result = TrainResult(**json.loads((output_dir / "result.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if result.fingerprint != fingerprint:
        return None
    if wrong := weight_damage(output_dir / "model", result.weights):
        print(f"  {output_dir / 'model'}: {wrong}; trained again from the newest checkpoint", flush=True)
        return None
    return result
