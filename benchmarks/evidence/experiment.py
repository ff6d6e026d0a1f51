"""The whole experiment: prepare once, then train and measure every arm and seed. Finished runs are skipped."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.arms import ARMS, FUNCTIONS, UNSEEN_FUNCTIONS, Arm, synthesis_config
from benchmarks.evidence.evaluate import rewards_of
from benchmarks.evidence.groups import GroupStream, Streams, held_out_groups
from benchmarks.evidence.model import word_tokenizer
from benchmarks.evidence.pairs import Pairs, load_pairs
from benchmarks.evidence.scale import Scale
from benchmarks.evidence.training import train_arm, train_config
from benchmarks.evidence.warm import texts_of, warm_start
from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import fingerprint_of, write_json
from mapl_ray.errors import UserError
from mapl_ray.evaluation import collect_provenance
from mapl_ray.models import load_tokenizer
from mapl_ray.synthesis import synthesize

MAIN, THREE, UNSEEN = "seen", "three", "unseen"  # held-out sets: functions of training, k = 3, other functions
WARM_SEED = 1000  # seed of the warm start's groups; differs from the arms' seeds


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data and models that all arms share."""

    pairs: Pairs
    tokenizer: Any
    start: Path  # the warm-started model
    held_out: dict[str, list[RelationGroup]]  # by the names in `held_out_sets`
    streams: Streams


@dataclass(frozen=True, slots=True)
class Experiment:
    """Paths, scale, seeds and arms of the experiment."""

    data: Path
    output: Path
    scale: Scale
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...] = ARMS

    def run(self) -> Prepared:
        """Train and measure every arm and seed that is not finished."""
        prepared = prepare(self.data, self.output, self.scale)
        todo = [(arm, seed) for seed in self.seeds for arm in self.arms]
        costs = {(arm.name, seed): _cost(arm, self.scale) for arm, seed in todo}
        began, spent, left = time.monotonic(), 0.0, sum(costs.values())
        for number, (arm, seed) in enumerate(todo, start=1):
            path = result_path(self.output, arm, seed)
            cost = costs[arm.name, seed]
            if read_result(path, settings_of(arm, self.scale, seed, prepared.pairs)) is None:
                self._one(arm, seed, prepared, path)
                spent += cost
            left -= cost
            elapsed = time.monotonic() - began
            rest = "" if not spent else f", about {left * elapsed / spent / 60:.0f} minutes left"
            print(
                f"[{number}/{len(todo)}] {arm.name}, seed {seed}: done after {elapsed / 60:.1f} minutes{rest}",
                flush=True,
            )
        return prepared

    def _one(self, arm: Arm, seed: int, prepared: Prepared, path: Path) -> None:
        scale, started = self.scale, time.monotonic()
        steps = scale.steps if arm.method == "rm" else scale.dpo_steps
        if arm.tokens_of is not None:
            steps = _steps_of_equal_tokens(self.output, arm, seed, steps)
        curve_groups = [
            _encoded(group, prepared.tokenizer, scale) for group in prepared.held_out[MAIN][: scale.curve_groups]
        ]
        model = path.parent / f"model-{seed}"
        trained = train_arm(
            arm,
            scale,
            seed,
            steps,
            prepared.streams.of(arm, seed),
            curve_groups,
            prepared.start,
            prepared.tokenizer,
            model,
        )
        beta = train_config(arm, scale, seed).beta
        rewards = {
            name: rewards_of(arm, groups, model, prepared.start, beta, scale)
            for name, groups in prepared.held_out.items()
        }
        write_json(
            path,
            {
                "settings": settings_of(arm, scale, seed, prepared.pairs),
                "trained": asdict(trained),
                "rewards": rewards,
                "wall_seconds": time.monotonic() - started,
                "provenance": collect_provenance(seed=seed, data={"pairs": prepared.pairs.digest}),
            },
        )
        print(f"  {arm.name}, seed {seed}: {last_row(trained.curve)}", flush=True)


