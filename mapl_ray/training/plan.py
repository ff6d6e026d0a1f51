"""Assignment of groups to ranks, steps and micro-batches: plain arithmetic with the same result on all ranks.

Ranks wait for each other, under ZeRO-2 and 3 after every micro-batch, otherwise after every step. So a step takes as
long as its largest share. Every rank must know the sizes of all groups of a step, so sizes are estimated from the
lengths of texts, without tokenizing. UTF-8 bytes represent tokens, as tokens per byte vary less between scripts than
tokens per character.

Dimensions: G groups, P prompts, S sequences, all over a whole table.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mapl_ray.config import TrainConfig
from mapl_ray.data.records import Level
from mapl_ray.training.mapped_files import UintArray, shared_array

_MOST = 2**32 - 1  # largest index and size


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """The order of groups in training. It depends only on the config and on the number and sizes of groups."""

    sizes: UintArray  # of the groups; they determine how a step is split, not which groups it has
    groups_per_step: int
    micro_batches: int  # per step, over all ranks, with room for `groups_per_step` or more groups
    micro_batch_size: int  # largest number of groups per micro-batch
    alike: bool  # True: micro-batches have groups of similar size; False: similar total size
    total_steps: int
    orders: Orders

    @classmethod
    def of(
        cls, config: TrainConfig, sizes: Sequence[int] | UintArray, world_size: int, *, mapped: bool = False
    ) -> StepPlan:
        """Build the plan. `mapped`: ranks of a machine share the order of an epoch. Raises `ValueError` for no groups,
        and for more than 2^32 - 1 groups."""
        if len(sizes) < 1:
            raise ValueError("nothing to train on")
        if len(sizes) > _MOST:
            raise ValueError(f"{len(sizes)} groups: expected at most {_MOST}")
        return cls(
            sizes=np.asarray(sizes, dtype=np.uint32),
            groups_per_step=groups_per_step(config, world_size),
            micro_batches=replicas(config, world_size) * at_size(config, world_size).gradient_accumulation_steps,
            micro_batch_size=config.micro_batch_size,
            alike=config.batching == "padded",
            total_steps=total_steps(config, len(sizes), world_size),
            orders=Orders(config.seed, len(sizes), mapped=mapped),
        )

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.sizes) // self.groups_per_step)

    def groups_of_step(self, step: int) -> list[int]:
        """Indices of the groups of one step (0-based), fewer at the end of an epoch."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = self.orders.of(epoch)
        chosen: list[int] = order[within * self.groups_per_step : (within + 1) * self.groups_per_step].tolist()
        return chosen

    def micro_batches_of(self, step: int, replica: int, number: int) -> list[list[int]]:
        """Micro-batches of one of `number` replicas. Some may be empty; all replicas have the same number of them."""
        groups = self.groups_of_step(step)
        sizes = self.sizes[groups].tolist()
        dealt = shares(sizes, number, self.micro_batches // number, self.micro_batch_size, self.alike)
        return [[groups[position] for position in hand] for hand in dealt[replica]]


def total_steps(config: TrainConfig, num_groups: int, world_size: int) -> int:
    """Number of optimizer steps of a whole run."""
    total = config.epochs * -(-num_groups // groups_per_step(config, world_size))
    return total if config.max_steps is None else min(total, config.max_steps)


def groups_per_step(config: TrainConfig, world_size: int) -> int:
    """Groups per optimizer step. In an elastic run it is that of `num_workers`, for any current number of workers."""
    workers = world_size if config.min_workers is None else config.num_workers
    return replicas(config, workers) * config.gradient_accumulation_steps * config.micro_batch_size


def replicas(config: TrainConfig, world_size: int) -> int:
    """Number of replicas: ranks, or groups of ranks that share the tokens of a batch."""
    return max(1, world_size // config.sequence_parallel_size)


def at_size(config: TrainConfig, world_size: int) -> TrainConfig:
    """Adapt the config of an elastic run to `world_size` ranks: enough micro-batches of the same size for the step's
    groups. Some are empty if the division is not even. Other configs are returned unchanged."""
    if config.min_workers is None:
        return config
    turns = -(-config.num_workers * config.gradient_accumulation_steps // world_size)
    return config.model_copy(update={"gradient_accumulation_steps": turns})


class Orders:
    """Shuffled group indices of every epoch, cached, as shuffling a million takes as long as training on a thousand.

    The last two epochs are cached, as steps are prefetched across the end of an epoch.
    """

    def __init__(self, seed: int, number: int, *, mapped: bool) -> None:
        """For `number` groups. `mapped`: in files that the ranks of a machine share."""
        self._seed, self._number, self._mapped = seed, number, mapped
        self._kept: dict[int, UintArray] = {}

    def of(self, epoch: int) -> UintArray:
        """Order of an epoch, uint32 [number]: `numpy.random.default_rng([seed, epoch]).permutation(number)`."""
        if epoch not in self._kept:
            self._kept = dict([*self._kept.items()][-1:])
            recipe, fill = [self._seed, epoch], partial(_fill_order, seed=self._seed, epoch=epoch)
            self._kept[epoch] = shared_array("order", recipe, self._number, fill, mapped=self._mapped)
        return self._kept[epoch]


def _fill_order(order: UintArray, seed: int, epoch: int) -> None:
    order[:] = np.arange(len(order), dtype=np.uint32)
    np.random.default_rng([seed, epoch]).shuffle(order)


Hands = list[list[int]]


def shares(sizes: Sequence[int], ranks: int, turns: int, most: int, alike: bool) -> list[Hands]:
    """Split positions of `sizes` into `turns` micro-batches per rank, each with at most `most`; some may be empty.

    In every turn, the ranks get micro-batches of similar size. The largest come in the first turn, so that a lack of
    memory shows at once. The order of ranks is reversed in every other turn, so that no rank always gets the largest.

    Args:
        sizes: positive, at most `ranks * turns * most` of them.
        alike: group similar sizes (`alike_in_size`), else balance the total sizes (`even`).
    """
    hands = (alike_in_size if alike else even)(sizes, ranks * turns, most)
    hands.sort(key=lambda hand: (-_load(sizes, hand, alike), hand))
    rounds = [hands[turn * ranks : (turn + 1) * ranks][:: -1 if turn % 2 else 1] for turn in range(turns)]
    return [[hands_of_turn[rank] for hands_of_turn in rounds] for rank in range(ranks)]


def even(sizes: Sequence[int], hands: int, most: int) -> Hands:
    """Split into hands with similar sums: longest first, each to the hand with the smallest sum that has room.

    Without the limit `most`, the largest sum is at most 4/3 of the optimum (Graham 1969, "Bounds on multiprocessing
    timing anomalies").
    """
    dealt: Hands = [[] for _ in range(hands)]
    open_hands = [(0, hand) for hand in range(hands)]  # (sum, hand), a heap
    for position in _longest_first(sizes):
        total, hand = heapq.heappop(open_hands)
        dealt[hand].append(position)
        if len(dealt[hand]) < most:
            heapq.heappush(open_hands, (total + sizes[position], hand))
    return [sorted(hand) for hand in dealt]


def alike_in_size(sizes: Sequence[int], hands: int, most: int) -> Hands:
    """Split into hands of similar sizes, with equal numbers: this minimizes the padding of padded batches."""
    cut = np.array_split(np.array(_longest_first(sizes), dtype=np.int64), hands)
    dealt = [sorted(hand.tolist()) for hand in cut]
    assert all(len(hand) <= most for hand in dealt)
    return dealt


def _longest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda position: (-sizes[position], position))


def _load(sizes: Sequence[int], hand: list[int], alike: bool) -> int:
    of_hand = [sizes[position] for position in hand]
    return max(of_hand, default=0) * len(hand) if alike else sum(of_hand)


IntArray = npt.NDArray[np.int64]


def group_sizes(table: pa.Table, families: Collection[str], batching: Literal["tree", "padded"]) -> UintArray:
    """Sizes [G] that `fill_sizes` computes, in a new array."""
    sizes = np.empty(table.num_rows, dtype=np.uint32)
    fill_sizes(sizes, table, families, batching)
    return sizes


def fill_sizes(
    sizes: UintArray, table: pa.Table, families: Collection[str], batching: Literal["tree", "padded"]
) -> None:
    """Write the size in bytes of every group in a table of `GROUP_SCHEMA`, clipped to 1 .. 2^32 - 1.

    Args:
        sizes: output array [G].
        families: levels that are computed (`of_levels`). Sequences that only other levels need are not counted.
        batching: `tree`: size of the group's prefix tree, with x once; `padded`: of its longest sequence.
    """
    levels = pa.array([level.value for level in Level if level.family in families], pa.string())
    start = 0
    for batch in table.to_batches():
        sizes[start : start + len(batch)] = np.minimum(_sizes(batch, levels, batching), _MOST)
        start += len(batch)


def _sizes(groups: pa.RecordBatch, levels: pa.Array, batching: str) -> IntArray:
    prompts, responses, sequences = groups["prompts"], groups["responses"], groups["sequences"]
    group_S = np.repeat(np.arange(len(groups)), _lengths(sequences))
    cells = sequences.flatten()
    prompt_S = _starts(prompts)[group_S] + _numbers(cells.field("prompt"))
    response_S = _starts(responses)[group_S] + _numbers(cells.field("response"))
    response_bytes_S = _numbers(pc.binary_length(responses.flatten()))[response_S]
    bytes_P = _prompt_bytes(prompts.flatten())
    kept_S = _needed(groups["relations"], _starts(sequences), len(cells), levels)
    sizes_G = np.ones(len(groups), dtype=np.int64)
    if batching == "padded":
        np.maximum.at(sizes_G, group_S[kept_S], (bytes_P[prompt_S] + response_bytes_S)[kept_S])
        return sizes_G
    x_G = bytes_P[_starts(prompts)]
    group_P = np.repeat(np.arange(len(groups)), _lengths(prompts))
    kept_P = np.zeros(len(bytes_P), dtype=bool)
    kept_P[prompt_S[kept_S]] = True
    np.add.at(sizes_G, group_P[kept_P], (bytes_P - x_G[group_P])[kept_P])  # every prompt begins with x
    np.add.at(sizes_G, group_S[kept_S], response_bytes_S[kept_S])
    sizes_G += x_G
    return sizes_G


def _needed(relations: pa.Array, first_sequence_G: IntArray, num_sequences: int, levels: pa.Array) -> Any:
    """Whether each sequence occurs in a relation of these levels, bool [S]."""
    flat = relations.flatten()
    first_R = np.repeat(first_sequence_G, _lengths(relations))
    wanted_R = pc.is_in(flat.field("level"), value_set=levels).to_numpy(zero_copy_only=False)
    needed_S = np.zeros(num_sequences, dtype=bool)
    for side in ("preferred", "dispreferred"):
        lists = flat.field(side)
        lengths = _lengths(lists)
        places = np.repeat(first_R, lengths) + _numbers(lists.flatten())
        needed_S[places[np.repeat(wanted_R, lengths)]] = True
    return needed_S


def _prompt_bytes(prompts: pa.Array) -> IntArray:
    """Bytes of all messages of each prompt, [P]."""
    contents = _numbers(pc.binary_length(prompts.flatten().field("content")))
    until = np.concatenate([[0], np.cumsum(contents)])
    starts = _starts(prompts)
    return np.asarray(until[starts + _lengths(prompts)] - until[starts], dtype=np.int64)


def _lengths(lists: pa.Array) -> IntArray:
    return _numbers(pc.list_value_length(lists))


def _starts(lists: pa.Array) -> IntArray:
    """Index of each list's first value in the flattened values."""
    lengths = _lengths(lists)
    return np.asarray(np.cumsum(lengths) - lengths, dtype=np.int64)


def _numbers(values: pa.Array) -> IntArray:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)
