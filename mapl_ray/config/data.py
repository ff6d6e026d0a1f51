"""Where pairs come from, and how they become groups."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cached_property
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mapl_ray.config.field_types import Section
from mapl_ray.config.path_text import PathText

PairFormat = Literal[
    "auto",
    "pairs",
    "hh",
    "ultrafeedback",
    "sharegpt",
    "rejected_response",
    "helpsteer2",
    "helpsteer3",
    "ranked",
    "ultrafeedback-raw",
]
RankedPairs = Literal["best_worst", "adjacent", "all"]


def _are_weights(values: Collection[float]) -> bool:
    return all(math.isfinite(value) and value >= 0 for value in values) and sum(values) > 0


class MixSource(Section):
    """One source of a mix."""

    path: PathText  # File, folder, URI or hub name, like `data.path`.
    format: PairFormat = "auto"  # Row format. auto: detected from the columns.
    columns: dict[str, str] | None = None  # Like `data.columns`. null: use `data.columns`.
    ranked_pairs: RankedPairs | None = None  # Like `data.ranked_pairs`. null: use `data.ranked_pairs`.
    split: str = "train"  # Split of a Hugging Face data set.
    revision: str | None = None  # Revision of a hub data set.
    # Sampling weight. 0.25: every fourth pair; 2: every pair twice.
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)


class DataConfig(Section):
    """Where the original preference pairs come from."""

    # File, folder, URI (`s3://`, `gs://`, ...), hub name, or `demo` for the sample that ships with the package.
    path: PathText = "demo"
    mix: tuple[MixSource, ...] = ()  # Several sources instead of `path`. `limit` applies to each source.
    format: PairFormat = "auto"  # Row format. auto: detected from the columns.
    columns: dict[str, str] = Field(default_factory=dict)  # Column names of the data, as in `{prompt: Question}`.
    # Which pairs to make from a ranked list of answers. Required for data with such lists.
    ranked_pairs: RankedPairs | None = None
    # What to do with pairs whose margin is 0 or negative. Dropped pairs are counted.
    nonpositive_margins: Literal["keep", "drop"] = "keep"
    split: str = "train"  # Split of a Hugging Face data set; files have none.
    revision: str | None = None  # Revision of a hub data set.
    limit: int | None = Field(default=None, ge=1)  # Read the first n rows only.
    eval_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)  # Fraction of prompts held out for evaluation.
    # Which duplicate pairs are rejected (all but the first): none, exact or near duplicates.
    duplicates: Literal["keep", "exact", "near"] = "exact"
    # Near duplicates: minimum share of common 3-word shingles (Jaccard similarity).
    near_threshold: float = Field(default=0.9, gt=0.0, le=1.0)
    benchmarks: tuple[PathText, ...] = ()  # Files (local or URIs) of benchmark prompts that must not be trained on.
    # Reject prompts that share a run of this many words with a benchmark prompt.
    benchmark_ngram: int = Field(default=13, ge=2)
    max_response_chars: int = Field(default=20_000, ge=1)  # Reject pairs with a longer response, in characters.
    max_prompt_chars: int = Field(default=20_000, ge=1)  # Reject pairs with a longer prompt, in characters.

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.mix and self.path != "demo":
            raise ValueError(f"path={self.path!r} and mix: set only one of them")
        return self

    def parts(self) -> list[DataConfig]:
        """One config per source."""
        if not self.mix:
            return [self]
        parts = []
        for source in self.mix:
            own = source.model_dump(exclude={"weight"})
            inherited = {name for name in ("columns", "ranked_pairs") if own[name] is None}
            parts.append(self.model_copy(update={"mix": ()} | {k: v for k, v in own.items() if k not in inherited}))
        return parts


class SynthesisConfig(Section):
    """How pairs become relation groups."""

    # `grid`: three prompts, six sequences. `independent`: separate prompts for intra and inter, as in the paper.
    layout: Literal["grid", "independent"] = "grid"
    condition: Literal["all", "any"] = "all"  # Condition of the intra relations (docs/method.md, "The two data sets").
    min_instructions: int = Field(default=1, ge=1)  # Fewest instructions added to a prompt.
    max_instructions: int = Field(default=3, ge=1)  # Most instructions added to a prompt.
    # Weights of the number of instructions, as in `{1: 2, 3: 1}`, instead of a uniform range.
    k_weights: dict[int, float] | None = None
    functions: tuple[str, ...] | None = None  # Names of the instruction functions to use. null: all registered ones.
    modules: tuple[PathText, ...] = ()  # Modules or .py files with your own functions. Their code is executed.
    # Sampling weight of each family. Families that are not listed have weight 1; 0 excludes a family.
    family_weights: dict[str, float] = Field(default_factory=dict)
    held_out_families: tuple[str, ...] = ()  # Families used only in the held-out split.
    held_out_phrasings: bool = False  # Use the last phrasing of each function only in the held-out split.
    seen_phrasings_only: bool = False  # Exclude held-out phrasings. Set by `for_training`, not by users.
    groups_per_pair: int = Field(default=1, ge=1)  # Groups made from each pair, with different instructions.
    # Minimum p(yes) or p(no) from the judge for a soft instruction to be used.
    soft_confidence: float = Field(default=0.8, gt=0.5, le=1.0)
    attempts: int = Field(default=8, ge=1)  # Draws of instruction functions before a pair is rejected.
    rows_per_shard: int = Field(default=1000, ge=1)  # Pairs in one output file.

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.max_instructions < self.min_instructions:
            raise ValueError(
                f"max_instructions={self.max_instructions}: expected at least min_instructions={self.min_instructions}"
            )
        return self

    @field_validator("k_weights")
    @classmethod
    def _numbers(cls, value: dict[int, float] | None) -> dict[int, float] | None:
        if value is not None and (not value or min(value) < 1 or not _are_weights(value.values())):
            raise ValueError("expected {k: weight} with k >= 1 and finite weights >= 0, at least one above 0")
        return value

    @field_validator("family_weights")
    @classmethod
    def _families(cls, value: dict[str, float]) -> dict[str, float]:
        if value and not _are_weights([*value.values(), 1.0]):
            raise ValueError("expected {family: weight} with finite weights >= 0")
        return value

    @cached_property
    def digest(self) -> str:
        """A cache key: equal configs have the same digest."""
        return self.model_dump_json()

    @property
    def least_instructions(self) -> int:
        """The smallest k that can be drawn."""
        if self.k_weights is None:
            return self.min_instructions
        return min(k for k, weight in self.k_weights.items() if weight > 0)

    def for_training(self) -> SynthesisConfig:
        """The config for the train split: without held-out families and phrasings."""
        held_out = dict.fromkeys(self.held_out_families, 0.0)
        seen = self.seen_phrasings_only or self.held_out_phrasings
        return self.model_copy(
            update={"family_weights": {**self.family_weights, **held_out}, "seen_phrasings_only": seen}
        )
