"""Token ids of a run's groups, made before training and kept: a data set in `TOKEN_SCHEMA` for each split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mapl_ray.data.shards import Manifest, stage_fingerprint

TOKENIZE = "tokenize"  # the stage that makes them


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """Where they are, and what made them."""

    folder: Path  # a data set, or the folder of one per split
    recipe: str  # fingerprint of the model, its tokenizer and chat template, and the rules of encoding

    def of(self, split: str) -> KeptTokens:
        """Those of a split."""
        return replace(self, folder=self.folder / split)

    def fingerprint(self, groups: Manifest) -> str:
        """What the manifest of the ids of these groups has as its fingerprint."""
        return stage_fingerprint(TOKENIZE, self.recipe, [groups])
