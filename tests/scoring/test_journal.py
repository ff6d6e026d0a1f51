"""The journal beside a part: a group that kills its engine is found, and nothing else changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.data.records import RelationGroup
from mapl_ray.scoring import BrokenEngineError, Journal, Outcome, score_part


class Killed(BaseException):
    """What the death of the process is to the code inside it: nothing after it runs."""


class FragileScorer:
    """Scores a sequence by its length; dies of the sequences it is told to."""

    max_tokens = 256

    def __init__(self, tokenizer: Any, deadly: set[tuple[int, ...]], error: type[BaseException]) -> None:
        self.tokenizer, self._deadly, self._error = tokenizer, deadly, error
        self.batches: list[int] = []

    def score(self, token_ids: Any, starts: Any) -> list[float]:
        self.batches.append(len(token_ids) // 6)
        if self._deadly & {tuple(ids) for ids in token_ids}:
            raise self._error("no more")
        return [float(len(ids)) for ids in token_ids]


def sequences_of(group: RelationGroup, tokenizer: Any) -> set[tuple[int, ...]]:
    from mapl_ray.batches import EncodedGroup, encode_group

    encoded = encode_group(group, tokenizer, 256)
    assert isinstance(encoded, EncodedGroup)
    return {encoded.token_ids(index) for index in range(6)}


def score_until_done(
    groups: list[RelationGroup], scorer: FragileScorer, path: Path, size: int
) -> tuple[list[Outcome], int]:
    """Each death ends a process: the next one knows the file alone."""
    for deaths in range(30):
        try:
            return score_part(groups, scorer, Journal(path, "mark", len(groups), size, "run")), deaths
        except (Killed, BrokenEngineError):
            continue
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize(
    ("error", "size", "deaths", "word"),
    [
        # 8 groups in hand: twice as they are, 4, 2, and the one alone.
        (Killed, 8, 5, "without a message"),
        # An engine that says what it can't do is not asked for the same batch again: 8, 4, 2, 1.
        (RuntimeError, 8, 4, "RuntimeError: no more"),
        (Killed, 1, 2, "without a message"),
    ],
)
def test_the_group_that_kills_is_set_aside(
    error: type[BaseException], size: int, deaths: int, word: str, tokenizer: Any, grid_groups: Any, tmp_path: Path
) -> None:
    groups = grid_groups(11)
    path = tmp_path / "part-00000.journal"
    expected, _ = score_until_done(groups, FragileScorer(tokenizer, set(), error), tmp_path / "whole", size)
    scorer = FragileScorer(tokenizer, sequences_of(groups[5], tokenizer), error)
    outcomes, died = score_until_done(groups, scorer, path, size)
    assert died == deaths
    assert isinstance(outcomes[5], str)
    assert "failed on this group in 2 tries" in outcomes[5]
    assert word in outcomes[5]
    assert [*outcomes[:5], *outcomes[6:]] == [*expected[:5], *expected[6:]]
    # What was finished is never scored again: 10 groups in batches that came back.
    journal = Journal(path, "mark", len(groups), size, "run")
    assert journal.next() is None


def test_one_death_changes_no_batch(tokenizer: Any, grid_groups: Any, tmp_path: Path) -> None:
    groups, path = grid_groups(9), tmp_path / "journal"
    journal = Journal(path, "mark", 9, 4, "run")
    assert journal.next() == (0, 4)
    journal.end((0, 4), [(1.0,) * 6] * 4)
    journal.begin((4, 8))  # and then the process was killed, in the middle of a line
    with path.open("a") as lines:
        lines.write('{"end": [4, 8], "outcomes": [[1.')
    scorer = FragileScorer(tokenizer, set(), Killed)
    outcomes = score_part(groups, scorer, Journal(path, "mark", 9, 4, "run"))
    assert scorer.batches == [4, 1]
    assert outcomes[3] == (1.0,) * 6
    assert len(outcomes) == 9


def test_what_is_about_other_groups_is_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, "mark", 9, 4, "run").end((0, 4), ["too long"] * 4)
    assert Journal(path, "mark", 9, 4, "another run").next() == (4, 8)
    for fingerprint, total, size in (("other", 9, 4), ("mark", 8, 4), ("mark", 9, 5)):
        Journal(path, "mark", 9, 4, "run").end((0, 4), ["too long"] * 4)
        assert Journal(path, fingerprint, total, size, "run").next() == (0, size)
    assert len(path.read_text().splitlines()) == 1


def test_deaths_of_an_earlier_run_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for _ in range(2):  # stopped twice by its user, in the same batch
        Journal(path, "mark", 4, 4, "first").begin((0, 4))
    assert Journal(path, "mark", 4, 4, "first").next() == (0, 2)
    assert Journal(path, "mark", 4, 4, "second").next() == (0, 4)


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xfe\x00 not text\n",
        b"{}\n",
        b"[]\n",
        b'{"end": [2, 9], "outcomes": []}\n',
        b'{"end": [2, 4], "outcomes": [1, 2]}\n',
        b'{"end": [2, 4], "outcomes": [[-1.0]]}\n',
        b'{"end": [true, 4], "outcomes": ["a", "b", "c"]}\n',
        b'{"run": "run", "begin": "x"}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_damaged_line_and_what_follows_it_are_dropped(bad: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, "mark", 6, 2, "run")
    journal.end((0, 2), ["too long"] * 2)
    whole = path.read_bytes()
    journal.end((4, 6), ["too long"] * 2)
    path.write_bytes(whole + bad + path.read_bytes()[len(whole) :])
    for _ in range(2):  # a rerun, and one more
        again = Journal(path, "mark", 6, 2, "run")
        assert again.next() == (2, 4)
        assert path.read_bytes() == whole
    again.end((2, 4), [(1.0, 2.0), "why"])
    again.end((4, 6), ["too long"] * 2)
    assert Journal(path, "mark", 6, 2, "run").outcomes()[2:4] == [(1.0, 2.0), "why"]


def test_the_lines_are_json(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, "mark", 2, 2, "run")
    journal.begin((0, 2))
    journal.end((0, 2), [(-0.1, 2.0), "why"])
    assert [sorted(json.loads(line)) for line in path.read_text().splitlines()] == [
        ["fingerprint", "size", "total"],
        ["begin", "run"],
        ["end", "outcomes"],
    ]
    assert Journal(path, "mark", 2, 2, "run").outcomes() == [(-0.1, 2.0), "why"]
