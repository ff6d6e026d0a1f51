"""Synthesis on Ray Data: tasks of a few shards of pairs each."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.data

import mapl_ray
from mapl_ray.config import ClusterConfig, RunConfig, SynthesisConfig
from mapl_ray.distributed.prepare import SPLITS, prepare_pairs
from mapl_ray.distributed.runtime import available_resources
from mapl_ray.distributed.score_pairs import drop_scored_pairs, run_pair_scoring
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, rows_of_part, run_stages, write_results
from mapl_ray.errors import RunError, UserError
from mapl_ray.records import GROUP_SCHEMA, PreferencePair
from mapl_ray.shards import Manifest, fingerprint_of
from mapl_ray.synthesis import Tally, module_digests, select_functions, synthesize_all, with_absolute_paths

_OF_TRAINING = ("held_out_families", "held_out_phrasings")  # what they change of the train split, others say
_MOST_PARTS = 8  # of a task: a task that is lost is done again whole


def run_synthesis(config: RunConfig) -> dict[str, Manifest]:
    """`run_dir/pairs` -> `run_dir/groups`, both splits; the same bytes on any number of workers.

    A judge and a reward model look at the pairs before, where the config names one.

    Every pair gives `groups_per_pair` results, each a group or a rejection: `input_rows` of the manifest is their
    number. Raises `UserError` where no pair of the train split gave a group.
    """
    of_split = split_configs(config.synthesis)
    for synthesis in of_split.values():
        select_functions(synthesis)  # a misspelt name is told here, not by a task
    pairs, folder, source = prepare_pairs(config), config.data_dir, "pairs"
    if config.scoring.scores_pairs:
        pairs, source = run_pair_scoring(config), "pairs-scored"
    else:
        drop_scored_pairs(config)
    stages = [
        Stage("synthesize", folder / source / split, folder / "groups" / split, recipe_of(synthesis, config.seed))
        for split, synthesis in of_split.items()
    ]
    manifests = {}
    workers = _workers(config.cluster)
    done = run_stages(
        stages,
        lambda shards: _compute(shards, stages, [*of_split.values()], config),
        lambda parts: parts_a_task(parts, workers),
    )
    for split, (manifest, made) in zip(SPLITS, done, strict=True):
        _check_accounts(config, split, manifest, pairs[split].rows)
        print(f"  {split}: {_told(manifest, made, pairs[split].rows)}", flush=True)
        manifests[split] = manifest
    if manifests["train"].rows == 0:
        raise UserError(
            f"{config.data_dir / 'groups' / 'train'}: no pair gave a group. The reasons are in rejected-*.jsonl there."
        )
    return manifests


def split_configs(config: SynthesisConfig) -> dict[str, SynthesisConfig]:
    """What each split's groups are made by; held-out families and phrasings are in the held-out split alone."""
    absolute = with_absolute_paths(config)
    return dict(zip(SPLITS, (absolute.for_training(), absolute), strict=True))


def _check_accounts(config: RunConfig, split: str, manifest: Manifest, pairs: int) -> None:
    each = config.synthesis.groups_per_pair
    if manifest.input_rows != pairs * each:
        raise RunError(
            f"{config.data_dir / 'groups' / split}: {manifest.rows} groups and {manifest.rejected} rejections from "
            f"{pairs} pairs; expected {each} results a pair. Delete the folder and run the stage again."
        )


def _told(manifest: Manifest, made: int, pairs: int) -> str:
    share = manifest.rows / max(1, manifest.input_rows)
    each = f" x {manifest.input_rows // pairs}" if manifest.input_rows > pairs else ""
    text = f"{pairs} pairs{each} -> {manifest.rows} groups ({share:.1%}), {manifest.rejected} rejected"
    return f"{text}; {made} of {len(manifest.parts)} parts made" if made else f"{text}; already there, skipped"


def _compute(
    shards: ray.data.Dataset, stages: list[Stage], configs: list[SynthesisConfig], config: RunConfig
) -> ray.data.Dataset:
    return shards.map(
        synthesize_shard,
        fn_kwargs={
            "stages": stages,
            "configs": configs,
            "seed": config.seed,
            "digests": module_digests(configs[0].modules),
        },
        compute=ray.data.TaskPoolStrategy(size=config.cluster.synthesis_workers),
        num_cpus=1,
        max_retries=MAX_RETRIES,
    )


def parts_a_task(parts: int, workers: int) -> int:
    """Several, for between tasks a worker waits for Ray Data's driver, a quarter of a part's time; few at the end."""
    return max(1, min(_MOST_PARTS, parts // (4 * workers)))


def _workers(config: ClusterConfig) -> int:
    cpus = int(sum(node.cpus for node in available_resources().nodes))
    return max(1, min(cpus, config.synthesis_workers or cpus))


def synthesize_shard(
    row: dict[str, Any], *, stages: list[Stage], configs: list[SynthesisConfig], seed: int, digests: list[str]
) -> dict[str, Any]:
    """Make one part. A config mistake comes back as a row: as an exception Ray would retry it.

    `configs` has one entry a stage. `digests` are those of the driver's `synthesis.modules`: a node with another
    version makes nothing.
    """
    number = int(row["stage"])
    try:
        if module_digests(configs[number].modules) != digests:
            modules = ", ".join(configs[number].modules)
            raise UserError(f"synthesis.modules {modules}: this node has another version of them.")
        with _without_collector():
            return _make_part(row, stages[number], configs[number], seed)
    except UserError as error:
        return {"error": str(error)}


def _make_part(row: dict[str, Any], stage: Stage, config: SynthesisConfig, seed: int) -> dict[str, Any]:
    pairs, tally = map(PreferencePair.from_row, rows_of_part(stage.source, int(row["index"]))), Tally()
    results = [result for pair in pairs for result in synthesize_all(pair, config, seed, tally)]
    return write_results(stage, row, results, GROUP_SCHEMA, tally.to_json())


@contextmanager
def _without_collector() -> Iterator[None]:
    """Leave cyclic garbage alone for one part: going through its growing results again and again took a fifth of it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def recipe_of(config: SynthesisConfig, seed: int) -> str:
    """Config, seed, and the very code that writes instructions: a mended function makes the data anew.

    Modules count by their source, not by where it lies; what is held out by what it changes of this split.
    """
    code = hashlib.sha256()
    package = Path(mapl_ray.__file__ or "").parent
    for folder in ("instructions", "synthesis"):
        for file in sorted((package / folder).glob("*.py")):
            code.update(file.read_bytes())
    values = config.model_dump(mode="json", exclude={"rows_per_shard", "modules", *_OF_TRAINING})
    modules = module_digests(config.modules)
    return fingerprint_of({"config": values, "seed": seed, "code": code.hexdigest(), "modules": modules})
