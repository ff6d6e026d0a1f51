"""Reading whole sources: every row is accounted for, and what breaks a source is said with its name."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.config import DataConfig
from mapl_ray.data.records import PreferencePair, Rejection
from mapl_ray.errors import UserError
from mapl_ray.preferences import eval_split, files, prompt_key, read_pairs
from mapl_ray.preferences.sources import open_sources

ROWS = [{"id": str(i), "prompt": f"p{i}", "chosen": f"good {i} é", "rejected": "bad"} for i in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(path: Path | str, **config: Any) -> list[PreferencePair | Rejection]:
    return list(read_pairs(DataConfig(path=str(path), **config)))


def ids(results: list[PreferencePair | Rejection]) -> list[str]:
    return [result.pair_id if isinstance(result, PreferencePair) else f"!{result.row}" for result in results]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(LINES.encode()))
    else:
        path.write_text(json.dumps(rows) if path.name == "array.json" else LINES, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "array.json", "lines.json", "a.csv", "a.parquet"])
def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    results = read(write(tmp_path / name, ROWS))
    assert ids(results) == ["0", "1", "2", "3", "4"]
    assert isinstance(results[3], PreferencePair)
    assert (results[3].chosen, results[3].source) == ("good 3 é", name)
    assert ids(read(tmp_path / name, limit=2)) == ["0", "1"]


def test_a_folder_is_read_in_the_order_of_names_other_files_aside(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", ROWS)
    write(tmp_path / "a.parquet", ROWS[:2])
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "c.jsonl").write_text("")  # an empty shard is no mistake
    results = read(tmp_path)
    assert [r.source for r in results] == ["a.parquet"] * 2 + ["b.jsonl"] * 5
    assert ids(read(tmp_path, limit=3)) == ["0", "1", "0"]


def test_messages_and_unused_columns_of_parquet(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    other = [talk[0], {"role": "assistant", "content": "No"}]
    row = {"prompt": "Hi", "chosen": talk, "rejected": other, "score_chosen": 3.0, "score_rejected": 1.0, "x": b"\xff"}
    (result,) = read(write(tmp_path / "a.parquet", [row]))
    assert isinstance(result, PreferencePair)
    assert (result.chosen, result.rejected, result.margin) == ("Yes", "No", 2.0)


def test_bad_lines_are_rows_with_their_place(tmp_path: Path) -> None:
    good = LINES.splitlines()
    deep = "[" * 100_000
    lines = ["{broken", good[0], "", "[1]", good[1], deep, '{"prompt": "a", "chosen": 1, "rejected": "b"}', good[2][:9]]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    results = read(tmp_path / "a.jsonl")
    # The blank line is no row: 7 rows.
    assert ids(results) == ["!0", "0", "!2", "1", "!4", "!5", "!6"]
    reasons = {r.row: r.reason for r in results if isinstance(r, Rejection)}
    assert reasons[0].startswith("line 1='{broken': not JSON")
    assert reasons[2] == "line 4=[1]: a list; expected a JSON object"
    assert "line 6=" in reasons[4]
    assert len(reasons[4]) < 300
    assert reasons[5] == "chosen=1: a int; expected text"
    assert ids(read(tmp_path / "a.jsonl", limit=1)) == ["!0"]


def test_csv_rows_of_the_wrong_length_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = "x" * 200_000  # above the csv module's default limit
    path.write_text(f'prompt,chosen,rejected\np,"a\n""b""",c\np,a\np,"a"x,b\n\np,{long},b\n')
    results = read(path, max_response_chars=200_000)
    assert [type(r) for r in results] == [PreferencePair, Rejection, Rejection, PreferencePair]
    assert isinstance(results[0], PreferencePair)
    assert results[0].chosen == 'a\n"b"'
    assert isinstance(results[1], Rejection)
    assert results[1].reason == "line 4: 2 fields; expected 3 as in the header"
    path.write_text('prompt,chosen,rejected\np,a,b\np,"a,b\np,a,b\n')
    with pytest.raises(UserError, match=r"a\.csv: the row that starts at line 3 has a quote that is never closed"):
        read(path)


