"""Evaluation: models score groups and write responses, a Ray task a model; results and their provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from mapl_ray.config import Method, RunConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import read_groups, read_manifest, write_rejections
from mapl_ray.distributed.generate import PolicyAnswers, answer_prompts
from mapl_ray.distributed.preflight import METHODS
from mapl_ray.distributed.prepare import resolve_model
from mapl_ray.distributed.training_job import data_dirs
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation import Results, collect_provenance, evaluate_models
from mapl_ray.evaluation.checkpoints import Checkpoint, named_checkpoints, split_revision
from mapl_ray.evaluation.compare import baseline_pairs, pairs_with_the_first
from mapl_ray.evaluation.public_sets import PublicSet, read_set
from mapl_ray.evaluation.set_results import SetResults, following_results, preference_results
from mapl_ray.evaluation.variants import make_variants
from mapl_ray.evaluation.workload import ScoredWorkload, Workload, length_check, make_workload
from mapl_ray.instructions import REGISTRY
from mapl_ray.models import load_tokenizer, model_identity
from mapl_ray.scoring import check_same_tokenizer
from mapl_ray.synthesis import load_modules

Pairs = Sequence[tuple[str, str]]


def run_evaluation(config: RunConfig) -> Results:
    """Measure the models on the held-out groups and on public sets; bad rows and responses go to `run_dir/evaluation`.

    Raises `UserError` where there is no model, or nothing to measure it on.
    """
    given = config.evaluation.models
    models = named_checkpoints(given) if given else trained_models(config)
    sets = [read_set(name, one) for name, one in config.evaluation.sets.items()]
    for one in sets:
        write_rejections(config.run_dir / "evaluation" / f"{one.name}-rejected.jsonl", one.rejected)
    load_modules(config.synthesis.modules)  # the families of the user's own functions
    groups, digests = _held_out(config, alone=not sets)
    work = _workload(config, models, groups, sets)
    for one in sets:  # again: a model's chat template may have rejected more
        write_rejections(config.run_dir / "evaluation" / f"{one.name}-rejected.jsonl", one.rejected)
    scored = work.split(_all_rewards(config, models, work.groups()))
    answers = answer_prompts(config, [m for m in models if m.method == "dpo"], [s for s in sets if s.following])
    names = [model.name for model in models]
    pairs = pairs_with_the_first(names) if given else baseline_pairs(names)
    tokenizers = {model.name: load_tokenizer(model.path, model.revision) for model in models}
    data = {**digests, **{f"set {one.name}": one.digest for one in sets}}
    provenance = collect_provenance(
        seed=config.seed,
        data=data,
        chat_templates={name: tokenizer.chat_template for name, tokenizer in tokenizers.items()},
        counts={
            "held-out groups": len(work.held_out),
            "held-out groups left out as too long": len(work.left_out) - work.refused,
            "held-out groups left out by a chat template": work.refused,
        },
        settings={"data": data, **_settings(config, models)},
    )
    return evaluate_models(
        work.held_out,
        scored.held_out if work.held_out else {},
        {name: function.family for name, function in REGISTRY.items()},
        provenance,
        config.evaluation,
        seed=config.seed,
        comparisons=pairs if work.held_out else [],
        unseen_families=config.synthesis.held_out_families,
        unseen_phrasings=config.synthesis.held_out_phrasings,
        variants=scored.variants,
        sets={one.name: _set_results(config, one, work, scored, answers.get(one.name, {}), pairs) for one in sets},
    )


def _settings(config: RunConfig, models: Sequence[Checkpoint]) -> dict[str, Any]:
    """All but the data that decides the numbers."""
    return {
        "seed": config.seed,
        "models": {model.name: model_identity(model.path, model.revision) for model in models},
        "evaluation": config.evaluation.model_dump(mode="json", exclude={"cpus", "gpus", "micro_batch_size"}),
    }


def model_name(method: Method, baseline: bool) -> str:
    """Folder of a trained model below the run directory."""
    return f"{method}-baseline" if baseline else method


def trained_models(config: RunConfig) -> list[Checkpoint]:
    """The models that the run has trained. Raises `UserError` where there is none."""
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


def _held_out(config: RunConfig, alone: bool) -> tuple[list[RelationGroup], dict[str, str]]:
    """The held-out groups, and the content hashes of both splits. Where public sets are given, there may be none."""
    if not alone and not (config.data_dir / "groups" / "eval" / "manifest.json").is_file():
        return [], {}
    train, held_out = data_dirs(config)
    if held_out is None:
        if alone:
            raise UserError(f"{config.run_dir}: no held-out groups. Raise data.eval_fraction or data.limit.")
        return [], {}
    digests = {"train": read_manifest(train).content_hash, "held-out": read_manifest(held_out).content_hash}
    return read_groups(held_out), digests


def _workload(
    config: RunConfig, models: Sequence[Checkpoint], groups: list[RelationGroup], sets: Sequence[PublicSet]
) -> Workload:
    limit = _limit(config, models)
    held_out_phrasings = config.synthesis.held_out_phrasings
    work = make_workload(
        groups,
        (lambda some: make_variants(some, config.seed, held_out_phrasings)) if config.evaluation.invariance else None,
        sets,
        length_check(models, limit),
    )
    if groups and not work.held_out:
        first = work.left_out[0]
        raise UserError(f"no held-out group can be evaluated. {first.pair_id}: {first.reason}.")
    return work


def _limit(config: RunConfig, models: Sequence[Checkpoint]) -> int:
    return min(config.training(model.method).max_sequence_tokens for model in models)


def _all_rewards(
    config: RunConfig, models: Sequence[Checkpoint], groups: list[RelationGroup]
) -> dict[str, list[tuple[float, ...]]]:
    """Every model's rewards of the groups; those without ref_logps get them from the reference if DPO needs them."""
    if not groups:
        return {model.name: [] for model in models}
    limit = _limit(config, models)
    policies = [model for model in models if model.method == "dpo"]
    lacking = [index for index, group in enumerate(groups) if group.ref_logps is None]
    if policies and lacking:
        reference = _reference(config)
        for policy in policies:
            check_same_tokenizer(reference.path, policy.path, reference.revision, policy.revision)
        task = _task(config, _reference_logps).remote([groups[i] for i in lacking], reference, config, limit)
        for index, logps in zip(lacking, _result(task, f"reference {reference.name}"), strict=True):
            groups[index] = replace(groups[index], ref_logps=logps)
    shared = ray.put(groups)
    waiting = {model.name: _task(config, _rewards).remote(shared, model, config, limit) for model in models}
    rewards = {}
    for name, task in waiting.items():
        rewards[name] = _result(task, f"model {name}")
        print(f"  {name}: {len(groups)} groups scored", flush=True)
    return rewards


