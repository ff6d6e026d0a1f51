"""Token ids of a run's groups, computed before training and stored as one data set in `TOKEN_SCHEMA` per split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mapl_ray.data.shards import Manifest, stage_fingerprint

TOKENIZE = "tokenize"  # name of the stage


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """Where the token ids are, and the recipe that they were made with."""

    folder: Path  # a data set, or the folder of one per split
    recipe: str  # fingerprint of the model, its tokenizer and chat template, and the encoding rules

    def of(self, split: str) -> KeptTokens:
        """The token ids of one split."""
        return replace(self, folder=self.folder / split)

    def fingerprint(self, groups: Manifest) -> str:
        """Fingerprint in the manifest of the token ids of these groups."""
        return stage_fingerprint(TOKENIZE, self.recipe, [groups])
