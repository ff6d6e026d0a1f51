"""Checks before a cluster starts, so that an hour of waiting does not end with a missing file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from mapl_ray.config import Method, RunConfig
from mapl_ray.distributed.group_templates import check_templates
from mapl_ray.distributed.search.tune_optuna import check_optuna
from mapl_ray.errors import UserError
from mapl_ray.evaluation.checkpoints import named_checkpoints, split_revision
from mapl_ray.evaluation.public_sets import read_set
from mapl_ray.models import (
    Kind,
    check_model_directory,
    check_shareable,
    load_tokenizer,
    verify_adapter,
    verify_base,
    verify_model,
    verify_shareable,
)
from mapl_ray.preferences import Contamination, check_source
from mapl_ray.scoring import check_engine, check_lora, check_same_tokenizer
from mapl_ray.scoring.judge import judge_prompts, judge_questions
from mapl_ray.synthesis import select_functions
from mapl_ray.training.engine_config import check_quantize, check_sizes
from mapl_ray.training.loggers import check_loggers

METHODS: tuple[Method, ...] = ("rm", "dpo")


def check_inputs(config: RunConfig, stages: Sequence[str]) -> None:
    """Check the files and names that the stages need. Raises `UserError` for the first problem."""
    if config.model.name_or_path != "tiny":
        check_model_directory(config.model.name_or_path, config.model.revision)
    if "synthesize" in stages:
        check_source(config.data)
        Contamination.load(config.data)
        select_functions(config.synthesis)
        _check_pair_scoring(config)
    if "score" in stages:
        if not config.scoring.ref_logps and config.scoring.reward_model is None:
            raise UserError("nothing to score: set scoring.ref_logps=true or scoring.reward_model.")
        _check_scoring(config)
    for method in METHODS:
        if f"train {method}" in stages or ("tune" in stages and config.tune.method == method):
            train = config.training(method)
            check_loggers(train.loggers)
            check_sizes(train)
            check_quantize(train)
            size, tiny = train.sequence_parallel_size, config.model.tiny
            if config.model.name_or_path == "tiny":
                check_shareable(SimpleNamespace(num_attention_heads=tiny.num_heads), size, "model.tiny")
            else:
                verify_base(config.model.name_or_path, method, config.model.revision, "model.name_or_path=")
                verify_shareable(config.model.name_or_path, size, config.model.revision)
    if "tune" in stages and config.tune.search == "optuna":
        check_optuna()
    if "evaluate" in stages:
        for model in named_checkpoints(config.evaluation.models):
            kind: Kind = "reward model" if model.method == "rm" else "policy"
            verify_model(model.path, kind, model.revision, "evaluation.models: ")
        if config.evaluation.reference is not None:
            path, revision = split_revision(config.evaluation.reference)
            verify_model(path, "policy", revision, "evaluation.reference=")
        for name, one in config.evaluation.sets.items():
            read_set(name, one)
    for stage in stages:
        check_templates(config, stage)
    if "train dpo" in stages and "score" in stages and not config.scoring.ref_logps:
        # Training works without them (`train.reference`), but evaluation would fail hours later.
        raise UserError("scoring.ref_logps=false: the evaluation of DPO needs ref_logps. Set it to true.")


def _check_scoring(config: RunConfig) -> None:
    scoring, model = config.scoring, config.model
    for name, revision in (
        (scoring.reward_model, scoring.reward_model_revision),
        (scoring.ref_model, scoring.ref_model_revision),
    ):
        if name is not None:
            check_model_directory(name, revision)
    check_engine(config)
    if scoring.lora is not None:
        check_lora(scoring.lora, scoring)
    if scoring.reward_model is not None:
        verify_model(scoring.reward_model, "reward model", scoring.reward_model_revision, "scoring.reward_model=")
    if scoring.ref_model is not None:
        verify_model(scoring.ref_model, "policy", scoring.ref_model_revision, "scoring.ref_model=")
    elif scoring.ref_logps:
        _verify_policy(config)
    base = scoring.ref_model or model.name_or_path
    if scoring.lora is not None and Path(base).is_dir():
        verify_adapter(Path(scoring.lora).expanduser(), base)
    if scoring.ref_model is not None and model.name_or_path != "tiny":  # a tiny model is built from data not read yet
        check_same_tokenizer(scoring.ref_model, model.name_or_path, scoring.ref_model_revision, model.revision)


def _check_pair_scoring(config: RunConfig) -> None:
    judge, rewards = config.scoring.judge, config.scoring.pair_reward_model
    rewards_revision = config.scoring.pair_reward_model_revision
    if judge.model is not None:
        judge_questions(config.synthesis, judge.functions)
    for model, revision in ((judge.model, judge.revision), (rewards, rewards_revision)):
        if model not in (None, "policy"):
            check_model_directory(str(model), revision)
    if config.scoring.scores_pairs:
        check_engine(config)
    if judge.model == "policy":
        _verify_policy(config)
    elif judge.model is not None:
        verify_model(judge.model, "policy", judge.revision, "scoring.judge.model=")
        if Path(judge.model).is_dir():
            judge_prompts("A response.", ["Is it formal?"], load_tokenizer(judge.model))
    if rewards is not None:
        verify_model(rewards, "reward model", rewards_revision, "scoring.pair_reward_model=")


def _verify_policy(config: RunConfig) -> None:
    model = config.model
    if model.name_or_path != "tiny":
        verify_model(model.name_or_path, "policy", model.revision, "model.name_or_path=")
