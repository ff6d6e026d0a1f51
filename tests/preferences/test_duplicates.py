"""Duplicates and benchmark prompts: told from pairs that merely share a prompt, whatever the order of the input."""

import gzip
import json
import random
from pathlib import Path
from typing import Any, Literal

import pytest

from mapl_ray.config import DataConfig, MixSource, RunConfig, parse_config
from mapl_ray.data.records import Message, PreferencePair
from mapl_ray.data.shards import iter_rows
from mapl_ray.distributed.preflight import check_inputs
from mapl_ray.distributed.prepare import prepare_pairs
from mapl_ray.errors import UserError
from mapl_ray.preferences import Contamination, Duplicates, read_pairs

LONG = " ".join(f"word{n}" for n in range(60))


def pair(
    pair_id: str, prompt: str = "Why?", chosen: str = "Because it is so.", rejected: str = "No idea."
) -> PreferencePair:
    return PreferencePair(pair_id, (Message("user", prompt),), chosen, rejected, "made-up")


def firsts(config: DataConfig, *pairs: PreferencePair) -> list[str | None]:
    duplicates = Duplicates(config)
    return [duplicates.first_like(one) for one in pairs]


def test_exact_ones_are_the_same_once_normalised() -> None:
    composed, decomposed = pair("e", chosen="Caf\u00e9."), pair("f", chosen="Cafe\u0301.")
    assert firsts(DataConfig(), composed, decomposed) == [None, "e"]
    same = pair("b", "  WHY?", "Because\u00a0it is so.", "No  idea.\n")
    other_answer, exchanged = pair("c", chosen="Because."), pair("d", chosen="No idea.", rejected="Because it is so.")
    given = (pair("a"), same, other_answer, exchanged)
    assert firsts(DataConfig(), *given) == [None, "a", None, None]
    assert firsts(DataConfig(duplicates="keep"), *given) == [None] * 4


def test_near_ones_share_most_of_their_words() -> None:
    config = DataConfig(duplicates="near", near_threshold=0.8)
    near, far = pair("b", chosen=LONG + " and more"), pair("c", chosen=LONG[:200])
    given = (pair("a", chosen=LONG), near, far, pair("d", chosen="No idea.", rejected=LONG))
    assert firsts(config, *given) == [None, "a", None, None]