def prepare(data: Path, output: Path, scale: Scale) -> Prepared:
    """Pairs, tokenizer, warm start and held-out groups. An existing warm start with the same settings is reused."""
    pairs = load_pairs(data, scale)
    start = output / "warm"
    settings = {"scale": asdict(scale), "pairs": pairs.digest, "functions": FUNCTIONS}
    done = output / "warm.json"
    if read_result(done, settings) is None:
        shutil.rmtree(start, ignore_errors=True)
        began = time.monotonic()
        config = synthesis_config().for_training()
        made = [synthesize(pair, config, WARM_SEED) for pair in pairs.train]
        texts = texts_of([group for group in made if isinstance(group, RelationGroup)])
        random.Random(0).shuffle(texts)
        tokenizer = word_tokenizer(texts, scale)
        rows = warm_start(GroupStream(pairs.train, config, tokenizer, scale, WARM_SEED), tokenizer, scale, start)
        write_json(done, {"settings": settings, "curve": rows, "wall_seconds": time.monotonic() - began})
    tokenizer = load_tokenizer(start)
    return Prepared(
        pairs,
        tokenizer,
        start,
        {
            name: held_out_groups(pairs.held_out, config, tokenizer, scale, most)
            for name, (config, most) in held_out_sets(scale).items()
        },
        Streams(pairs.train, tokenizer, scale),
    )


def held_out_sets(scale: Scale) -> dict[str, tuple[SynthesisConfig, int]]:
    """Config and maximum size of each set of held-out groups. All sets use the same held-out pairs."""
    return {
        MAIN: (synthesis_config(), scale.eval_groups),
        THREE: (synthesis_config(k={3: 1.0}), scale.extra_groups),
        UNSEEN: (synthesis_config(UNSEEN_FUNCTIONS, k={1: 1.0}), scale.extra_groups),
    }


def settings_of(arm: Arm, scale: Scale, seed: int, pairs: Pairs) -> dict[str, Any]:
    """All settings that decide a run's result."""
    return {
        "arm": arm.name,
        "train": train_config(arm, scale, seed).model_dump(mode="json"),
        "synthesis": arm.synthesis.model_dump(mode="json"),
        "tokens_of": arm.tokens_of,
        "scale": asdict(scale),
        "pairs": pairs.digest,
        "counts": pairs.counts,
        "seed": seed,
    }


def result_path(output: Path, arm: Arm, seed: int) -> Path:
    """The path of a run's result."""
    return output / arm.name / f"seed-{seed}.json"


def read_result(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """A finished result, or None. Raises `UserError` for a result with other settings."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if fingerprint_of(found["settings"]) != fingerprint_of(json.loads(json.dumps(settings))):
        raise UserError(f"{path}: a result with other settings. Use another --output, or remove this file.")
    return found


def last_row(curve: Sequence[Mapping[str, float]]) -> str:
    """The final held-out accuracies as text."""
    shown = (
        f"{level} {curve[-1].get(f'eval/rewards/accuracies/{level}', 0.0):.3f}" for level in ("pref", "intra", "inter")
    )
    return ", ".join(shown)


def _steps_of_equal_tokens(output: Path, arm: Arm, seed: int, steps: int) -> int:
    tokens: list[int] = []
    for name in (str(arm.tokens_of), arm.baseline):
        path = output / name / f"seed-{seed}.json"
        if not path.is_file():
            raise UserError(f"{path}: no such result, and {arm.name} needs its number of tokens. Add {name} to --only.")
        tokens.append(json.loads(path.read_text(encoding="utf-8"))["trained"]["tokens"])
    return max(1, round(steps * tokens[0] / tokens[1]))


def _encoded(group: RelationGroup, tokenizer: Any, scale: Scale) -> EncodedGroup:
    encoded = encode_group(group, tokenizer, scale.max_sequence_tokens)
    assert isinstance(encoded, EncodedGroup)  # `held_out_groups` left out the others
    return encoded


def _cost(arm: Arm, scale: Scale) -> float:
    """The approximate cost of a run, relative to groups of MAPL, to estimate the remaining time."""
    steps = scale.steps if arm.method == "rm" else 2.0 * scale.dpo_steps
    plain = not (arm.lambda_intra or arm.lambda_inter) and arm.tokens_of is None
    return steps * (0.4 if plain else 1.7 if arm.layout == "independent" else 1.0)
