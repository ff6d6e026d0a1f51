"""Scores of the original pairs, before synthesis: a judge's p(yes) and a reward model's margins.

    pairs/{split} -> pair-judgements/{split}    scoring.judge; vLLM actors
    pairs/{split} -> pair-rewards/{split}       scoring.pair_reward_model; vLLM actors
    pairs/{split} and those -> pairs-scored/{split}, which synthesis uses instead of pairs/{split}

Engine scores are stored in separate files, so another margin bound or a second scorer does not recompute them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import ray.data

from mapl_ray.aside import set_aside
from mapl_ray.batches import ENCODING
from mapl_ray.config import PairMarginConfig, RunConfig, ScoringConfig
from mapl_ray.data.records import PAIR_SCHEMA, Judgement, PreferencePair, Rejection
from mapl_ray.data.shards import Manifest, fingerprint_of, iter_rows, read_manifest
from mapl_ray.distributed.prepare import SPLITS, resolve_model
from mapl_ray.distributed.score_actor import start_scorer
from mapl_ray.distributed.shard_tasks import (
    MAX_RETRIES,
    Stage,
    errors_as_rows,
    rows_of_part,
    run_stages,
    write_results,
    write_rows,
)
from mapl_ray.errors import RunError, UserError, first_line
from mapl_ray.models import check_rendering, model_identity
from mapl_ray.progress import progress
from mapl_ray.scoring import EngineOptions
from mapl_ray.scoring.judge import ORDERS, TEMPLATE, judge_pairs, judge_questions
from mapl_ray.scoring.pair_rewards import Rewards, pair_group, score_pairs, with_scores

Kind = Literal["judgements", "rewards"]
_ID = PAIR_SCHEMA.field("pair_id")
_SCHEMAS: Mapping[Kind, pa.Schema] = {
    "judgements": pa.schema([_ID, PAIR_SCHEMA.field("judgements"), ("order_gap", pa.float32())]),
    "rewards": pa.schema([_ID, ("chosen", pa.float32()), ("rejected", pa.float32())]),
}


def run_pair_scoring(config: RunConfig) -> dict[str, Manifest]:
    """Score both splits: `data_dir/pairs` -> `data_dir/pairs-scored`. Every pair is kept, or rejected with a reason.

    Raises `UserError` if `min_margin` leaves no pair in the train split.
    """
    scoring = config.scoring
    scores: dict[Kind, dict[str, Path]] = {}
    if scoring.judge.model is not None:
        policy = scoring.judge.model == "policy"
        model = resolve_model(config) if policy else scoring.judge.model
        revision = config.model.revision if policy else scoring.judge.revision
        questions = judge_questions(config.synthesis, scoring.judge.functions)
        scores["judgements"] = _run_engines(config, "judgements", _options(config, model, revision), questions)
    if scoring.pair_reward_model is not None:
        pairs = (pair_group(PreferencePair.from_row(row)) for row in iter_rows(config.data_dir / "pairs" / "train"))
        model, revision = scoring.pair_reward_model, scoring.pair_reward_model_revision
        check_rendering(pairs, model, revision, "scoring.pair_reward_model=")
        scores["rewards"] = _run_engines(config, "rewards", _options(config, model, revision), {})
    stages = [
        Stage(
            "score pairs",
            config.data_dir / "pairs" / split,
            config.data_dir / "pairs-scored" / split,
            fingerprint_of(
                {
                    "margin": scoring.pair_margin.model_dump(mode="json"),
                    "scores": {kind: read_manifest(folders[split]).content_hash for kind, folders in scores.items()},
                }
            ),
            pairs=config.data_dir / "pairs" / split,
        )
        for split in SPLITS
    ]
    folders = [{kind: by_split[split] for kind, by_split in scores.items()} for split in SPLITS]
    done = run_stages(stages, lambda shards: _join(shards, stages, folders, scoring.pair_margin))
    manifests = dict(zip(SPLITS, (manifest for manifest, _ in done), strict=True))
    for split, (manifest, made) in zip(SPLITS, done, strict=True):
        _tell(split, f"{manifest.rows} pairs kept, {manifest.rejected} dropped", made)
    if manifests["train"].rows == 0:
        raise UserError(
            f"scoring.pair_margin.min_margin={scoring.pair_margin.min_margin}: none of {manifests['train'].rejected} "
            f"pairs is left to train on. Lower it; the margins are in {config.data_dir / 'pair-rewards'}."
        )
    return manifests


def drop_scored_pairs(config: RunConfig) -> None:
    """Set scored pairs of an earlier config aside, so that no report shows pairs that are not used."""
    for split in SPLITS:
        if (folder := config.data_dir / "pairs-scored" / split).is_dir():
            set_aside(folder, "of other settings")


def _options(config: RunConfig, model: str, revision: str | None) -> EngineOptions:
    folder = Path(model).expanduser()
    model = str(folder.resolve()) if folder.is_dir() else model  # actors start in other folders than the driver
    return EngineOptions.of(config.scoring, model, revision, config.engine_dtype, config.seed)


def _run_engines(
    config: RunConfig, kind: Kind, options: EngineOptions, questions: Mapping[str, str]
) -> dict[str, Path]:
    """Score both splits with the same engines; returns the target folders."""
    recipe = fingerprint_of(
        {
            "model": model_identity(options.model, options.revision),
            "dtype": options.dtype,
            "max_model_len": options.max_model_len,
            "encoding": ENCODING,
            **({"questions": questions, "template": TEMPLATE, "orders": ORDERS} if kind == "judgements" else {}),
        }
    )
    targets = {split: config.data_dir / f"pair-{kind}" / split for split in SPLITS}
    pairs = {split: config.data_dir / "pairs" / split for split in SPLITS}
    stages = [Stage(f"pair {kind}", pairs[split], targets[split], recipe, pairs=pairs[split]) for split in SPLITS]
    done = run_stages(stages, lambda shards: _on_engines(shards, stages, kind, options, questions, config.scoring))
    what = f"judged on {len(questions)} questions" if kind == "judgements" else "with rewards"
    for split, (manifest, made) in zip(SPLITS, done, strict=True):
        _tell(split, f"{manifest.rows} pairs {what}, {manifest.rejected} without", made)
    return targets


def _tell(split: str, text: str, made: int) -> None:
    print(f"  {split}: {text}; {f'{made} parts made' if made else 'already there, skipped'}", flush=True)


def _on_engines(
    shards: ray.data.Dataset,
    stages: list[Stage],
    kind: Kind,
    options: EngineOptions,
    questions: Mapping[str, str],
    scoring: ScoringConfig,
) -> ray.data.Dataset:
    low, high = scoring.engines
    return shards.map(
        ScorePairs,
        fn_constructor_kwargs={
            "stages": stages,
            "kind": kind,
            "options": options,
            "questions": questions,
            "batch_pairs": scoring.batch_groups,
        },
        compute=ray.data.ActorPoolStrategy(min_size=low, max_size=high),
        num_cpus=scoring.cpus_per_engine,
        num_gpus=scoring.gpus_per_engine,
        max_restarts=MAX_RETRIES,
        max_task_retries=MAX_RETRIES,
    )


class ScorePairs:
    """Score one part of pairs per call, with one engine that is started once."""

    def __init__(
        self,
        stages: list[Stage],
        kind: Kind,
        options: EngineOptions,
        questions: Mapping[str, str],
        batch_pairs: int,
    ) -> None:
        self._stages, self._kind, self._questions, self._batch_pairs = stages, kind, questions, batch_pairs
        self._scorer, self._error = start_scorer(kind, options)

    @errors_as_rows
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._error is not None:
            raise self._error
        stage, index = self._stages[int(row["stage"])], int(row["index"])
        pairs = _read_pairs(stage.source, index)
        rows, rejections = [], []
        with progress(f"{self._kind} of part {index}", len(pairs), "pairs") as work:
            for start in range(0, len(pairs), self._batch_pairs):
                batch = pairs[start : start + self._batch_pairs]
                for pair, score in zip(batch, self._guarded(batch), strict=True):
                    if isinstance(score, Rejection):
                        rejections.append(score)
                    else:
                        rows.append({"pair_id": pair.pair_id, **score})
                work.advance(len(batch))
        return write_rows(stage, row, rows, rejections, _SCHEMAS[self._kind])

    def _guarded(self, batch: Sequence[PreferencePair]) -> list[dict[str, Any] | Rejection]:
        """Call `_scores`; raise an engine's error as `RunError` with the pairs, because its state is then unknown."""
        try:
            return self._scores(batch)
        except (UserError, RunError):
            raise
        except Exception as error:
            raise RunError(
                f"the engine failed on pairs {batch[0].pair_id} to {batch[-1].pair_id}: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error

    def _scores(self, pairs: Sequence[PreferencePair]) -> list[dict[str, Any] | Rejection]:
        """The new columns of every pair, or its rejection."""
        if self._kind == "judgements":
            judged = judge_pairs(pairs, self._scorer, self._questions)
            return [one if isinstance(one, Rejection) else asdict(one) for one in judged]
        rewards = score_pairs(pairs, self._scorer)
        return [r if isinstance(r, Rejection) else {"chosen": r[0], "rejected": r[1]} for r in rewards]


def _join(
    shards: ray.data.Dataset, stages: list[Stage], folders: list[dict[Kind, Path]], margin: PairMarginConfig
) -> ray.data.Dataset:
    return shards.map(
        join_pairs_shard,
        fn_kwargs={"stages": stages, "folders": folders, "margin": margin},
        num_cpus=1,
        max_retries=MAX_RETRIES,
    )


@errors_as_rows
def join_pairs_shard(
    row: dict[str, Any], *, stages: list[Stage], folders: list[dict[Kind, Path]], margin: PairMarginConfig
) -> dict[str, Any]:
    """Join one part of the pairs with its scores. `folders` has one entry per stage."""
    number, index = int(row["stage"]), int(row["index"])
    stage, of_stage = stages[number], folders[number]
    rewards: dict[str, Rewards] = {}
    judgements: dict[str, list[Judgement]] = {}
    if "rewards" in of_stage:
        for item in rows_of_part(of_stage["rewards"], index):
            rewards[item["pair_id"]] = (item["chosen"], item["rejected"])
    if "judgements" in of_stage:
        for item in rows_of_part(of_stage["judgements"], index):
            judgements[item["pair_id"]] = [Judgement(**one) for one in item["judgements"]]
    results = [with_scores(pair, margin, rewards, judgements) for pair in _read_pairs(stage.source, index)]
    return write_results(stage, row, results, PAIR_SCHEMA)


def _read_pairs(directory: Path, index: int) -> list[PreferencePair]:
    return [PreferencePair.from_row(item) for item in rows_of_part(directory, index)]
