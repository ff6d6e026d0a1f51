"""Where pairs come from, and how they become groups."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cached_property
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mapl_ray.config.path_text import PathText
from mapl_ray.config.section import Section

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
    """One of several sources."""

    path: PathText
    format: PairFormat = "auto"
    columns: dict[str, str] | None = None  # None: those of `data`
    ranked_pairs: RankedPairs | None = None  # likewise
    split: str = "train"
    revision: str | None = None
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)  # 0.25: every fourth pair; 2: every pair twice


class DataConfig(Section):
    """Where the original preference pairs come from."""

    path: PathText = "demo"  # file, folder, s3:// and the like, hub name, or `demo` for the sample that is shipped
    mix: tuple[MixSource, ...] = ()  # several sources in the place of `path`; `limit` then counts for each
    format: PairFormat = "auto"  # auto: by its columns
    columns: dict[str, str] = Field(default_factory=dict)  # {prompt: Question}: the data's own names of columns
    ranked_pairs: RankedPairs | None = None  # which pairs a ranked list of answers gives; needed where data has them
    nonpositive_margins: Literal["keep", "drop"] = "keep"  # pairs whose margin is 0 or below; they are counted
    split: str = "train"  # of a Hugging Face data set; files have none
    revision: str | None = None  # of a hub data set
    limit: int | None = Field(default=None, ge=1)  # take the first n rows
    eval_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)  # held out, by prompt
    duplicates: Literal["keep", "exact", "near"] = "exact"  # of whole pairs; all but the first are rejected
    near_threshold: float = Field(default=0.9, gt=0.0, le=1.0)  # share of runs of three words that are the same
    benchmarks: tuple[PathText, ...] = ()  # files, here or behind a URI, of prompts that must not be trained on
    benchmark_ngram: int = Field(default=13, ge=2)  # nor prompts that share a run of so many words with one
    max_response_chars: int = Field(default=20_000, ge=1)
    max_prompt_chars: int = Field(default=20_000, ge=1)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.mix and self.path != "demo":
            raise ValueError(f"path={self.path!r} and mix: give one of them")
        return self

    def parts(self) -> list[DataConfig]:
        """A config for every source."""
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

    layout: Literal["grid", "independent"] = "grid"
    condition: Literal["all", "any"] = "all"  # of the intra relations (METHOD.md, "The two datasets")
    min_instructions: int = Field(default=1, ge=1)
    max_instructions: int = Field(default=3, ge=1)
    k_weights: dict[int, float] | None = None  # {1: 2, 3: 1}: how often k instructions; takes the place of the range
    functions: tuple[str, ...] | None = None  # names from the registry; None takes all
    modules: tuple[PathText, ...] = ()  # modules (or .py files) with functions of your own; their code is run
    family_weights: dict[str, float] = Field(default_factory=dict)  # 1 where not named; 0 leaves a family out
    held_out_families: tuple[str, ...] = ()  # in the held-out split's groups alone
    held_out_phrasings: bool = False  # the last phrasing of every function, likewise
    seen_phrasings_only: bool = False  # without these phrasings; `for_training` sets it
    groups_per_pair: int = Field(default=1, ge=1)
    soft_confidence: float = Field(default=0.8, gt=0.5, le=1.0)  # a judge's p(yes) counts from here, p(no) alike
    attempts: int = Field(default=8, ge=1)  # draws of G1 before a pair is rejected
    rows_per_shard: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.max_instructions < self.min_instructions:
            raise ValueError(
                f"max_instructions={self.max_instructions} is below min_instructions={self.min_instructions}"
            )
        return self

    @field_validator("k_weights")
    @classmethod
    def _numbers(cls, value: dict[int, float] | None) -> dict[int, float] | None:
        if value is not None and (not value or min(value) < 1 or not _are_weights(value.values())):
            raise ValueError("expected {k: weight}, k from 1, weights finite and not negative, at least one above 0")
        return value

    @field_validator("family_weights")
    @classmethod
    def _families(cls, value: dict[str, float]) -> dict[str, float]:
        if value and not _are_weights([*value.values(), 1.0]):
            raise ValueError("expected {family: weight}, weights finite and not negative")
        return value

    @cached_property
    def digest(self) -> str:
        """The same for equal configs: what is worked out once a config is kept under it."""
        return self.model_dump_json()

    @property
    def least_instructions(self) -> int:
        """The smallest k that can be drawn."""
        if self.k_weights is None:
            return self.min_instructions
        return min(k for k, weight in self.k_weights.items() if weight > 0)

    def for_training(self) -> SynthesisConfig:
        """What the train split's groups are made by: without the families and phrasings that are held out."""
        held_out = dict.fromkeys(self.held_out_families, 0.0)
        seen = self.seen_phrasings_only or self.held_out_phrasings
        return self.model_copy(
            update={"family_weights": {**self.family_weights, **held_out}, "seen_phrasings_only": seen}
        )
