"""Duplicates and benchmark prompts: told from pairs that merely share a prompt, whatever the order of the input."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.config import DataConfig, RunConfig, parse_config
from mapl_ray.distributed.prepare import prepare_pairs
from mapl_ray.errors import UserError
from mapl_ray.preferences import Contamination, Duplicates
from mapl_ray.records import Message, PreferencePair
from mapl_ray.shards import iter_rows

LONG = " ".join(f"word{n}" for n in range(60))


def pair(
    pair_id: str, prompt: str = "Why?", chosen: str = "Because it is so.", rejected: str = "No idea."
) -> PreferencePair:
    return PreferencePair(pair_id, (Message("user", prompt),), chosen, rejected, "made-up")


def firsts(config: DataConfig, *pairs: PreferencePair) -> list[str | None]:
    duplicates = Duplicates(config)
    return [duplicates.first_like(one) for one in pairs]


def test_exact_ones_are_the_same_once_normalised() -> None:
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


def test_repeats_by_weight_are_no_duplicates() -> None:
    assert firsts(DataConfig(), pair("a"), pair("a~2"), pair("b~2")) == [None, None, "a~2"]


def benchmark(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "a.txt").write_text(
        "Name three primes.\n\nWrite a story about a fox who learns to read and then teaches it\n"
    )
    rows = [{"input": "Sort these."}, {"prompt": [{"role": "user", "content": "Spell 'rhythm'."}]}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ("name THREE primes.", "a.txt:1"),
        ("Sort these.", "b.jsonl, row 0"),
        ("Spell 'rhythm'.", "b.jsonl, row 1"),
        # Thirteen words in a row, others around them.
        ("Please write a story about a fox who learns to read and then teaches it to birds", "a.txt:3"),
        ("Write a story about a fox who learns to swim and then teaches it", None),
        ("Name three primes. And four squares.", None),
    ],
)
def test_benchmark_prompts_are_found(tmp_path: Path, prompt: str, place: str | None) -> None:
    found = Contamination.load(DataConfig(benchmarks=benchmark(tmp_path))).found(pair("a", prompt))
    assert (found is None) if place is None else (found is not None and found.endswith(place))


def test_what_is_no_benchmark(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "hello"}\n')
    for name, message in (("none.txt", "no such file"), ("c.jsonl", "holds no prompts")):
        with pytest.raises(UserError, match=message):
            Contamination.load(DataConfig(benchmarks=(str(tmp_path / name),)))


def run_config(folder: Path, rows: list[dict[str, Any]], benchmarks: tuple[str, ...]) -> RunConfig:
    folder.mkdir()
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"path": str(folder / "pairs.jsonl"), "benchmarks": benchmarks, "eval_fraction": 0.2}
    return parse_config({"name": "run", "output_dir": str(folder), "data": data}, "test")


def test_accounts_hold_and_order_does_not_matter(tmp_path: Path) -> None:
    rows = [
        {"id": f"p{n}", "prompt": f"Question {n}?", "chosen": f"{LONG} {n * n}", "rejected": "no"} for n in range(30)
    ]
    rows += [{**rows[3], "id": "copy"}, {**rows[4], "id": "contaminated", "prompt": "Sort these."}, {"id": "broken"}]
    benchmarks = benchmark(tmp_path)
    first = run_config(tmp_path / "first", rows, benchmarks)
    second = run_config(tmp_path / "second", random.Random(0).sample(rows, len(rows)), benchmarks)
    found = [prepare_pairs(config) for config in (first, second)]
    assert [{s: m.content_hash for s, m in one.items()} for one in found] == [
        {s: m.content_hash for s, m in found[0].items()}
    ] * 2
    assert sum(manifest.input_rows for manifest in found[0].values()) == len(rows)
    (file,) = (first.run_dir / "pairs" / "train").glob("rejected-*")
    stages = [json.loads(line)["stage"] for line in file.read_text().splitlines()]
    assert stages.count("contamination") == 1
    assert stages.count("read") == 1
    kept = {row["pair_id"] for split in ("train", "eval") for row in iter_rows(first.run_dir / "pairs" / split)}
    assert len(kept & {"p3", "copy"}) == 1
    assert len(kept) + len(stages) == len(rows)


def test_real_prompts_recur_and_real_pairs_do_not(shared_data: Path) -> None:
    """AlpacaEval asks the same 805 questions of several models: those are no duplicates."""
    from mapl_ray.preferences import read_pairs

    path = str(shared_data / "alpaca_eval_pairs.jsonl.gz")
    pairs = [item for item in read_pairs(DataConfig(path=path)) if isinstance(item, PreferencePair)]
    assert len(pairs) > 4 * len({one.prompt for one in pairs})
    found = firsts(DataConfig(), *pairs)
    assert sum(first is not None for first in found) < 0.01 * len(pairs)
