"""Micro-batches from a table of groups, in CPU memory, prefetched by a background thread."""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from mapl_ray.batches import Batch, EncodedGroup, collate, encode_group, of_levels, without_relations
from mapl_ray.config import TrainConfig
from mapl_ray.data.records import Rejection
from mapl_ray.errors import RunError
from mapl_ray.training.group_table import GroupTable, encode_all
from mapl_ray.training.plan import StepPlan, shares


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One rank's micro-batch, and counts of the groups that were left out of it."""

    batch: Batch
    groups: int  # number of groups, without fillers
    counts: Counter[str]  # groups left out or truncated, by reason (`group_table.REASONS`)


@dataclass(frozen=True, slots=True)
class Work:
    """Micro-batches of one rank in one step."""

    batches: list[Batch]
    groups: int
    counts: Counter[str]

    @classmethod
    def of(cls, parts: list[MicroBatch]) -> Work:
        """Combine the micro-batches of a step."""
        counts = sum((part.counts for part in parts), Counter[str]())
        return cls([part.batch for part in parts], sum(part.groups for part in parts), counts)


@dataclass(frozen=True, slots=True)
class Feed:
    """One replica's share of a table, encoded and collated."""

    table: GroupTable
    tokenizer: Any  # a private copy, as tokenizers are not thread-safe
    config: TrainConfig
    replica: int  # index of the share: of one rank, or of the ranks that share their groups
    replicas: int
    takes_ref_logps: bool  # whether the data's ref_logps are used
    pad_to_multiple_of: int
    row_tokens: int | None
    ahead: int  # number of micro-batches that a thread prefetches; 0: no thread
    pins: bool = False  # whether batches are in page-locked memory
    part: tuple[int, int] | None = None  # under sequence parallelism: rank and number of ranks that share a batch

    @classmethod
    def of(
        cls,
        table: GroupTable,
        tokenizer: Any,
        config: TrainConfig,
        *,
        replica: int,
        replicas: int,
        takes_ref_logps: bool,
        row_tokens: int | None,
        pad_to_multiple_of: int,
        on_gpu: bool,
        part: tuple[int, int] | None = None,
    ) -> Feed:
        """Create a feed with a copy of the tokenizer. The default of `train.prefetch` depends on the device."""
        # Without a GPU, the thread would compete with the model for CPU time.
        ahead = config.gradient_accumulation_steps if on_gpu else 0
        return cls(
            table,
            copy.deepcopy(tokenizer),
            config,
            replica,
            replicas,
            takes_ref_logps,
            pad_to_multiple_of=pad_to_multiple_of,
            row_tokens=row_tokens,
            ahead=ahead if config.prefetch is None else config.prefetch,
            pins=on_gpu,
            part=part,
        )

    def of_table(self, table: GroupTable) -> Feed:
        """Copy the feed for another table, so that both can be used at the same time."""
        return replace(self, table=table, tokenizer=copy.deepcopy(self.tokenizer))

    def steps(self, plan: StepPlan, first: int, last: int) -> Generator[Work, None, None]:
        """Yield the work of steps `first` to `last - 1`. Close the generator if it is not used up.

        Groups have only the relations with a weight other than 0, and the sequences that these use. An empty
        micro-batch gets a filler group without relations.
        """

        def parts() -> Iterator[MicroBatch]:
            for step in range(first, last):
                filler = plan.groups_of_step(step)[0]
                for indices in plan.micro_batches_of(step, self.replica, self.replicas):
                    yield self._micro_batch(indices, filler, learn=True)

        with closing(prefetched(parts(), self.ahead)) as made:
            for _ in range(first, last):
                yield Work.of(list(islice(made, plan.micro_batches // self.replicas)))

    def held_out(self) -> Generator[Batch, None, None]:
        """Yield this rank's share of the whole table, with all relations. Close the generator if it is not used up."""
        config = self.config
        sizes = self.table.sizes(config, learn=False).tolist()
        turns = -(-len(sizes) // (self.replicas * config.micro_batch_size))
        dealt = shares(sizes, self.replicas, turns, config.micro_batch_size, config.batching == "padded")
        parts = (self._micro_batch(indices, filler=0, learn=False) for indices in dealt[self.replica])
        with closing(prefetched(parts, self.ahead)) as made:
            yield from (part.batch for part in made)

    def _micro_batch(self, indices: list[int], filler: int, learn: bool) -> MicroBatch:
        found = encode_all(self.table, indices, self.tokenizer, self.config, self.takes_ref_logps)
        families = self.config.weights.families
        groups = [of_levels(group, families) if learn else group for group in found.groups]
        return MicroBatch(self._collate(groups or [self._filler(filler)]), len(groups), found.counts)

    def _collate(self, groups: Iterable[EncodedGroup]) -> Batch:
        pad = self.tokenizer.pad_token_id
        batch = collate(list(groups), self.config.batching, pad, self.pad_to_multiple_of, self.row_tokens)
        batch = batch if self.part is None else batch.with_part(*self.part)
        return batch.pinned() if self.pins else batch

    def _filler(self, index: int) -> EncodedGroup:
        for candidate in (index, *range(len(self.table))):
            encoded = encode_all(self.table, [candidate], self.tokenizer, self.config, self.takes_ref_logps)
            if encoded.groups:
                return without_relations(encoded.groups[0])
        limit = self.config.max_sequence_tokens
        first = encode_group(self.table[index], self.tokenizer, limit, self.config.truncate_prompt)
        why = first.reason if isinstance(first, Rejection) else "it is truncated, but has ref_logps of the full prompts"
        group = self.table[index]
        where = f"pair {group.pair_id!r} of {group.source}"
        raise RunError(f"{self.table.directory}: no group can be trained on. {where}: {why}.")


T = TypeVar("T")


def prefetched(items: Iterator[T], ahead: int) -> Generator[T, None, None]:
    """Yield the same items in the same order, while a thread prefetches up to `ahead` of them; 0: no thread.

    An exception in `items` is raised in place of its item. The thread ends with the items, or when the generator is
    closed (`contextlib.closing`), after the item that it is computing.
    """
    if ahead == 0:
        yield from items
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")  # one thread: futures finish in order
    waiting: deque[Future[list[T]]] = deque(pool.submit(_next, items) for _ in range(ahead))
    try:
        while found := waiting.popleft().result():
            waiting.append(pool.submit(_next, items))
            yield found[0]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _next(items: Iterator[T]) -> list[T]:
    """Return a list with the next item, empty at the end, as a future can't hold a StopIteration."""
    return list(islice(items, 1))