def bad_source(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b"\n \n", "holds no rows"),
        ("a.json", b"[]", "holds no rows"),
        ("a.csv", b"prompt,chosen,rejected\n", "holds no rows"),
        ("a.jsonl", b"what\nis this\n", "none of its 2 rows could be parsed.*line 1='what"),
        ("a.jsonl", LINES.encode() + b'{"prompt": "\xff"}\n', "line 6, byte 12: not UTF-8"),
        ("a.csv", b"prompt,chosen,rejected\n\xff,a,b\n", "not UTF-8"),
        ("a.json", b'[{"prompt": "\xff"}]', "not UTF-8"),
        ("a.json", b'[{"prompt": "a"', "not a JSON array"),
        ("a.jsonl", b'{"query": "a", "answer": "b"}', "columns 'query', 'answer'.*Expected prompt"),
        ("a.csv", b"a,a\n1,2\n", "a column name occurs twice"),
        ("a.jsonl.gz", gzip.compress(LINES.encode() * 50)[:-20], "truncated or damaged gzip"),
        ("a.jsonl.gz", LINES.encode(), "truncated or damaged gzip"),
        ("a.parquet", b"PAR1 and no end", "truncated or damaged"),
        ("a.xlsx", b"PK", "unsupported kind of file.*jsonl"),
    ],
)
def test_a_broken_source_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = bad_source(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_half_written_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read, truncated or damaged"):
        read(path)


@pytest.mark.parametrize("nested", [False, True])
def test_extension_types_are_not_opened(tmp_path: Path, nested: bool) -> None:
    field = pa.field("extra", pa.binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    kind = pa.struct([field]) if nested else None
    value: Any = {"extra": b"cos\nsystem\n"} if nested else b"cos\nsystem\n"
    schema = pa.schema([(n, pa.string()) for n in ROWS[0]] + [pa.field("extra", kind) if nested else field])
    pq.write_table(
        pa.Table.from_pylist([row | {"extra": value} for row in ROWS], schema=schema), tmp_path / "a.parquet"
    )
    with pytest.raises(UserError, match=r"a\.parquet: column 'extra'.*ray\.data\.arrow_pickled_object.*leave it out"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("https://example.org/a.jsonl", "https:// is not read"),
        ("s3://name:word@bucket/a.jsonl", "a password in a s3:// address"),
        ("file:///nowhere/a.jsonl", "no such file or folder there"),
        ("hf://datasets/owner/name", "as owner/name"),
        ("nowhere/a.jsonl", "no such file or folder"),
        ("/nowhere", "no such file or folder"),
        ("../owner/name", "no such file or folder"),
        ("a\0b", "data.path='a"),
    ],
)
def test_what_cannot_be_opened_is_said_before_the_first_row(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_pairs(DataConfig(path=path))


def test_the_demo_is_the_file_that_ships_with_the_package() -> None:
    (source,) = open_sources(DataConfig(path="demo"))
    assert (Path(source.name).parent, source.label) == (Path(files.__file__).parent, "demo_pairs.jsonl")


def test_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"found notes\.txt"):
        read(tmp_path)


def test_saved_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=data, test=data.select([4])).save_to_disk(str(tmp_path / "two"))
    assert ids(read(tmp_path / "one")) == ["0", "1", "2", "3", "4"]
    results = read(tmp_path / "two", split="test")
    assert (ids(results), results[0].source) == (["4"], "two")
    with pytest.raises(UserError, match=r"no split 'dev'.*train, test"):
        read(tmp_path / "two", split="dev")
    (arrow,) = (tmp_path / "one").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:200])
    with pytest.raises(UserError, match="one: incomplete or damaged save_to_disk folder"):
        read(tmp_path / "one")
    arrow.unlink()
    with pytest.raises(UserError, match="one: incomplete or damaged save_to_disk folder"):
        read(tmp_path / "one")


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'owner/no-such-name': no such file.*hub cannot be reached.*save_to_disk"):
        read("owner/no-such-name")


@pytest.mark.parametrize(
    ("name", "rows", "rejected", "num_prompts"),
    [
        # Rejected: 10 times the same response twice; 4 empty last turns and 5 transcripts that part before the last
        # turn; 6 responses that are no text and 52 empty ones.
        ("alpaca_eval_pairs.jsonl.gz", 4025, 10, 805),
        ("hh_harmless_base_test.jsonl.gz", 2312, 9, None),
        ("pandalm_human.jsonl.gz", 894, 58, None),
    ],
)
def test_real_files_are_accounted_for(
    shared_data: Path, name: str, rows: int, rejected: int, num_prompts: int | None
) -> None:
    results = read(shared_data / name)
    pairs = [r for r in results if isinstance(r, PreferencePair)]
    assert (len(results), len(results) - len(pairs)) == (rows, rejected)
    assert len({p.pair_id for p in pairs}) == len(pairs)
    assert {p.source for p in pairs} == {name}
    assert all(p.prompt[-1].role == "user" and p.chosen.strip() != p.rejected.strip() for p in pairs)
    sides = {(prompt_key(p.prompt), eval_split(p, 0.1, 0)) for p in pairs}
    prompts = {key for key, _ in sides}
    assert len(sides) == len(prompts)
    assert num_prompts is None or len(prompts) == num_prompts


def test_the_real_response_that_is_no_text(shared_data: Path) -> None:
    bad = [r for r in read(shared_data / "pandalm_human.jsonl.gz") if isinstance(r, Rejection)]
    # Six rows hold `true` where the response should be.
    assert [r.row for r in bad if r.reason == "chosen=True: a bool; expected text"] == [139, 140, 141, 143, 144, 146]
    assert all(r.pair_id.startswith("pandalm-") for r in bad)
