"""The result file of a finished training run, by which a rerun knows that there is nothing to do.

It has the digests of the weights in `model/` and `best/`. It is written after them, and they are verified when it is
read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

from mapl_ray.config import Method, TrainConfig
from mapl_ray.data.shards import Manifest, file_sha256, fingerprint_of, sync_tree, write_json

# Settings that change how a run is executed, but not its result.
OPERATIONAL = {
    "attention",
    "loggers",
    "overlap_comm",
    "prefetch",
    "keep_token_ids",
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
    "zero_hpz_partition_size",
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
    counts: dict[str, int] = field(default_factory=dict)  # groups left out or truncated since the last start, by reason
    config: dict[str, object] = field(default_factory=dict)
    weights: dict[str, WeightFile] = field(default_factory=dict)  # of `model_dir`, by file
    best_weights: dict[str, WeightFile] = field(default_factory=dict)  # of `best/`; empty if there is none

    def write(self, output_dir: Path) -> None:
        """Write `result.json`, which marks the run finished."""
        write_json(output_dir / "result.json", asdict(self))


def run_fingerprint(config: TrainConfig, method: Method, model: str, train: Manifest) -> str:
    """Identity of a run: its method, data, base model and settings. `model`: name or hash of the base model."""
    return fingerprint_of(
        {
            "method": method,
            "model": model,
            "data": train.content_hash,
            "config": config.model_dump(mode="json", exclude=OPERATIONAL),
        }
    )


def other_result(output_dir: Path, fingerprint: str) -> bool:
    """Whether the folder has the result of a different run."""
    path = output_dir / "result.json"
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["fingerprint"] != fingerprint)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError):
        return True


def finished_result(output_dir: Path, fingerprint: str) -> TrainResult | None:
    """Read the result of this run and verify its weights, reading all of them. None if missing or damaged."""
    try:
        result = TrainResult(**json.loads((output_dir / "result.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if result.fingerprint != fingerprint:
        return None
    of_folder = {"model": result.weights} | ({"best": result.best_weights} if result.best_weights else {})
    for name, weights in of_folder.items():
        if wrong := weight_damage(output_dir / name, weights):
            print(f"  {output_dir / name}: {wrong}; trained again from the newest checkpoint", flush=True)
            return None
    return result


_PATTERNS = ("*.safetensors", "*.safetensors.index.json")  # not cards and configs, which users may edit


class WeightFile(TypedDict):
    """Size and digest of a weight file."""

    bytes: int
    sha256: str


def vouched_for(folder: Path) -> dict[str, WeightFile]:
    """Sync all files of a folder, and return size and digest of every weight file."""
    sync_tree(folder)
    return {
        file.name: WeightFile(bytes=file.stat().st_size, sha256=file_sha256(file))
        for pattern in _PATTERNS
        for file in sorted(folder.glob(pattern))
    }


def weight_damage(folder: Path, files: Mapping[str, WeightFile]) -> str:
    """Verify a model's weights, sizes before digests. Returns the first problem, or an empty string.

    Results of earlier releases have no `files`; then weight files only must not be empty.
    """
    if not (folder / "config.json").is_file():
        return "config.json is missing"
    sizes = {file.name: file.stat().st_size for pattern in _PATTERNS for file in folder.glob(pattern)}
    if not sizes or not all(sizes.values()):
        return "there are no weights" if not sizes else f"{min(sizes, key=lambda name: sizes[name])} is empty"
    for name, file in files.items():
        if sizes.get(name) != file["bytes"]:
            return f"{name} is missing" if name not in sizes else f"{name} has {sizes[name]} bytes of {file['bytes']}"
    return next(
        (f"{name} is damaged" for name, file in files.items() if file_sha256(folder / name) != file["sha256"]), ""
    )
