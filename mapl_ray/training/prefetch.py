"""The next items made in a background thread while the last ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Iterator[T], ahead: int) -> Generator[T, None, None]:
    """The same items in the same order, at most `ahead` of them made before they are asked for; 0: no thread.

    An exception of `items` is raised where its item would have come. The thread ends with the items, or when the
    generator is closed (`contextlib.closing`): then the item that is being made is still finished.
    """
    if ahead == 0:
        yield from items
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")  # one thread: futures end in the order they were made
    waiting: deque[Future[list[T]]] = deque(pool.submit(_next, items) for _ in range(ahead))
    try:
        while found := waiting.popleft().result():
            waiting.append(pool.submit(_next, items))
            yield found[0]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _next(items: Iterator[T]) -> list[T]:
    """The next item alone in a list, which is empty where there is none: a future can't hold a StopIteration."""
    return list(islice(items, 1))
