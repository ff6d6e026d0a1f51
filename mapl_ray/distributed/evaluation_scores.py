"""Score every sequence of an evaluation with every model, in parts, with one pool of actors.

    evaluation/groups/NAME -> evaluation/scores/MODEL/NAME    a reward model's rewards, a policy's logps
    evaluation/groups/NAME -> evaluation/ref_logps/NAME       the reference's logps, if the groups have none

Rewards are computed from these columns, so another beta needs no new scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mapl_ray.config import RunConfig
from mapl_ray.data.shards import read_manifest, read_table
from mapl_ray.distributed.evaluation_groups import EvaluationGroups
from mapl_ray.distributed.prepare import resolve_model
from mapl_ray.distributed.score_actor import Actors, on_engines
from mapl_ray.distributed.shard_tasks import Stage, run_stages
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation.checkpoints import Checkpoint, split_revision
from mapl_ray.evaluation.columns import cell_values
from mapl_ray.evaluation.evaluated import ITSELF, Encoders
from mapl_ray.evaluation.items import FloatArray
from mapl_ray.evaluation.rewards import Float32Array, implicit_rewards
from mapl_ray.scoring import Column, ColumnScorer, TreeOptions, check_same_tokenizer

_BATCHES = 16  # forward passes between two entries of an actor's journal


@dataclass(frozen=True, slots=True)
class EvaluationScores:
    """Finished scores of all models on all data sets."""

    config: RunConfig
    encoders: Encoders

    def rewards(self, model: Checkpoint, groups: EvaluationGroups, kind: str = ITSELF) -> FloatArray:
        """Rewards r(x, y) of one model, [S], for the groups themselves or for one kind of variant.

        Raises `RunError` if the scores do not belong to these groups.
        """
        scores_S = _scores(_folder(self.config, model.name), groups, kind)
        if model.method == "rm":
            return scores_S.astype(np.float64)
        section = self.config.training("dpo")
        lengths_S = self._lengths(model, groups, kind) if section.objective.length_normalised else None
        return implicit_rewards(scores_S, self._ref_logps(groups, kind), section.beta, lengths_S)

    def _ref_logps(self, groups: EvaluationGroups, kind: str) -> Float32Array:
        if groups.counts["without ref_logps"]:
            return _scores(_folder(self.config, None), groups, kind)
        stored = [_flat(table.column("ref_logps")) for table in groups.tables(kind, ["ref_logps"])]
        return np.concatenate(stored, dtype=np.float32) if stored else np.empty(0, np.float32)

    def _lengths(self, model: Checkpoint, groups: EvaluationGroups, kind: str) -> Float32Array:
        """Number of response tokens of every sequence with the model's tokenizer."""
        index = self.encoders.of_model[model.name]
        found = [
            cell_values(table, pc.list_element(table.column("response_tokens"), index))
            for table in groups.tables(kind, ["cell_responses", "response_tokens"])
        ]
        return np.concatenate(found, dtype=np.float32) if found else np.empty(0, np.float32)


def score_groups_of_evaluation(
    config: RunConfig, models: Sequence[Checkpoint], encoders: Encoders, data: Mapping[str, EvaluationGroups]
) -> EvaluationScores:
    """Score every data set with every model; finished parts are kept. Raises `RunError` for a group without scores."""
    stages, scorers = list[Stage](), list[ColumnScorer]()
    for scorer, target, some in _wanted(config, models, encoders, data):
        recipe = scorer.recipe
        stages += [Stage("evaluate", groups.folder, target / groups.name, recipe, cache=True) for groups in some]
        scorers += [scorer] * len(some)
    actors = Actors(*config.evaluation.actors(len(models)), config.evaluation.cpus, config.evaluation.gpus)
    size = _BATCHES * config.evaluation.micro_batch_size
    done = run_stages(stages, lambda shards: on_engines(shards, stages, scorers, actors, size)) if stages else []
    for name in dict.fromkeys(scorer.name for scorer in scorers):
        own = [of_stage for scorer, of_stage in zip(scorers, done, strict=True) if scorer.name == name]
        rows, made = sum(manifest.rows for manifest, _ in own), sum(parts for _, parts in own)
        print(f"  {name}: {rows} groups scored; {f'{made} parts made' if made else 'already there'}", flush=True)
    return EvaluationScores(config, encoders)


def _folder(config: RunConfig, model: str | None) -> Path:
    """Folder of a model's scores; the name may have slashes. None: folder of the ref_logps."""
    root = config.run_dir / "evaluation"
    return root / "ref_logps" if model is None else root / "scores" / model.replace("/", "--")


def _scores(folder: Path, groups: EvaluationGroups, kind: str) -> Float32Array:
    folder /= groups.name
    manifest, found = read_manifest(folder, verify=False), list[Any]()
    for part, mask, made in zip(groups.manifest.parts, groups.masks(kind), manifest.parts, strict=True):
        table = read_table(folder, made)
        if made.index != part.index or table.num_rows != part.rows:
            raise RunError(
                f"{folder}: part {made.index} does not match part {part.index} of {groups.folder}. Delete the folder "
                "and run the stage again."
            )
        found.append(_flat(table.column("scores").filter(mask)))
    return np.concatenate(found, dtype=np.float32) if found else np.empty(0, np.float32)


def _wanted(
    config: RunConfig, models: Sequence[Checkpoint], encoders: Encoders, data: Mapping[str, EvaluationGroups]
) -> Iterator[tuple[ColumnScorer, Path, list[EvaluationGroups]]]:
    """Each scorer with the folder of its scores and the data sets to score; the reference comes first."""

    def scorer(model: Checkpoint, label: str, keep_stored: bool = False) -> ColumnScorer:
        options = TreeOptions.of_evaluation(
            config, model.path, model.revision, model.method, max_tokens=encoders.max_tokens
        )
        column: Column = "rewards" if model.method == "rm" else "ref_logps"
        return ColumnScorer(column, options, label, whole=True, keep_stored=keep_stored)

    policies = [model for model in models if model.method == "dpo"]
    lacking = [groups for groups in data.values() if groups.counts["without ref_logps"]]
    if policies and lacking:
        reference = _reference(config)
        for policy in policies:
            check_same_tokenizer(reference.path, policy.path, reference.revision, policy.revision)
        yield scorer(reference, f"reference {reference.name}", keep_stored=True), _folder(config, None), lacking
    for model in models:
        yield scorer(model, model.name), _folder(config, model.name), [*data.values()]


def _reference(config: RunConfig) -> Checkpoint:
    named = config.evaluation.reference
    if named is not None:
        path, revision = split_revision(named)
    elif config.scoring.lora is not None:
        raise UserError(
            "scoring.lora is an adapter on the reference, not a complete model: set evaluation.reference to one."
        )
    elif config.scoring.ref_model is not None:
        path, revision = config.scoring.ref_model, config.scoring.ref_model_revision
    else:
        try:
            path, revision = resolve_model(config), config.model.revision
        except UserError as error:
            raise UserError(
                f"evaluation.reference: implicit rewards need the policy that DPO started from. Name it ({error})"
            ) from None
    folder = Path(path).expanduser()
    path = str(folder.resolve()) if folder.is_dir() else path  # actors start in other folders than the driver
    return Checkpoint(path.rsplit("/", 1)[-1], path, revision, "dpo")


def _flat(lists: pa.ChunkedArray) -> Any:
    return lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
