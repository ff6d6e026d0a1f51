"""The synthesis stage on Ray Data: actors that make one part after another.

Actors are used instead of tasks because an actor has its next part queued. Between two tasks a worker waits for Ray
Data's driver, for up to a quarter of a part's time.
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

_PARTS_AT_HAND = 2  # parts queued per actor: the current one and the next
# Per actor. It also dies with its node, and nodes may come and go. A part that kills its actor reaches its limit first.
_MAX_RESTARTS = 64
# Per part. Tries are a second apart, and until Ray notices that a node is lost, each try fails at once.
_MAX_TRIES = 20
_OF_TRAINING = ("held_out_families", "held_out_phrasings")  # their effect on the train split is in other fields


def run_synthesis(config: RunConfig) -> dict[str, Manifest]:
    """Make the groups of both splits: `run_dir/pairs` -> `run_dir/groups`; the same bytes on any number of workers.

    If the config names a judge or a pair reward model, the pairs are scored first.

    Every pair gives `groups_per_pair` results, each a group or a rejection; `input_rows` of the manifest is their
    number. Raises `UserError` if no pair of the train split gave a group.
    """
    of_split = split_configs(config.synthesis)
    for synthesis in of_split.values():
        select_functions(synthesis)  # report a misspelled name here, not in a task
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
        print(f"  {split}: {_summary(manifest, made, pairs[split].rows)}", flush=True)
        manifests[split] = manifest
    if manifests["train"].rows == 0:
        raise UserError(
            f"{config.data_dir / 'groups' / 'train'}: no pair gave a group. The reasons are in rejected-*.jsonl there."
        )
    return manifests


def split_configs(config: SynthesisConfig) -> dict[str, SynthesisConfig]:
    """The synthesis config of each split. Held-out families and phrasings are only in the held-out split."""
    absolute = with_absolute_paths(config)
    return dict(zip(SPLITS, (absolute.for_training(), absolute), strict=True))


def _summary(manifest: Manifest, made: int, pairs: int) -> str:
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
        # Start as many actors as fit; more start when nodes are added.
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
    """Fingerprint of config, seed and the code that writes instructions, so a changed function remakes the data.

    User modules count by their source, not by their path; held-out names count by their effect on this split.
    """
    code = hashlib.sha256()
    package = Path(mapl_ray.__file__ or "").parent
    for folder in ("instructions", "synthesis"):
        for file in sorted((package / folder).glob("*.py")):
            code.update(file.read_bytes())
    values = config.model_dump(mode="json", exclude={"rows_per_shard", "modules", *_OF_TRAINING})
    modules = module_digests(config.modules)
    return fingerprint_of({"config": values, "seed": seed, "code": code.hexdigest(), "modules": modules})
