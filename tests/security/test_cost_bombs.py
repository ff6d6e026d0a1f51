"""Small inputs that would take hours or all memory: each ends within seconds, in an error that names it."""

import contextlib
import gzip
import json
import re
import resource
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.batches.render import RenderError, render
from mapl_ray.config import DataConfig, parse_config
from mapl_ray.data.records import Message, PreferencePair
from mapl_ray.data.shards import iter_rows
from mapl_ray.distributed import prepare
from mapl_ray.errors import UserError
from mapl_ray.evaluation.following import follow_row
from mapl_ray.preferences import limits, read_pairs
from mapl_ray.preferences.canonical_order import ExternalSort
from mapl_ray.preferences.fields import RowError

ROW = {"prompt": "Why?", "chosen": "yes", "rejected": "no"}
LIMIT = 3 * 2**30  # bytes of address space of the process that reads
READ = """
import sys
from mapl_ray.config import DataConfig
from mapl_ray.errors import UserError
from mapl_ray.preferences import read_pairs
from mapl_ray.data.records import Rejection
for path in sys.argv[1:]:
    try:
        for item in read_pairs(DataConfig(path=path)):
            if isinstance(item, Rejection):
                raise UserError(item.reason)
        print("read whole")
    except UserError as error:
        print(error)
"""


def zipped(path: Path, pieces: list[bytes], times: int) -> Path:
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(times):
            for piece in pieces:
                file.write(piece)
    return path


def rows_of_gzip(folder: Path) -> Path:
    row = json.dumps({**ROW, "prompt": "Why? " * 1000}) + "\n"
    return zipped(folder / "rows.jsonl.gz", [row.encode() * 200], 100)


def long_line(folder: Path) -> Path:
    (folder / "line.jsonl").write_bytes(b'{"prompt": "' + b"a" * 2**25)
    return folder / "line.jsonl"


def array_of_gzip(folder: Path) -> Path:
    return zipped(folder / "array.json.gz", [b"[", *[b" " * 2**20] * 32], 8)


def open_quote(folder: Path) -> Path:
    head = b'prompt,chosen,rejected\nWhy?,yes,"no\n'
    (folder / "quote.csv").write_bytes(head + b"Why?,yes,no\n" * 4_000_000)
    return folder / "quote.csv"


def csv_columns(folder: Path) -> Path:
    header = ",".join(["prompt", "chosen", "rejected", *(f"c{n}" for n in range(60_000))])
    (folder / "columns.csv").write_text(f"{header}\n{header}\n")
    return folder / "columns.csv"


def parquet_columns(folder: Path) -> Path:
    columns = {**{name: [value] for name, value in ROW.items()}, **{f"c{n}": [1] for n in range(8_000)}}
    pq.write_table(pa.table(columns), folder / "columns.parquet")
    return folder / "columns.parquet"


def json_keys(folder: Path) -> Path:
    keys = ", ".join(f'"c{n}": 1' for n in range(200_000))
    (folder / "keys.jsonl").write_text(f'{{{keys}, "prompt": "Why?"}}\n')
    return folder / "keys.jsonl"


def json_key_twice(folder: Path) -> Path:
    keys = ", ".join(f'"c{n}": 1' for n in range(200_000))
    (folder / "twice.jsonl").write_text(f'{{{keys}, "c199999": 2}}\n')
    return folder / "twice.jsonl"


def parquet_text(folder: Path) -> Path:
    table = pa.table({**{name: [value] for name, value in ROW.items()}, "prompt": ["a" * 2**28]})
    pq.write_table(table, folder / "text.parquet", compression="zstd")
    return folder / "text.parquet"


def parquet_rows(folder: Path) -> Path:
    indices = pa.array([0]).take(pa.nulls(3_000_000, pa.int64()).fill_null(0))
    columns = {name: pa.DictionaryArray.from_arrays(indices.cast(pa.int32()), [value]) for name, value in ROW.items()}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    return folder / "rows.parquet"


