"""The evaluation stage: score groups, generate responses, and compute the results with their provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mapl_ray.config import Method, RunConfig
from mapl_ray.data.shards import read_manifest, write_rejections
from mapl_ray.distributed.answer_stage import answer_own_prompts, asked_models
from mapl_ray.distributed.evaluation_groups import HELD_OUT, EvaluationGroups, evaluation_groups, set_folder
from mapl_ray.distributed.evaluation_scores import EvaluationScores, score_groups_of_evaluation
from mapl_ray.distributed.generate import PolicyAnswers, answer_prompts
from mapl_ray.distributed.preflight import METHODS
from mapl_ray.distributed.training_job import data_dirs
from mapl_ray.errors import UserError
from mapl_ray.evaluation import Provenance, Results, collect_provenance
from mapl_ray.evaluation.checkpoints import Checkpoint, named_checkpoints
from mapl_ray.evaluation.columns import GroupColumns
from mapl_ray.evaluation.compare import baseline_pairs, pairs_with_the_first
from mapl_ray.evaluation.evaluated import Encoders, UsableRows, usable_rows
from mapl_ray.evaluation.invariance import ScoredVariant
from mapl_ray.evaluation.items import Rewards
from mapl_ray.evaluation.public_sets import PublicSet, read_set
from mapl_ray.evaluation.results import evaluate_columns
from mapl_ray.evaluation.set_results import SetResults, following_results, preference_results
from mapl_ray.instructions import REGISTRY
from mapl_ray.models import load_tokenizer, model_identity
from mapl_ray.synthesis import load_modules

Pairs = Sequence[tuple[str, str]]


def run_evaluation(config: RunConfig) -> Results:
    """Evaluate the models on the held-out groups and on public sets; parts, rejections and responses are written to
    `run_dir/evaluation`.

    Raises `UserError` if there is no model, or no data to evaluate it on.
    """
    given = config.evaluation.models
    models = named_checkpoints(given) if given else trained_models(config)
    sets = [read_set(name, one) for name, one in config.evaluation.sets.items()]
    _write_rejections(config, sets)
    load_modules(config.synthesis.modules)  # the families of the user's own functions
    source, digests = _held_out(config, alone=not sets)
    asked = asked_models(config, models)
    encoders = Encoders.of(models, _limit(config, models))
    data = evaluation_groups(config, models, encoders, source, sets)
    held_out = data.get(HELD_OUT)
    if held_out is not None and not held_out.counts["groups"]:
        raise UserError(f"no held-out group can be evaluated. {held_out.first_rejection}.")
    usable = {one.name: usable_rows(one, _places(data.get(set_folder(one.name))), encoders) for one in sets}
    _write_rejections(config, sets)  # again: a model's chat template may have rejected more
    scores = score_groups_of_evaluation(config, models, encoders, data)
    answers = answer_prompts(config, [m for m in models if m.method == "dpo"], [s for s in sets if s.following])
    names = [model.name for model in models]
    pairs = pairs_with_the_first(names) if given else baseline_pairs(names)
    own, own_digest = answer_own_prompts(config, asked, held_out, pairs)
    added = [] if asked is None else [policy for policy in asked.policies if policy not in models]
    digests |= {**{f"set {one.name}": one.digest for one in sets}, **own_digest}
    families = {name: function.family for name, function in REGISTRY.items()}
    columns = GroupColumns.of_tables(() if held_out is None else held_out.tables(), families)
    return evaluate_columns(
        columns,
        {} if held_out is None else {model.name: scores.rewards(model, held_out) for model in models},
        families,
        _provenance(config, [*models, *added], held_out, digests),
        config.evaluation,
        dict[int, Any]().__getitem__ if held_out is None else held_out.row,
        seed=config.seed,
        comparisons=pairs if len(columns) else [],
        unseen_families=config.synthesis.held_out_families,
        unseen_phrasings=config.synthesis.held_out_phrasings,
        variants={} if held_out is None else _variants(models, scores, held_out, families),
        sets={
            one.name: _following(config, one, answers.get(one.name, {}), pairs)
            if one.following
            else _preference(config, one, usable[one.name], models, scores, data.get(set_folder(one.name)), pairs)
            for one in sets
        },
        own_prompts=own,
    )


def model_name(method: Method, baseline: bool) -> str:
    """Folder of a trained model below the run directory."""
    return f"{method}-baseline" if baseline else method


def trained_models(config: RunConfig) -> list[Checkpoint]:
    """The models that the run has trained. Raises `UserError` if there is none."""
    found = []
    for method in METHODS:
        for baseline in (False, True):
            folder = config.run_dir / model_name(method, baseline)
            if (folder / "result.json").is_file():
                found.append(Checkpoint(folder.name, str(folder / "model"), None, method))
    if not found:
        raise UserError(
            f"{config.run_dir}: no trained model to evaluate. Run `mapl train rm` or `mapl train dpo` first, or name "
            "models (--models, evaluation.models)."
        )
    return found


def _held_out(config: RunConfig, alone: bool) -> tuple[Path | None, dict[str, str]]:
    """Folder of the held-out groups, and the content hashes of both splits. None and {} if only public sets exist."""
    if not alone and not (config.data_dir / "groups" / "eval" / "manifest.json").is_file():
        return None, {}
    train, held_out = data_dirs(config)
    if held_out is None:
        if alone:
            raise UserError(f"{config.run_dir}: no held-out groups. Raise data.eval_fraction or data.limit.")
        return None, {}
    digests = {"train": read_manifest(train).content_hash, "held-out": read_manifest(held_out).content_hash}
    return held_out, digests


def _limit(config: RunConfig, models: Sequence[Checkpoint]) -> int:
    return min(config.training(model.method).max_sequence_tokens for model in models)


def _write_rejections(config: RunConfig, sets: Sequence[PublicSet]) -> None:
    for one in sets:
        write_rejections(config.run_dir / "evaluation" / f"{one.name}-rejected.jsonl", one.rejected)


def _provenance(
    config: RunConfig, models: Sequence[Checkpoint], held_out: EvaluationGroups | None, data: dict[str, str]
) -> Provenance:
    tokenizers = {model.name: load_tokenizer(model.path, model.revision) for model in models}
    counts = {} if held_out is None else held_out.counts
    return collect_provenance(
        seed=config.seed,
        data=data,
        chat_templates={name: tokenizer.chat_template for name, tokenizer in tokenizers.items()},
        counts={
            "held-out groups": counts.get("groups", 0),
            "held-out groups left out as too long": counts.get("too long", 0),
            "held-out groups left out by a chat template": counts.get("refused", 0),
        },
        settings={"data": data, **_settings(config, models)},
    )


def _settings(config: RunConfig, models: Sequence[Checkpoint]) -> dict[str, Any]:
    """Everything except the data that determines the results."""
    resources = {"cpus", "gpus", "micro_batch_size", "concurrency"}
    return {
        "seed": config.seed,
        "models": {model.name: model_identity(model.path, model.revision) for model in models},
        "evaluation": config.evaluation.model_dump(mode="json", exclude=resources),
    }


def _variants(
    models: Sequence[Checkpoint], scores: EvaluationScores, held_out: EvaluationGroups, families: Mapping[str, str]
) -> dict[str, ScoredVariant]:
    """The variants by kind, without kinds that no group has."""
    found = {}
    for kind in held_out.kinds:
        columns = GroupColumns.of_tables(held_out.tables(kind), families)
        if len(columns):
            rewards = {model.name: scores.rewards(model, held_out, kind) for model in models}
            found[kind] = ScoredVariant(columns, held_out.originals(kind), rewards)
    return found


def _places(groups: EvaluationGroups | None) -> dict[int, int]:
    """Map each group's index among all groups of a set to its index among those that fit every model."""
    return {} if groups is None else {place: number for number, place in enumerate(groups.places().tolist())}


def _preference(
    config: RunConfig,
    one: PublicSet,
    usable: UsableRows,
    models: Sequence[Checkpoint],
    scores: EvaluationScores,
    groups: EvaluationGroups | None,
    pairs: Pairs,
) -> SetResults:
    rewards: dict[str, list[Rewards]] = {model.name: [] for model in models}
    if groups is not None:
        ends = np.cumsum(groups.sizes())[:-1]
        for model in models:
            by_group = [tuple(some.tolist()) for some in np.split(scores.rewards(model, groups), ends)]
            rewards[model.name] = [[by_group[place] for place in places] for places in usable.places]
    samples = config.evaluation.bootstrap_samples
    return preference_results(one, usable.rows, rewards, pairs, samples, config.seed)


def _following(config: RunConfig, one: PublicSet, answers: Mapping[str, PolicyAnswers], pairs: Pairs) -> SetResults:
    responses = {name: (given.responses, given.cut) for name, given in answers.items()}
    rows = next((given.rows for given in answers.values()), [])
    return following_results(one, rows, responses, pairs, config.evaluation.bootstrap_samples, config.seed)
