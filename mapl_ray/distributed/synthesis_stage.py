"""Synthesis on Ray Data: actors that make part after part.

Actors and not tasks, for an actor has its next part ready when it is done with one; between two tasks a worker waits
for Ray Data's driver, up to a quarter of a part's time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import ray.data

import mapl_ray
from mapl_ray.config import RunConfig, SynthesisConfig
from mapl_ray.data.shards import Manifest, fingerprint_of
from mapl_ray.distributed.prepare import SPLITS, prepare_pairs
from mapl_ray.distributed.runtime import available_resources
from mapl_ray.distributed.score_pairs import drop_scored_pairs, run_pair_scoring
from mapl_ray.distributed.shard_tasks import Stage, run_stages
from mapl_ray.distributed.synthesize_actor import SynthesizeShard
from mapl_ray.errors import UserError
from mapl_ray.synthesis import module_digests, select_functions, with_absolute_paths

_PARTS_AT_HAND = 2  # of an actor: the one it makes, and the next
# Of one actor: it dies with its node as well, and nodes may come and go. A part that kills is given up before.
_MAX_RESTARTS = 64
# Of one part. A second goes by between two; until Ray knows that a node is lost, each of them fails at once.
_MAX_TRIES = 20
_OF_TRAINING = ("held_out_families", "held_out_phrasings")  # what they change of the train split, others say


def run_synthesis(config: RunConfig) -> dict[str, Manifest]:
    """`run_dir/pairs` -> `run_dir/groups`, both splits; the same bytes on any number of workers.

    A judge and a reward model look at the pairs before, where the config names one.

    Every pair gives `groups_per_pair` results, each a group or a rejection: `input_rows` of the manifest is their
    number. Raises `UserError` where no pair of the train split gave a group.
    """
    of_split = split_configs(config.synthesis)
    for synthesis in of_split.values():
        select_functions(synthesis)  # a misspelt name is reported here, not by a task
    pairs, folder, source = prepare_pairs(config), config.data_dir, "pairs"
    if config.scoring.scores_pairs:
        pairs, source = run_pair_scoring(config), "pairs-scored"
    else:
        drop_scored_pairs(config)
    stages = [
        Stage(
            "synthesize",
            folder / source / split,
            folder / "groups" / split,
            recipe_of(synthesis, config.seed),
            pairs=folder / "pairs" / split,
            results_per_row=config.synthesis.groups_per_pair,
        )
        for split, synthesis in of_split.items()
    ]
    manifests = {}
    done = run_stages(stages, lambda shards: _compute(shards, stages, [*of_split.values()], config))
    for split, (manifest, made) in zip(SPLITS, done, strict=True):
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


def _told(manifest: Manifest, made: int, pairs: int) -> str:
    share = manifest.rows / max(1, manifest.input_rows)
    each = f" x {manifest.input_rows // pairs}" if manifest.input_rows > pairs else ""
    text = f"{pairs} pairs{each} -> {manifest.rows} groups ({share:.1%}), {manifest.rejected} rejected"
    return f"{text}; {made} of {len(manifest.parts)} parts made" if made else f"{text}; already there, skipped"


def _compute(
    shards: ray.data.Dataset, stages: list[Stage], configs: list[SynthesisConfig], config: RunConfig
) -> ray.data.Dataset:
    most = config.cluster.synthesis_workers
    cpus = int(sum(node.cpus for node in available_resources().nodes))
    return shards.map(
        SynthesizeShard,
        fn_constructor_kwargs={
            "stages": stages,
            "configs": configs,
            "seed": config.seed,
            "digests": module_digests(configs[0].modules),
        },
        # As many as fit from the start; further ones come with further nodes.
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            initial_size=max(1, min(most or cpus, cpus, shards.count())),
            max_size=most,
            max_tasks_in_flight_per_actor=_PARTS_AT_HAND,
        ),
        num_cpus=1,
        max_restarts=_MAX_RESTARTS,
        max_task_retries=_MAX_TRIES,
    )


def recipe_of(config: SynthesisConfig, seed: int) -> str:
    """Config, seed, and the very code that writes instructions: after a change of a function the data are made again.

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