def text_of(case: int, changed: int) -> str:
    """400 words, `changed` of them replaced far from one another: each takes three of 398 runs from both sides."""
    return " ".join(f"other{n}" if n % 12 == 5 and n // 12 < changed else f"word{case}-{n}" for n in range(400))


@pytest.mark.parametrize(("threshold", "changed", "found"), [(0.9, 2, True), (0.9, 20, False), (0.5, 24, True)])
def test_near_ones_follow_the_threshold(threshold: float, changed: int, found: bool) -> None:
    """398 runs of one response, and one each of prompt and other response: Jaccard (400 - 3n) / (400 + 3n).

    That is 0.970, 0.739 and 0.695; each is more than four standard deviations of the estimate from its threshold, and
    the index proposes all but one of 4000 such pairs that are to be found.
    """
    config = DataConfig(duplicates="near", near_threshold=threshold)
    for case in range(40):
        given = [pair(name, rejected=text_of(case, number)) for name, number in (("a", 0), ("b", changed))]
        assert firsts(config, *given) == [None, "a" if found else None]


@pytest.mark.parametrize("threshold", [0.01, 0.99, 1.0])
def test_every_threshold_that_the_config_takes(threshold: float) -> None:
    given = (pair("a", chosen=LONG), pair("b", chosen=f"{LONG}."), pair("c", "Who?", "A fox.", "He."))
    near = "a" if threshold < 0.5 else None
    same = pair("d", chosen=LONG.upper())
    assert firsts(DataConfig(duplicates="near", near_threshold=threshold), *given, same) == [None, near, None, "a"]


def test_short_texts_are_compared_by_their_words() -> None:
    config = DataConfig(duplicates="near", near_threshold=0.9)
    given = (pair("a", "Hi", "Hello.", "Go"), pair("b", "hi", "hello.", "go"), pair("c", "Hi", "Go", "Hello."))
    assert firsts(config, *given) == [None, "a", None]


def test_the_pair_named_is_one_that_stayed() -> None:
    config = DataConfig(duplicates="near", near_threshold=0.8)
    given = [pair(name, chosen=text) for name, text in (("a", LONG), ("b", f"{LONG} more"), ("c", f"{LONG} more"))]
    assert firsts(config, *given) == [None, "a", "a"]


@pytest.mark.parametrize("mode", ["exact", "near"])
def test_repeats_by_weight_are_no_duplicates(mode: Literal["exact", "near"]) -> None:
    config = DataConfig(duplicates=mode, mix=(MixSource(path="a"), MixSource(path="b", weight=1.5)))
    given = (pair("a"), pair("a~2"), pair("b"), pair("b~2"), pair("b~3"))
    assert firsts(config, *given) == [None, None, "a", "a~2", "a"]  # a weight of 1.5 makes no third
    # Without a mix an id may end as it likes.
    assert firsts(DataConfig(duplicates=mode), pair("x~2"), pair("x~7"), pair("x~" + "9" * 5000)) == [
        None,
        "x~2",
        "x~2",
    ]


def benchmark(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "a.txt").write_text(
        "\ufeffName three primes.\n\nWrite a story about a fox who learns to read and then teaches it\n"
        "First part,\u2028second part.\n",
        encoding="utf-8",
    )
    rows = [
        {"input": "Sort these."},
        {"prompt": [{"role": "user", "content": "Spell 'rhythm'."}]},
        {"instruction": "Sum up.", "input": "The long winter."},
    ]
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl.gz")


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ("name THREE primes.", "a.txt:1"),
        ("Sort these.", "b.jsonl.gz, row 0"),
        ("Spell 'rhythm'.", "b.jsonl.gz, row 1"),
        ("Sum up.\n\nThe long winter.", "b.jsonl.gz, row 2"),
        ("first part, second part.", "a.txt:4"),
        ("First part,", None),
        # Thirteen words in a row, others around them.
        ("Please write a story about a fox who learns to read and then teaches it to birds", "a.txt:3"),
        ("Write a story about a fox who learns to swim and then teaches it", None),
        ("Name three primes. And four squares.", None),
    ],
)
def test_benchmark_prompts_are_found(tmp_path: Path, prompt: str, place: str | None) -> None:
    found = Contamination.load(DataConfig(benchmarks=benchmark(tmp_path))).found(pair("a", prompt))
    assert (found is None) if place is None else (found is not None and found.endswith(place))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "missing.txt: no such file"),
        ("notes.md", b"Sort these.", r"notes.md: expected .txt, .jsonl"),
        ("a.jsonl", b'{"text": "hello"}\n', "a.jsonl holds no prompts"),
        ("b.jsonl", b'{"prompt": "Sort these."}\n{"prompt": "Sp', "b.jsonl: line 2.*Fix the row"),
        ("c.txt", "Où ?".encode("latin-1"), "c.txt: not UTF-8.*iconv"),
        ("d.jsonl.gz", gzip.compress(b'{"prompt": "Sort these."}\n')[:-9], "d.jsonl.gz: truncated or damaged"),
    ],
    ids=["missing", "of another kind", "without the column", "with a broken row", "not UTF-8", "truncated"],
)
def test_what_is_no_benchmark(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """Told before Ray starts and before the source is read: what is passed over would be trained on."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    config = run_config(tmp_path / "run", [{"id": "a"}], (str(tmp_path / name),))
    with pytest.raises(UserError, match=message):
        Contamination.load(config.data)
    with pytest.raises(UserError, match=message):
        check_inputs(config, ("synthesize",))
    with pytest.raises(UserError, match=message):
        prepare_pairs(config)


def run_config(folder: Path, rows: list[dict[str, Any]], benchmarks: tuple[str, ...], **data: Any) -> RunConfig:
    folder.mkdir()
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"path": str(folder / "pairs.jsonl"), "benchmarks": benchmarks, "eval_fraction": 0.2, **data}
    return parse_config({"name": "run", "output_dir": str(folder), "data": data}, "test")


def kept_and_rejected(config: RunConfig) -> tuple[set[str], dict[str, tuple[str, str]]]:
    """Ids that stayed; stage and reason of the others."""
    pairs = config.run_dir / "pairs"
    lines = [line for file in (pairs / "train").glob("rejected-*") for line in file.read_text().splitlines()]
    rejected = {row["pair_id"]: (row["stage"], row["reason"]) for row in map(json.loads, lines)}
    return {row["pair_id"] for split in ("train", "eval") for row in iter_rows(pairs / split)}, rejected


@pytest.mark.parametrize("mode", ["exact", "near"])
def test_accounts_hold_and_order_does_not_matter(tmp_path: Path, mode: str) -> None:
    rows = [
        {"id": f"p{n}", "prompt": f"Question {n}?", "chosen": f"{text_of(n, 0)}", "rejected": "no"} for n in range(30)
    ]
    rows += [{**row, "id": f"copy{n}", "chosen": f" {row['chosen'].upper()}"} for n, row in enumerate(rows[:6])]
    rows += [{**rows[n], "id": f"near{n}", "chosen": text_of(n, 2)} for n in (10, 11, 12)]
    rows += [{**rows[20], "id": "contaminated", "prompt": "Sort these."}, {"id": "broken"}]
    benchmarks = benchmark(tmp_path)
    configs = [
        run_config(tmp_path / f"order{n}", random.Random(n).sample(rows, len(rows)), benchmarks, duplicates=mode)
        for n in range(3)
    ]
    manifests = [prepare_pairs(config) for config in configs]
    hashes = [{split: manifest.content_hash for split, manifest in found.items()} for found in manifests]
    assert all(found == hashes[0] for found in hashes[1:])
    assert sum(manifest.input_rows for manifest in manifests[0].values()) == len(rows)

    kept, rejected = kept_and_rejected(configs[0])
    assert kept | rejected.keys() == {row["id"] for row in rows}
    assert not kept & rejected.keys()
    assert rejected["contaminated"] == ("contamination", "a user turn is the benchmark prompt b.jsonl.gz, row 0")
    duplicates = {name: reason for name, (stage, reason) in rejected.items() if stage == "duplicates"}
    twins = [(f"p{n}", f"copy{n}") for n in range(6)]
    twins += [(f"p{n}", f"near{n}") for n in (10, 11, 12)] if mode == "near" else []
    assert {name: stage for name, (stage, _) in rejected.items()}.keys() == {*duplicates, "contaminated", "broken"}
    assert len(duplicates) == len(twins)
    for one, other in twins:
        (gone,) = {one, other} & duplicates.keys()
        assert f"the same as pair {(one if gone == other else other)!r}" in duplicates[gone]


def test_another_benchmark_makes_the_pairs_again(tmp_path: Path) -> None:
    rows = [{"id": f"p{n}", "prompt": f"Question {n}?", "chosen": "yes", "rejected": "no"} for n in range(20)]
    (tmp_path / "own.txt").write_text("Question 7?\n")
    config = run_config(tmp_path / "run", rows, (str(tmp_path / "own.txt"),))
    prepare_pairs(config)
    assert kept_and_rejected(config)[0] == {row["id"] for row in rows} - {"p7"}
    (tmp_path / "own.txt").write_text("Question 8?\n")
    prepare_pairs(config)
    assert kept_and_rejected(config)[0] == {row["id"] for row in rows} - {"p8"}
    (tmp_path / "own.txt").write_text("".join(f"{row['prompt']}\n" for row in rows))
    with pytest.raises(UserError, match="0 were held out, 20 rows rejected"):
        prepare_pairs(config)


def test_real_prompts_recur_and_real_pairs_do_not(shared_data: Path) -> None:
    """AlpacaEval asks the same 805 questions of several models: those are no duplicates.

    Eleven answers are those of another model as well, case and white space aside.
    """
    path = str(shared_data / "alpaca_eval_pairs.jsonl.gz")
    pairs = [item for item in read_pairs(DataConfig(path=path)) if isinstance(item, PreferencePair)]
    assert len(pairs) > 4 * len({one.prompt for one in pairs})
    of_id = {one.pair_id: one for one in pairs}
    found = {
        of_id[one.pair_id]: of_id[first]
        for one, first in zip(pairs, firsts(DataConfig(), *pairs), strict=True)
        if first
    }
    assert len(found) == 11
    for one, first in found.items():
        assert [" ".join(text.lower().split()) for text in (one.chosen, one.rejected)] == [
            " ".join(text.lower().split()) for text in (first.chosen, first.rejected)
        ]
