"""The commands that faults disturb, and the undisturbed runs to compare with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.reliability.commands import run
from benchmarks.reliability.fault import Outcome, Scene
from benchmarks.synthesis import load, write_pairs
from mapl_ray.data.shards import iter_rows, read_manifest
from mapl_ray.errors import UserError
from mapl_ray.training.checkpoint import committed, damage, read_checkpoint_manifest

MANY, FEW = 400, 96  # number of pairs, for synthesis only and for stages with models
FEW_A_SHARD = 24  # pairs per shard with FEW pairs
BATCH = 2  # groups in an engine's batch
STEPS, INTERVAL = 12, 3  # steps of training, and steps between two checkpoints
SPLITS = ("train", "eval")
_TRAINING = [
    f"train.max_steps={STEPS}",
    "train.epochs=9",
    "train.learning_rate=1e-3",
    "train.micro_batch_size=2",
    "train.num_workers=2",
    "train.cpus_per_worker=0.5",
    "train.zero_stage=2",
    f"train.eval_every_steps={STEPS}",
    f"train.checkpoint_every_steps={INTERVAL}",
    "train.loggers=[]",
]
_MODEL = [
    "model.name_or_path=tiny",
    "model.tiny.vocab_size=1000",
    "model.tiny.hidden_size=64",
    "model.tiny.num_layers=2",
    "model.tiny.num_heads=2",
]


def source(scene: Scene, pairs: int) -> Path:
    """A file with this number of real pairs, each with its own id."""
    path = scene.shared / f"pairs-{pairs}.jsonl"
    if not path.is_file():
        scene.shared.mkdir(parents=True, exist_ok=True)
        write_pairs(load(scene.data, pairs), path)
    return path


def synthesis_words(scene: Scene, output: Path, *more: str, pairs: int = MANY, rows_per_shard: int = 2) -> list[str]:
    """The arguments of synthesis, with small shards so that there are many points for a fault."""
    data = [f"data.path={source(scene, pairs)}", "data.eval_fraction=0.1"]
    return ["synthesize", *data, f"synthesis.rows_per_shard={rows_per_shard}", *_place(output), *_cpus(more), *more]


def scoring_words(output: Path, *more: str) -> list[str]:
    """The arguments of scoring, with one engine and small batches."""
    words = ["scoring.max_model_len=2048", f"scoring.batch_groups={BATCH}"]
    return ["score", *words, *_MODEL, *_place(output), *_cpus(more), *more]


def training_words(output: Path, *more: str) -> list[str]:
    """The arguments of training a reward model on two ranks with ZeRO-2."""
    return ["train", "rm", *_TRAINING, *_MODEL, *_place(output), *_cpus(more), *more]


def evaluation_words(output: Path, *more: str) -> list[str]:
    """The arguments of evaluating the reward model of `training_words`."""
    return ["evaluate", *_MODEL, *_place(output), *_cpus(more), *more]


def _cpus(more: Sequence[str]) -> list[str]:
    """The CPUs of the private cluster; nothing if the run uses another cluster."""
    return [] if any(word.startswith("cluster.address=") for word in more) else ["cluster.num_cpus=2"]


def _place(output: Path) -> list[str]:
    return [f"output_dir={output}", "name=run"]


def undisturbed_synthesis(scene: Scene, pairs: int = MANY, rows_per_shard: int = 2) -> Path:
    """The finished run of `synthesis_words`."""
    output = scene.shared / f"synthesis-{pairs}"
    return _once(output, synthesis_words(scene, output, pairs=pairs, rows_per_shard=rows_per_shard))


def undisturbed_scoring(scene: Scene) -> Path:
    """The finished run of `scoring_words` on a few groups."""
    output = scene.shared / "scoring"
    if not (output / "run").exists():
        few_groups(scene, output)
    return _once(output, scoring_words(output))


def undisturbed_training(scene: Scene, *more: str) -> Path:
    """The finished run of `training_words` and the arguments `more`, on a few groups."""
    output = scene.shared / "-".join(["training", *more])
    if not (output / "run").exists():
        few_groups(scene, output)
    return _once(output, training_words(output, *more))


def few_groups(scene: Scene, output: Path) -> Path:
    """The groups for scoring and training, as a separate run in `output`."""
    made = undisturbed_synthesis(scene, FEW, FEW_A_SHARD)
    shutil.copytree(made, output / "run")
    return output / "run"


def _once(output: Path, words: Sequence[str]) -> Path:
    done = output / "done"
    if not done.exists():
        run(words, output, seconds=900)
        done.touch()
    return output / "run"


def parts(run: Path, *stages: str) -> int:
    """Number of finished parts in both splits of the given stages."""
    folders = [run / stage / split for stage in stages or ("pairs", "groups") for split in SPLITS]
    return sum(len(list(folder.glob("part-*.json"))) for folder in folders if folder.is_dir())


def batches(run: Path) -> int:
    """Number of scored batches, in finished parts and in the journals of unfinished ones."""
    count = 0
    for split in SPLITS:
        folder = run / "scores" / "ref_logps" / split
        for entry in folder.glob("part-*.json"):
            count += -(-int(json.loads(entry.read_text(encoding="utf-8"))["rows"]) // BATCH)
        for journal in folder.glob("part-*.journal"):
            with suppress(FileNotFoundError):
                count += journal.read_text(encoding="utf-8").count('"end"')
    return count


def steps_done(run: Path) -> int:
    """The last step of the current training; 0 before the first."""
    try:
        lines = (run / "rm" / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError):
        return 0


def compare_data(outcome: Outcome, there: Path, here: Path, *stages: str) -> None:
    """Check that the content is the same, no id occurs twice, and no leftover files remain."""
    for stage in stages:
        for split in SPLITS:
            if not (here / stage / split / "manifest.json").is_file():
                outcome.check(f"{stage}: the same content hash as the undisturbed run's, part by part", False)
                continue
            same = read_manifest(there / stage / split) == read_manifest(here / stage / split)
            outcome.check(f"{stage}: the same content hash as the undisturbed run's, part by part", same)
            ids = [row["pair_id"] for row in iter_rows(here / stage / split)]
            expected = {row["pair_id"] for row in iter_rows(there / stage / split)}
            outcome.check(f"{stage}: the same set of ids, none twice", len(ids) == len(set(ids)) == len(expected))
            outcome.check(f"{stage}: the same set of ids, none twice", set(ids) == expected)
    outcome.check("no half-written file is left", leftovers(here) == [])


def compare_weights(outcome: Outcome, there: Path, here: Path) -> None:
    """Check that weights are bit-equal, and that all remaining checkpoints are complete."""
    a, b = (load_file(run / "rm" / "model" / "model.safetensors") for run in (there, here))
    equal = a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    outcome.check("weights equal to the undisturbed run's, to the bit", equal)
    outcome.check("every checkpoint that is left is whole", all(map(_whole, committed(here / "rm" / "checkpoints"))))
    outcome.check("no half-written file is left", leftovers(here) == [])


def leftovers(run: Path) -> list[str]:
    """Files that belong to no finished work."""
    found = [path for path in run.rglob("*") if path.name.endswith((".tmp", ".journal"))]
    return [str(path.relative_to(run)) for path in found if not path.is_relative_to(run / "ray")]


def unreadable_as_whole(run: Path, *stages: str) -> list[str]:
    """Data sets that look finished to a reader but are not."""
    found = []
    for stage in stages:
        for split in SPLITS:
            if (run / stage / split / "manifest.json").exists():
                try:
                    read_manifest(run / stage / split)
                except UserError as error:
                    found.append(str(error))
    return found


def resumed_step(run: Path) -> int:
    """The step at which the last attempt resumed training."""
    return int(json.loads((run / "rm" / "result.json").read_text(encoding="utf-8"))["resumed_step"])


def _whole(path: Path) -> bool:
    manifest, _ = read_checkpoint_manifest(path)
    return manifest is not None and not damage(path, manifest)