def _reference(config: RunConfig) -> Checkpoint:
    named = config.evaluation.reference
    if named is not None:
        path, revision = split_revision(named)
    elif config.scoring.lora is not None:
        raise UserError(
            "scoring.lora is applied to the reference and is not a whole model: name one in evaluation.reference."
        )
    elif config.scoring.ref_model is not None:
        path, revision = config.scoring.ref_model, config.scoring.ref_model_revision
    else:
        try:
            path, revision = resolve_model(config), config.model.revision
        except UserError as error:
            raise UserError(
                f"evaluation.reference: implicit rewards are against the policy that DPO began with. Name it ({error})"
            ) from None
    return Checkpoint(path.rsplit("/", 1)[-1], path, revision, "dpo")


def _task(config: RunConfig, function: Any) -> Any:
    return ray.remote(num_cpus=config.evaluation.cpus, num_gpus=config.evaluation.gpus, max_retries=1)(function)


def _result(task: Any, what: str) -> Any:
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, UserError | RunError) else RunError(f"{what}: {cause}") from None


def _rewards(groups: list[RelationGroup], model: Checkpoint, config: RunConfig, limit: int) -> list[tuple[float, ...]]:
    from mapl_ray.evaluation.rewards import model_rewards  # torch takes seconds

    section = config.training(model.method)
    return model_rewards(
        groups,
        model,
        beta=section.beta,
        micro_batch_size=config.evaluation.micro_batch_size,
        max_sequence_tokens=limit,
        length_normalised=section.objective.length_normalised,
    )


def _reference_logps(
    groups: list[RelationGroup], reference: Checkpoint, config: RunConfig, limit: int
) -> list[tuple[float, ...]]:
    from mapl_ray.evaluation.rewards import reference_logps

    size = config.evaluation.micro_batch_size
    return reference_logps(groups, reference, micro_batch_size=size, max_sequence_tokens=limit)


def _set_results(
    config: RunConfig,
    one: PublicSet,
    work: Workload,
    scored: ScoredWorkload,
    answers: Mapping[str, PolicyAnswers],
    pairs: Pairs,
) -> SetResults:
    samples, seed = config.evaluation.bootstrap_samples, config.seed
    if not one.following:
        return preference_results(one, work.rows[one.name], scored.rows[one.name], pairs, samples, seed)
    responses = {name: (given.responses, given.cut) for name, given in answers.items()}
    rows = next((given.rows for given in answers.values()), [])
    return following_results(one, rows, responses, pairs, samples, seed)
