"""Which groups every rank computes in every micro-batch of every step: plain arithmetic, the same on all ranks.

Ranks wait for each other, after every micro-batch under ZeRO-2 and 3 and after every step in any case, so a step takes
as long as its fullest share. What is to be computed in a group is estimated from the lengths of its texts without
tokenizing: every rank must know the sizes of all groups of a step. UTF-8 bytes stand for tokens: a byte-level tokenizer
makes about as many tokens of a byte in one script as in another, which is not so of characters.

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

_MOST = 2**32 - 1  # of an index and of a size


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """The order of training; it depends on the config, the groups' number and sizes, and nothing else."""

    sizes: UintArray  # of the groups; they decide how a step is cut, not what is in it
    groups_per_step: int
    micro_batches: int  # a step, over all ranks; together they hold `groups_per_step` or more
    micro_batch_size: int  # the most groups in one
    alike: bool  # micro-batches of groups of like size, else of like sum
    total_steps: int
    orders: Orders

    @classmethod
    def of(
        cls, config: TrainConfig, sizes: Sequence[int] | UintArray, world_size: int, *, mapped: bool = False
    ) -> StepPlan:
        """`mapped`: ranks of a machine share the order of an epoch. Raises `ValueError` without groups, and for more
        than there are indices."""
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
        """The micro-batches of one of `number` replicas; some may be empty, all replicas have as many."""
        groups = self.groups_of_step(step)
        sizes = self.sizes[groups].tolist()
        dealt = shares(sizes, number, self.micro_batches // number, self.micro_batch_size, self.alike)
        return [[groups[position] for position in hand] for hand in dealt[replica]]


def total_steps(config: TrainConfig, num_groups: int, world_size: int) -> int:
    """Optimizer steps of a whole run."""
    total = config.epochs * -(-num_groups // groups_per_step(config, world_size))
    return total if config.max_steps is None else min(total, config.max_steps)


def groups_per_step(config: TrainConfig, world_size: int) -> int:
    """Groups of one optimizer step; of an elastic run what `num_workers` would make, however many there are."""
    workers = world_size if config.min_workers is None else config.num_workers
    return replicas(config, workers) * config.gradient_accumulation_steps * config.micro_batch_size


def replicas(config: TrainConfig, world_size: int) -> int:
    """Ranks that have groups of their own: all of them, or one of every group of ranks that share theirs."""
    return max(1, world_size // config.sequence_parallel_size)


def at_size(config: TrainConfig, world_size: int) -> TrainConfig:
    """What an elastic run's ranks do when there are `world_size` of them: micro-batches of the same size, and as many
    on each as hold the step's groups. Where these don't divide evenly some stay empty. Others: as they are."""
    if config.min_workers is None:
        return config
    turns = -(-config.num_workers * config.gradient_accumulation_steps // world_size)
    return config.model_copy(update={"gradient_accumulation_steps": turns})


class Orders:
    """The groups' indices in the order of every epoch: a million take as long to shuffle as a thousand to train.

    The newest two are kept, for steps are made ahead across the end of an epoch.
    """

    def __init__(self, seed: int, number: int, *, mapped: bool) -> None:
        """Of `number` groups. `mapped`: from files that ranks of a machine share."""
        self._seed, self._number, self._mapped = seed, number, mapped
        self._kept: dict[int, UintArray] = {}

    def of(self, epoch: int) -> UintArray:
        """[number] uint32: that of `numpy.random.default_rng([seed, epoch]).permutation(number)`."""
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
    """Positions of `sizes` as `turns` micro-batches of every rank, each of at most `most`; some may be empty.

    In every turn the ranks take neighbours in size, the fullest in the first turn, where memory that is short is found
    short at once; the order of ranks turns round, so that no rank takes the fullest of every turn.

    Args:
        sizes: positive, at most `ranks * turns * most` of them.
        alike: those of like size together (`alike_in_size`), else as much in each as can be had (`even`).
    """
    hands = (alike_in_size if alike else even)(sizes, ranks * turns, most)
    hands.sort(key=lambda hand: (-_load(sizes, hand, alike), hand))
    rounds = [hands[turn * ranks : (turn + 1) * ranks][:: -1 if turn % 2 else 1] for turn in range(turns)]
    return [[hands_of_turn[rank] for hands_of_turn in rounds] for rank in range(ranks)]


def even(sizes: Sequence[int], hands: int, most: int) -> Hands:
    """Hands of about the same sum: longest first, each to the hand that holds least and has room.

    Without the limit to `most`, the fullest is at most 4/3 of the best there is (Graham 1969, "Bounds on
    multiprocessing timing anomalies").
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
    """Hands of like sizes, as many in each: a padded batch is as wide as its longest, and has the least padding so."""
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
    """The sizes [G] that `fill_sizes` writes, in an array of their own."""
    sizes = np.empty(table.num_rows, dtype=np.uint32)
    fill_sizes(sizes, table, families, batching)
    return sizes


def fill_sizes(
    sizes: UintArray, table: pa.Table, families: Collection[str], batching: Literal["tree", "padded"]
) -> None:
    """Write the bytes of every group of a table in `GROUP_SCHEMA`, at least 1 and at most 2^32 - 1 each.

    Args:
        sizes: [G], what is written to.
        families: levels that are computed (`of_levels`); sequences that only other levels need count for nothing.
        batching: `tree`: of a group's prefix tree, x once; `padded`: of its longest sequence.
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
    """Whether each sequence [S] occurs in a relation of these levels."""
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
    """[P], all messages of a prompt together."""
    contents = _numbers(pc.binary_length(prompts.flatten().field("content")))
    until = np.concatenate([[0], np.cumsum(contents)])
    starts = _starts(prompts)
    return np.asarray(until[starts + _lengths(prompts)] - until[starts], dtype=np.int64)


def _lengths(lists: pa.Array) -> IntArray:
    return _numbers(pc.list_value_length(lists))


def _starts(lists: pa.Array) -> IntArray:
    """Where each list begins among the flattened values."""
    lengths = _lengths(lists)
    return np.asarray(np.cumsum(lengths) - lengths, dtype=np.int64)


def _numbers(values: pa.Array) -> IntArray:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)
