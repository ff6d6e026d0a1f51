"""Items made ahead: the same ones in the same order, no more of them than asked for, and nothing left running."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from mapl_ray.training.feed import prefetched


class Source:
    """Numbers, the names of the threads that made them, and an error at the end if wanted."""

    def __init__(self, number: int, error: Exception | None = None) -> None:
        self.number, self.error, self.made = number, error, 0
        self.threads: set[str] = set()
        self.moved = threading.Condition()

    def __iter__(self) -> Iterator[int]:
        for item in range(self.number):
            with self.moved:
                self.made += 1
                self.threads.add(threading.current_thread().name)
                self.moved.notify()
            yield item
        if self.error is not None:
            raise self.error

    def wait_for(self, made: int) -> None:
        with self.moved:
            assert self.moved.wait_for(lambda: self.made >= made, timeout=20), self.made


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
def test_same_items_in_order_and_never_more_than_asked_for(ahead: int) -> None:
    source, got = Source(20), []
    for item in prefetched(iter(source), ahead):
        got.append(item)
        source.wait_for(min(item + 1 + ahead, 20))  # that many are made while this one is used
        assert source.made <= item + 1 + ahead
    assert got == list(range(20))
    assert not running()
    assert any("prefetch" in name for name in source.threads) == (ahead > 0)


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_comes_where_its_item_would_have_come(ahead: int) -> None:
    got: list[int] = []
    with pytest.raises(KeyError, match="third"):
        got.extend(prefetched(iter(Source(2, KeyError("third"))), ahead))
    assert got == [0, 1]
    assert not running()


def test_what_is_left_in_the_middle_stops() -> None:
    source = Source(10**9)

    def use() -> None:
        with closing(prefetched(iter(source), 2)) as items:
            assert [next(items), next(items)] == [0, 1]
            raise ValueError("of the model")

    with pytest.raises(ValueError, match="of the model"):
        use()
    assert not running()
    assert source.made <= 4
