"""Groups of the experiment, synthesized on demand: every epoch draws new instructions for every pair."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from benchmarks.evidence.arms import Arm
from benchmarks.evidence.scale import Scale
from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import PreferencePair, Rejection, RelationGroup
from mapl_ray.synthesis import synthesize

_MOST_EPOCHS = 1000


class GroupStream:
    """The training groups of one seed and synthesis config, in order; groups that were requested are kept."""

    def __init__(
        self, pairs: Sequence[PreferencePair], config: SynthesisConfig, tokenizer: Any, scale: Scale, seed: int
    ) -> None:
        self._pairs, self._tokenizer, self._scale, self._seed = pairs, tokenizer, scale, seed
        self._config = config.for_training()
        self._groups: list[EncodedGroup] = []
        self._epoch, self._left = 0, list[PreferencePair]()

    def __getitem__(self, index: int) -> EncodedGroup:
        while index >= len(self._groups):
            self._extend()
        return self._groups[index]

    def step(self, number: int) -> list[EncodedGroup]:
        """The groups of one step (0-based)."""
        size = self._scale.groups_per_step
        return [self[index] for index in range(number * size, (number + 1) * size)]

    def _extend(self) -> None:
        if not self._left:
            if self._epoch >= _MOST_EPOCHS:
                raise RuntimeError("synthesis rejected too many pairs: no groups left")
            self._left = list(self._pairs)
            # Only the seed decides the order of pairs, so that all arms of a seed see the same pairs.
            random.Random(f"{self._seed} {self._epoch}").shuffle(self._left)
            self._epoch += 1
        group = synthesize(self._left.pop(), self._config, self._seed * _MOST_EPOCHS + self._epoch)
        if isinstance(group, RelationGroup):
            encoded = encode_group(group, self._tokenizer, self._scale.max_sequence_tokens)
            if isinstance(encoded, EncodedGroup):
                self._groups.append(encoded)


class Streams:
    """Streams by seed, layout and k. Arms that only differ in the loss share one."""

    def __init__(self, pairs: Sequence[PreferencePair], tokenizer: Any, scale: Scale) -> None:
        self._pairs, self._tokenizer, self._scale = pairs, tokenizer, scale
        self._made: dict[tuple[str, int], GroupStream] = {}

    def of(self, arm: Arm, seed: int) -> GroupStream:
        """The stream of an arm and seed. Streams of other seeds are dropped, because they are large."""
        config = arm.synthesis
        key = (config.digest, seed)
        if key not in self._made:
            self._made = {other: stream for other, stream in self._made.items() if other[1] == seed}
            self._made[key] = GroupStream(self._pairs, config, self._tokenizer, self._scale, seed)
        return self._made[key]


def held_out_groups(
    pairs: Sequence[PreferencePair], config: SynthesisConfig, tokenizer: Any, scale: Scale, most: int
) -> list[RelationGroup]:
    """One group per held-out pair, at most `most`, in an arbitrary order."""
    chosen = list(pairs)
    random.Random(0).shuffle(chosen)
    groups: list[RelationGroup] = []
    for pair in chosen:
        group = synthesize(pair, config, 0)
        if isinstance(group, Rejection):
            continue
        if isinstance(encode_group(group, tokenizer, scale.max_sequence_tokens), EncodedGroup):
            groups.append(group)
        if len(groups) == most:
            break
    return groups
