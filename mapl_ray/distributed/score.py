"""The scoring stage: one data set of scores per column, then the groups joined with all requested columns.

    groups/{split} -> scores/ref_logps/{split}, scores/rewards/{split}    actors on Ray Data: vLLM, or the trainer's
                                                                          forward pass for ref_logps
    groups/{split} and those -> scored/{split}                            one task per part

Engine output is stored separately, so adding or removing a column never recomputes another one.
"""

from __future__ import annotations

from pathlib import Path

from mapl_ray.config import RunConfig
from mapl_ray.data.shards import Manifest, fingerprint_of
from mapl_ray.distributed.group_templates import check_templates
from mapl_ray.distributed.join_scores import join_scores
from mapl_ray.distributed.prepare import SPLITS, resolve_model
from mapl_ray.distributed.score_actor import Actors, on_engines
from mapl_ray.distributed.shard_tasks import Stage, run_stages
from mapl_ray.errors import UserError
from mapl_ray.models import check_model_directory
from mapl_ray.scoring import ColumnScorer, EngineOptions, TreeOptions, check_engine, check_lora, check_same_tokenizer


def run_scoring(config: RunConfig) -> dict[str, Manifest]:
    """Score both splits: `data_dir/groups` -> `data_dir/scored`, with the columns that `scoring` requests.

    Raises `UserError` if no column is requested, and for invalid models, adapters and lengths.
    """
    scorers = column_scorers(config)
    check_templates(config, "score")
    made = [(scorer.column, _run_engines(config, scorer)) for scorer in scorers]
    stages = [
        Stage(
            "join scores",
            config.data_dir / "groups" / split,
            config.data_dir / "scored" / split,
            fingerprint_of(sorted(column for column, _ in made)),
            pairs=config.data_dir / "pairs" / split,
            beside=tuple(targets[split] for _, targets in sorted(made)),
        )
        for split in SPLITS
    ]
    columns = [column for column, _ in sorted(made)]
    done = run_stages(stages, lambda shards: join_scores(shards, stages, columns))
    for split, (manifest, parts) in zip(SPLITS, done, strict=True):
        _tell(split, f"{manifest.rows} groups with {' and '.join(columns)}, {manifest.rejected} rejected", parts)
    return {split: manifest for split, (manifest, _) in zip(SPLITS, done, strict=True)}


def column_scorers(config: RunConfig) -> list[ColumnScorer]:
    """The scorers of the requested columns. Raises the errors of `run_scoring`, without starting an engine."""
    scoring, model = config.scoring, config.model
    if not scoring.ref_logps and scoring.reward_model is None:
        raise UserError("nothing to score: set scoring.ref_logps=true or scoring.reward_model.")
    check_engine(config)
    scorers = []
    if scoring.ref_logps:
        trained = resolve_model(config)
        name, revision = trained, model.revision
        if scoring.ref_model is not None:
            check_same_tokenizer(scoring.ref_model, trained, scoring.ref_model_revision, model.revision)
            name, revision = scoring.ref_model, scoring.ref_model_revision
        lora = None if scoring.lora is None else str(Path(scoring.lora).expanduser().resolve())
        if lora is not None:
            check_lora(lora, scoring)
        options: EngineOptions | TreeOptions
        if scoring.ref_logps_by == "trainer":
            options = TreeOptions.of(config, _absolute(name), revision, lora)
        else:
            options = EngineOptions.of(scoring, _absolute(name), revision, config.engine_dtype, config.seed, lora)
        scorers.append(ColumnScorer("ref_logps", options))
    if scoring.reward_model is not None:
        check_model_directory(scoring.reward_model, scoring.reward_model_revision)
        name, revision = _absolute(scoring.reward_model), scoring.reward_model_revision
        options = EngineOptions.of(scoring, name, revision, config.engine_dtype, config.seed)
        scorers.append(ColumnScorer("rewards", options))
    return scorers


def _absolute(name: str) -> str:
    """Make a local path absolute, because actors start in other folders than the driver; keep a hub name as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name


def _run_engines(config: RunConfig, scorer: ColumnScorer) -> dict[str, Path]:
    """Score both splits with the same engines, which take longer to start than to score a small split; returns the
    target folders."""
    targets = {split: config.data_dir / "scores" / scorer.column / split for split in SPLITS}
    folder, recipe = config.data_dir, scorer.recipe
    stages = [
        Stage(scorer.column, folder / "groups" / split, targets[split], recipe, pairs=folder / "pairs" / split)
        for split in SPLITS
    ]
    actors, size = Actors.of(config.scoring, scorer.options), config.scoring.batch_groups
    done = run_stages(stages, lambda shards: on_engines(shards, stages, [scorer] * len(stages), actors, size))
    for split, (manifest, parts) in zip(SPLITS, done, strict=True):
        _tell(split, f"{scorer.column} of {manifest.rows} groups, {manifest.rejected} without", parts)
    return targets


def _tell(split: str, text: str, parts: int) -> None:
    print(f"  {split}: {text}; {f'{parts} parts made' if parts else 'already there, skipped'}", flush=True)