BOMBS: list[tuple[Callable[[Path], Path], str]] = [
    (rows_of_gzip, "of gzip grew to"),
    (long_line, "line 1 is longer than"),
    (array_of_gzip, "of gzip grew to"),
    (open_quote, "the row that starts at line 2 is longer than"),
    (csv_columns, "60,003 columns; expected at most 4,096"),
    (parquet_columns, "8,003 columns; expected at most 4,096"),
    (json_keys, "200,001 keys; expected at most 4,096"),
    (json_key_twice, "the key 'c199999' occurs twice"),
    (parquet_text, "column 'prompt': .* bytes grow to"),
    (parquet_rows, "3,000,000 rows in"),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one process, with a minute of CPU time and `LIMIT` of memory, says of each bomb."""
    folder = tmp_path_factory.mktemp("bombs")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    words = [sys.executable, "-c", READ, *(str(bomb(folder)) for bomb, _ in BOMBS)]
    done = subprocess.run(words, preexec_fn=limited, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", range(len(BOMBS)), ids=[bomb.__name__ for bomb, _ in BOMBS])
def test_a_small_file_does_not_become_an_endless_one(number: int, said: list[str]) -> None:
    assert len(said) == len(BOMBS)
    assert re.search(BOMBS[number][1], said[number])


def test_ordinary_files_are_below_the_limits(tmp_path: Path) -> None:
    """As many equal rows as a careless test has, and a response of four million characters."""
    rows = [json.dumps(ROW), json.dumps({**ROW, "chosen": "word " * 800_000})] * 3
    zipped(tmp_path / "a.jsonl.gz", ["\n".join(rows).encode()], 1)
    found = list(read_pairs(DataConfig(path=str(tmp_path / "a.jsonl.gz"), max_response_chars=10**7)))
    assert [isinstance(one, PreferencePair) for one in found] == [True] * 6
    file = tmp_path / "b.parquet"
    pq.write_table(pa.Table.from_pylist([ROW] * 90_000), file)
    assert limits.batch_rows(pq.ParquetFile(file).metadata, file.stat().st_size, file) == 1024


def test_one_id_for_all_rows_takes_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's memory for 20 MB of rows that all have one id, with limits of 1 MB; the first by content stays."""
    source = tmp_path / "pairs.jsonl"
    with source.open("w") as lines:
        for n in range(2000):
            lines.write(json.dumps({**ROW, "id": "same", "chosen": f"{n % 1999} {'yes ' * 2500}"}) + "\n")
    values = {"name": "run", "output_dir": str(tmp_path), "data": {"path": str(source), "eval_fraction": 0.0}}
    config = parse_config(values, "test")
    monkeypatch.setattr(prepare, "SIZES", prepare.Sizes(piece_chars=1_000_000))
    monkeypatch.setattr(ExternalSort.__init__, "__defaults__", (1_000_000,))
    tracemalloc.start()
    manifest = prepare.prepare_pairs(config)["train"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (manifest.rows, manifest.rejected) == (1, 1999)
    (row,) = iter_rows(config.data_dir / "pairs" / "train")
    assert row["chosen"].startswith("0 ")
    assert peak < 15_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keywords", ["(a+)+$"]),
        ("keyword", "(x|xx)*y"),
        ("forbidden_words", ["a{1,9}{1,9}{1,9}"]),
        ("keywords", ["a?" * 30 + "a" * 30]),
        ("postscript_marker", ".*.*.*.*=P"),
        ("section_spliter", "[a-z]+[a-z]+"),
        ("keyword", "x" * 10_000),
    ],
)
def test_a_keyword_is_no_regular_expression(name: str, value: Any) -> None:
    row = {"prompt": "Why?", "instruction_id_list": ["keywords:existence"], "kwargs": [{name: value}]}
    with pytest.raises(RowError, match=rf"kwargs\[0\]\.{name}"):
        follow_row(row)


# A template, the limit in seconds of CPU time, and what the error says. Where memory ends it, the other limit is
# far away: on a slow machine a text that doubles takes seconds to become large.
TEMPLATES = [
    (  # keeps and writes nothing: time alone ends it
        "{% for a in range(99999) %}{% for b in range(99999) %}{% if b < 0 %}x{% endif %}{% endfor %}{% endfor %}",
        1.0,
        "takes more than 1 s of CPU time",
    ),
    ("{{ messages[0].content * 100000 }}", 60.0, "makes .* characters from"),
    (
        "{% set ns = namespace(x='aaaa') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        60.0,
        "GiB of memory|chat template refuses",
    ),
]


@pytest.mark.parametrize(("template", "cpu_seconds", "words"), TEMPLATES)
@pytest.mark.parametrize("threaded", [False, True])
def test_a_chat_template_ends(
    template: str, cpu_seconds: float, words: str, threaded: bool, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapl_ray.batches.render_limits.CPU_SECONDS", cpu_seconds)
    monkeypatch.setattr("mapl_ray.batches.render_limits.MEMORY_BYTES", 2**27)
    monkeypatch.setattr(tokenizer, "chat_template", template)
    errors: list[RenderError] = []

    def run() -> None:
        try:
            render([Message("user", "Why is it so?")], tokenizer, generation=True)
        except RenderError as error:
            errors.append(error)

    if threaded:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()
    (error,) = errors
    assert re.search(words, str(error))
    monkeypatch.undo()
    with contextlib.suppress(RenderError):  # nothing is left that would be raised in what comes next
        render([Message("user", "Why?")], tokenizer, generation=True)


def test_more_rows_than_bytes_are_refused_before_a_row_is_read(tmp_path: Path) -> None:
    file = parquet_rows(tmp_path)
    with pytest.raises(UserError, match=r"3,000,000 rows in .* expected fewer rows than bytes"):
        limits.batch_rows(pq.ParquetFile(file).metadata, file.stat().st_size, file)


def test_a_chat_template_that_takes_memory_ends(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory as the kernel would tell it, by a GiB more at each look: before the limit of CPU time, which is far."""
    grown = iter(range(0, 10**6 * 2**30, 2**30))
    monkeypatch.setattr("mapl_ray.batches.render_limits._memory", lambda: next(grown))
    monkeypatch.setattr("mapl_ray.batches.render_limits.CPU_SECONDS", 5.0)
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES[0][0])
    with pytest.raises(RenderError, match="takes more than 2 GiB of memory"):
        render([Message("user", "Why is it so?")], tokenizer, generation=True)
