"""Which evaluation was the best so far: kept in a file beside the model, so that a resume knows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mapl_ray.shards import fingerprint_of, write_json
from mapl_ray.training.weight_files import WeightFile, vouched_for, weight_damage

By = Literal["pref_accuracy", "eval_loss"]


@dataclass(frozen=True, slots=True)
class Best:
    """Contents of `best.json`."""

    by: By
    score: tuple[float, ...]  # compared from left to right, more is better
    step: int
    run: str  # digest of the settings
    weights: dict[str, WeightFile] = field(default_factory=dict)

    @classmethod
    def of(cls, by: By, metrics: dict[str, float], step: int, settings: dict[str, Any]) -> Best | None:
        """None where the evaluation gave no such number. Ties are broken by the held-out loss."""
        loss, accuracy = metrics.get("eval/loss"), metrics.get("eval/rewards/accuracies/pref")
        if loss is None or (by == "pref_accuracy" and accuracy is None):
            return None
        score = (-loss,) if by == "eval_loss" or accuracy is None else (accuracy, -loss)
        return cls(by, score, step, fingerprint_of(settings))

    def write(self, output_dir: Path) -> None:
        """To be called after the model of this step was written."""
        best = replace(self, weights=vouched_for(output_dir / "best"))
        write_json(output_dir / "best.json", asdict(best))


def read_best(output_dir: Path, by: By, settings: dict[str, Any], resumed: int) -> Best | None:
    """The best of this run up to the step it goes on from; what came later will be evaluated again."""
    try:
        values = json.loads((output_dir / "best.json").read_text(encoding="utf-8"))
        best = Best(**{**values, "score": tuple(values["score"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    same = best.by == by and best.run == fingerprint_of(settings) and best.step <= resumed
    return best if same and not weight_damage(output_dir / "best", best.weights) else None
