"""Typed run configs: one YAML file describes a whole run, dotted overrides change single values.

Unknown keys fail, every default stands here and nowhere else, and everything that can be checked without a cluster
is checked when the config is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mapl_ray.errors import UserError
from mapl_ray.records import LEVEL_FAMILIES

Method = Literal["rm", "dpo"]


def _are_weights(values: Collection[float]) -> bool:
    return all(math.isfinite(value) and value >= 0 for value in values) and sum(values) > 0


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MixSource(_Section):
    """One of several sources."""

    path: str
    format: Literal["auto", "pairs", "hh", "ultrafeedback"] = "auto"
    split: str = "train"
    revision: str | None = None
    weight: float = Field(default=1.0, gt=0.0)  # 0.25: every fourth pair; 2: every pair twice


class DataConfig(_Section):
    """Where the original preference pairs come from."""

    path: str = "demo"  # file, folder, s3:// and the like, hub name, or `demo` for the sample that is shipped
    mix: tuple[MixSource, ...] = ()  # several sources in the place of `path`; `limit` then counts for each
    format: Literal["auto", "pairs", "hh", "ultrafeedback"] = "auto"
    split: str = "train"  # of a Hugging Face data set; files have none
    revision: str | None = None  # of a hub data set
    limit: int | None = Field(default=None, ge=1)  # take the first n rows
    eval_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)  # held out, by prompt
    duplicates: Literal["keep", "exact", "near"] = "exact"  # of whole pairs; all but the first are rejected
    near_threshold: float = Field(default=0.9, gt=0.0, le=1.0)  # share of runs of three words that are the same
    benchmarks: tuple[str, ...] = ()  # files of prompts that must not be trained on
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
        plain = {"mix": ()}
        return [self.model_copy(update=plain | source.model_dump(exclude={"weight"})) for source in self.mix]


class SynthesisConfig(_Section):
    """How pairs become relation groups."""

    layout: Literal["grid", "independent"] = "grid"
    condition: Literal["all", "any"] = "all"  # of the intra relations (METHOD.md, "The two datasets")
    min_instructions: int = Field(default=1, ge=1)
    max_instructions: int = Field(default=3, ge=1)
    k_weights: dict[int, float] | None = None  # {1: 2, 3: 1}: how often k instructions; takes the place of the range
    functions: tuple[str, ...] | None = None  # names from the registry; None takes all
    modules: tuple[str, ...] = ()  # modules (or .py files) with functions of your own; their code is run
    family_weights: dict[str, float] = Field(default_factory=dict)  # 1 where not named; 0 leaves a family out
    held_out_families: tuple[str, ...] = ()  # in the held-out split's groups alone
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
        """What the train split's groups are made by: families that are held out have no weight."""
        held_out = dict.fromkeys(self.held_out_families, 0.0)
        return self.model_copy(update={"family_weights": {**self.family_weights, **held_out}})


class TinyModelConfig(_Section):
    """A small Llama with a byte-level BPE tokenizer, built from the run's own texts: no hub needed."""

    vocab_size: int = Field(default=2000, ge=300)
    hidden_size: int = Field(default=128, ge=8)
    num_layers: int = Field(default=4, ge=1)
    num_heads: int = Field(default=4, ge=1)
    max_position_embeddings: int = Field(default=4096, ge=64)

    @model_validator(mode="after")
    def _head_size(self) -> Self:
        # vLLM's CPU attention has kernels for heads of 32, 64, 96, ... alone.
        if self.hidden_size % (32 * self.num_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} and num_heads={self.num_heads}: "
                f"expected a multiple of 32 * num_heads = {32 * self.num_heads}"
            )
        return self


class ModelConfig(_Section):
    """The base model: a local directory, a hub name, or a tiny one built on the spot (`name_or_path: tiny`)."""

    name_or_path: str = "tiny"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    tiny: TinyModelConfig = TinyModelConfig()


