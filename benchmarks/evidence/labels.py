"""Old labels against new ones: the same training on groups of an earlier version of the project and of this version.

    git worktree add ../earlier 38a2e67
    python -m benchmarks.evidence.labels --data PAIRS --earlier ../earlier --output DIR

Both models start from the same weights and see the same pairs in the same order. Both are measured on held-out groups
of this version. Finished results in DIR are kept and skipped. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.evidence import label_groups
from benchmarks.evidence.arms import BY_NAME
from benchmarks.evidence.evaluate import rewards_of
from benchmarks.evidence.experiment import MAIN, Prepared, prepare, read_result
from benchmarks.evidence.scale import SCALES, Scale
from benchmarks.evidence.training import train_arm, train_config
from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import write_json
from mapl_ray.errors import UserError
from mapl_ray.evaluation.columns import columns_of_groups, flat_rewards, relation_margins
from mapl_ray.instructions import REGISTRY, Instruction, features_of

_ARM = BY_NAME["mapl"]
LEVELS = ("pref", "intra", "inter")
VERDICTS = ("confirmed", "undecided", "denied")  # this version's verdict on a label
_ROOT = Path(__file__).resolve().parents[2]
_SPARE = 1.1  # extra groups, because those with too long sequences are left out


class StoredGroups:
    """Encoded groups from a file, with the interface that `train_arm` needs."""

    def __init__(self, groups: Iterable[RelationGroup], tokenizer: Any, scale: Scale) -> None:
        encoded = (encode_group(group, tokenizer, scale.max_sequence_tokens) for group in groups)
        self._groups = [group for group in encoded if isinstance(group, EncodedGroup)]
        self._size = scale.groups_per_step

    def step(self, number: int) -> list[EncodedGroup]:
        """The groups of one step (0-based)."""
        return self._groups[number * self._size : (number + 1) * self._size]


def groups_of(code: Path, data: Path, target: Path, seed: int, number: int, scale: str) -> list[RelationGroup]:
    """The groups of the version in `code`; they are synthesized to `target` the first time."""
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        words = [str(data.resolve()), str(target.resolve()), str(seed), str(number), scale]
        command = [sys.executable, str(Path(label_groups.__file__).resolve()), *words]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(code.resolve())}, cwd=code, check=False)
        if done.returncode:
            raise UserError(f"{code}: synthesis of its groups failed (exit code {done.returncode}); see the log above.")
    with target.open(encoding="utf-8") as handle:
        return [RelationGroup.from_row(json.loads(line)) for line in handle]


def verdicts_on(groups: Iterable[RelationGroup]) -> dict[str, int]:
    """Number of labels that this version's verdict confirms, leaves undecided, and denies."""
    found: Counter[str] = Counter()
    for group in groups:
        responses = [features_of(response) for response in group.responses]
        for cell in group.sequences:
            for record, label in zip(group.instructions[cell.prompt], cell.satisfied, strict=True):
                verdict = Instruction.from_record(record).verdict(responses[cell.response])
                found["undecided" if verdict is None else "confirmed" if verdict == label else "denied"] += 1
    return dict(found)


def accuracies(groups: list[RelationGroup], rewards: list[tuple[float, ...]]) -> dict[str, float]:
    """Share of relations with a positive margin, by level."""
    columns = columns_of_groups(groups, {name: function.family for name, function in REGISTRY.items()})
    right = relation_margins(columns, flat_rewards(columns, rewards, "labels"), "labels") > 0
    return {level: float(right[columns.items.of_family(level)].mean()) for level in LEVELS}


def one_run(code: Path, kind: str, seed: int, given: argparse.Namespace, prepared: Prepared, scale: Scale) -> Any:
    """Accuracies for one kind of labels and one seed, and this version's verdicts on the labels."""
    folder = given.output / kind
    path = folder / f"seed-{seed}.json"
    settings = {"scale": asdict(scale), "seed": seed, "pairs": prepared.pairs.digest, "kind": kind}
    if (found := read_result(path, settings)) is not None:
        return found
    number = round(scale.steps * scale.groups_per_step * _SPARE)
    groups = groups_of(code, given.data, folder / f"groups-{seed}.jsonl", seed, number, given.scale)
    stream: Any = StoredGroups(groups, prepared.tokenizer, scale)
    held_out = prepared.held_out[MAIN]
    encoded = (encode_group(group, prepared.tokenizer, scale.max_sequence_tokens) for group in held_out)
    curve = [group for group in encoded if isinstance(group, EncodedGroup)][: scale.curve_groups]
    model = folder / f"model-{seed}"
    train_arm(_ARM, scale, seed, scale.steps, stream, curve, prepared.start, prepared.tokenizer, model)
    rewards = rewards_of(_ARM, held_out, model, prepared.start, train_config(_ARM, scale, seed).beta, scale)
    result = {"settings": settings, "labels": verdicts_on(groups), "accuracies": accuracies(held_out, rewards)}
    write_json(path, result)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison. Exit code: 0 done, 2 user error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the AlpacaEval pairs, .jsonl.gz")
    parser.add_argument("--earlier", type=Path, required=True, help="a checkout of the version to compare with")
    parser.add_argument("--output", type=Path, required=True, help="output folder; finished results in it are skipped")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", choices=sorted(SCALES), default="cpu")
    parser.add_argument("--minutes", type=float, help="scale the number of steps, as in the experiment")
    given = parser.parse_args(arguments)
    scale = SCALES[given.scale] if given.minutes is None else SCALES[given.scale].within(given.minutes)
    try:
        prepared = prepare(given.data, given.output, scale)
        columns = ("labels", "seed", *LEVELS, *VERDICTS)
        print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
        for seed in given.seeds:
            for kind, code in (("earlier", given.earlier), ("new", _ROOT)):
                found = one_run(code, kind, seed, given, prepared, scale)
                levels = [f"{found['accuracies'][level]:.3f}" for level in LEVELS]
                counts = [str(found["labels"].get(name, 0)) for name in VERDICTS]
                print("| " + " | ".join([kind, str(seed), *levels, *counts]) + " |", flush=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