class ScoringConfig(_Section):
    """vLLM actors: which columns to fill, and what one engine takes."""

    ref_logps: bool = True  # log-probabilities of every sequence under the policy
    reward_model: str | None = None  # fill `rewards` with this model
    num_engines: int = Field(default=1, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    cpus_per_engine: int = Field(default=1, ge=1)
    gpus_per_engine: int = Field(default=0, ge=0)
    kv_cache_gib: int = Field(default=1, ge=1)  # CPU engines
    gpu_memory_utilization: float = Field(default=0.85, gt=0.0, le=1.0)
    max_model_len: int = Field(default=4096, ge=16)
    batch_groups: int = Field(default=64, ge=1)  # groups handed to the engine at once


class LevelWeights(_Section):
    """Weights of the levels: the loss is `L_pref + lambda_intra * L_intra + lambda_inter * L_inter`."""

    lambda_intra: float = Field(default=1.0, ge=0.0)
    lambda_inter: float = Field(default=1.0, ge=0.0)

    def of(self, family: str) -> float:
        """The weight of a level family (`pref`, `intra`, `inter`)."""
        return {"pref": 1.0, "intra": self.lambda_intra, "inter": self.lambda_inter}[family]


class TrainConfig(_Section):
    """One training run, reward model or DPO. Sizes are in groups: one original pair is one group."""

    weights: LevelWeights = LevelWeights()
    beta: float = Field(default=0.1, gt=0.0)  # DPO
    learning_rate: float = Field(default=5e-6, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    warmup_ratio: float = Field(default=0.05, ge=0.0, lt=1.0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    epochs: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    micro_batch_size: int = Field(default=4, ge=1)  # groups on one worker at once
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    batching: Literal["tree", "padded"] = "tree"
    max_sequence_tokens: int = Field(default=2048, ge=16)
    zero_stage: Literal[0, 1, 2, 3] = 2
    bf16: bool = False
    gradient_checkpointing: bool = False
    num_workers: int = Field(default=1, ge=1)
    cpus_per_worker: float = Field(default=1.0, gt=0.0)
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    eval_every_steps: int = Field(default=50, ge=1)
    checkpoint_every_steps: int = Field(default=50, ge=1)
    checkpoints_to_keep: int = Field(default=2, ge=1)
    max_failures: int = Field(default=1, ge=0)  # restarts after a worker dies; a non-finite loss never restarts
    seed: int = 0


class TuneConfig(_Section):
    """A Ray Tune search of the loss weights."""

    method: Method = "rm"
    num_trials: int = Field(default=4, ge=1)
    max_concurrent_trials: int = Field(default=1, ge=1)
    lambda_intra: tuple[float, float] = (0.1, 2.0)  # drawn log-uniformly
    lambda_inter: tuple[float, float] = (0.1, 2.0)
    beta: tuple[float, float] | None = None  # DPO only
    max_steps: int = Field(default=50, ge=1)  # of one trial
    eval_every_steps: int = Field(default=10, ge=1)
    grace_period_steps: int = Field(default=10, ge=1)  # ASHA stops no trial before
    # The weighted mean of these level accuracies is maximised.
    objective: dict[str, float] = {"pref": 1.0, "intra": 0.5, "inter": 0.5}
    seed: int = 0

    @field_validator("objective")
    @classmethod
    def _levels(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or set(value) - set(LEVEL_FAMILIES) or min(value.values()) < 0 or sum(value.values()) <= 0:
            raise ValueError(f"expected non-negative weights of {', '.join(LEVEL_FAMILIES)}, at least one above 0")
        return value

    @field_validator("lambda_intra", "lambda_inter", "beta")
    @classmethod
    def _bounds(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0.0 < value[0] <= value[1]:
            raise ValueError(f"expected [low, high] with 0 < low <= high, got {list(value)}")
        return value


class EvaluationConfig(_Section):
    """Evaluation of the trained models on the held-out groups."""

    baseline: bool = True  # train and evaluate the plain baseline too (lambda_intra = lambda_inter = 0)
    micro_batch_size: int = Field(default=4, ge=1)
    bootstrap_samples: int = Field(default=1000, ge=0)  # for 95 % intervals, resampled by prompt
    cpus: float = Field(default=1.0, gt=0.0)
    gpus: float = Field(default=0.0, ge=0.0)


class ClusterConfig(_Section):
    """Where Ray runs. Without an address, a private single-machine cluster is started and stopped."""

    address: str | None = None  # None: this machine; `auto`: the cluster this process is on; else host:port
    num_cpus: int | None = Field(default=None, ge=1)  # logical CPUs of a private cluster; None: as many as there are
    synthesis_workers: int | None = Field(default=None, ge=1)  # None: as many as there are CPUs


class RunConfig(_Section):
    """A whole run. Every stage reads the same file and writes below `output_dir/name`."""

    name: str = "mapl"
    output_dir: str = "runs"
    data_run: str | None = None  # the run (a name below output_dir) whose pairs, groups and scores this one takes
    seed: int = 0
    data: DataConfig = DataConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    model: ModelConfig = ModelConfig()
    scoring: ScoringConfig = ScoringConfig()
    train: TrainConfig = TrainConfig()
    rm: dict[str, Any] = Field(default_factory=dict)  # what the reward model does otherwise than `train`
    dpo: dict[str, Any] = Field(default_factory=dict)  # what DPO does otherwise than `train`
    tune: TuneConfig = TuneConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("name", "data_run")
    @classmethod
    def _confined(cls, value: str | None) -> str | None:
        # Ray Train joins the run name to its storage path unchecked: `../../x` would escape it.
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise ValueError(
                f"expected letters, digits, '.', '_' and '-', starting with a letter or digit; got {value!r}"
            )
        return value

    @property
    def run_dir(self) -> Path:
        """Absolute: workers start in other folders than the driver."""
        return (Path(self.output_dir) / self.name).resolve()

    @property
    def data_dir(self) -> Path:
        """Where pairs, groups and scores are: this run's folder, or that of `data_run`."""
        return (Path(self.output_dir) / (self.data_run or self.name)).resolve()

    def training(self, method: Method) -> TrainConfig:
        """The `train` section with the method's own values laid over it."""
        merged = self.train.model_dump()
        _merge(merged, self.rm if method == "rm" else self.dpo)
        return TrainConfig.model_validate(merged)


def load_config(path: str | Path | None, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file (None: all defaults) and apply `section.key=value` overrides, values parsed as YAML.

    Raises `UserError` naming file, key and value for anything that is not a valid run.
    """
    values: Any = {}
    where = "defaults"
    if path is not None:
        where = str(path)
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such config file. Recipes are in jobs/configs/.") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"{path}: not a readable YAML file: {error}") from None
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a mapping of sections at the top, got {type(values).__name__}.")
    for override in overrides or []:
        _apply_override(values, override)
    return parse_config(values, where)


def parse_config(values: dict[str, Any], where: str) -> RunConfig:
    """Validate plain values; `where` names their origin in messages."""
    section: tuple[str, ...] = ()
    try:
        config = RunConfig.model_validate(values)
        for section in (("rm",), ("dpo",)):
            config.training("rm" if section == ("rm",) else "dpo")
        return config
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in (*section, *item["loc"]))
            if item["type"] == "extra_forbidden":
                root = TrainConfig if section else RunConfig
                lines.append(f"unknown key '{key}'. {_known_keys(root, item['loc'])}")
            else:
                lines.append(f"{key}={item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
        raise UserError(f"{where}: " + "; ".join(lines)) from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r}: expected section.key=value, as in rm.zero_stage=3.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not valid YAML: {error}") from None
    *parents, leaf = key.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"override {override!r}: '{parent}' is a value, not a section.")
    node[leaf] = _number(value)
    if parents and parents[0] == "train":
        # The command line has the last word: it also wins over what the file says for one method.
        for method in ("rm", "dpo"):
            _remove(values.get(method), [*parents[1:], leaf])


def _remove(node: Any, keys: list[str]) -> None:
    for key in keys[:-1]:
        node = node.get(key) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(keys[-1], None)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _number(value: Any) -> Any:
    # YAML 1.1 reads `5e-6` as text; people write learning rates so.
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


def _known_keys(root: type[BaseModel], location: tuple[int | str, ...]) -> str:
    model = root
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return f"Known keys here: {', '.join(model.model_fields)}."
