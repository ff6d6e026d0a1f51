"""The data report and the data card of real groups."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import datasets
import pytest
import yaml

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.data import shards
from mapl_ray.data.records import GROUP_SCHEMA, PAIR_SCHEMA, Message, PreferencePair, Rejection, RelationGroup
from mapl_ray.data.shards import Manifest, commit, read_groups, read_manifest, write_part
from mapl_ray.errors import UserError
from mapl_ray.preferences import read_pairs
from mapl_ray.report import build_data_card, build_data_report
from mapl_ray.report import data_stats as module
from mapl_ray.report.acceptance import read_tally
from mapl_ray.report.data_stats import DataStats, data_stats, sample_batches, sampled_parts
from mapl_ray.report.run_files import read_run
from mapl_ray.synthesis import Tally, synthesize
from tests.conftest import GroupMaker

CONFIG = SynthesisConfig(layout="independent")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's pairs in three parts, and a few held out, with rejections."""
    run = tmp_path_factory.mktemp("runs") / "data"
    pairs = [item for item in read_pairs(DataConfig()) if isinstance(item, PreferencePair)]
    broken = [Rejection("demo_pairs.jsonl", 3, "x", "read", "chosen=7: an int; expected text")]
    for split, some in (("train", pairs[:130]), ("eval", pairs[130:])):
        tallies = [Tally() for _ in range(3)]
        groups = [synthesize(pair, CONFIG, 0, tallies[n % 3]) for n, pair in enumerate(some)]
        rows = [group.to_row() for group in groups if isinstance(group, RelationGroup)]
        folder = run / "pairs" / split
        commit(folder, "prepare", "f", [write_part(folder, 0, [p.to_row() for p in some], broken, PAIR_SCHEMA, "f")])
        folder = run / "groups" / split
        notes = [tally.to_json() for tally in tallies]
        parts = [write_part(folder, n, rows[n::3], [], GROUP_SCHEMA, "f", notes[n]) for n in range(3)]
        commit(folder, "synthesize", "f", parts)
    return run


class Text(HTMLParser):
    """What a reader sees, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_part_is_there(run_dir: Path) -> None:
    page = Text(build_data_report(run_dir).read_text(encoding="utf-8"))
    said = " ".join(page.words)
    for word in (
        "groups/train",
        "chosen=n: an int",
        "word_count",
        "inter_widening",
        "By family",
        "that separate",
        "single prompts classified correctly",
    ):
        assert word in said
    assert page.tags.count("svg") == 3  # lengths of prompts, chosen and rejected
    assert page.tags.count("details") == 6
    assert "mark" in page.tags
    assert not {"script", "link", "img"} & {*page.tags} - {"link"}


def test_counts_are_those_of_the_groups(run_dir: Path) -> None:
    splits = [(run_dir / "groups" / s, read_manifest(run_dir / "groups" / s)) for s in ("train", "eval")]
    stats = data_stats(splits)
    total = sum(manifest.rows for _, manifest in splits)
    assert (stats.groups, stats.of_groups, len(stats.kept)) == (total, total, total)
    assert stats.levels == {"pref": total, "intra": 2 * total, "inter_widening": total, "inter_narrowing": total}
    assert stats.per_prompt.total() == 6 * total  # six instructed prompts a group
    assert set(stats.per_prompt) <= {1, 2, 3}
    assert len(stats.words["chosen"]) == total


def counted_by_objects(data_sets: list[tuple[Path, Manifest]]) -> DataStats:
    """The same statistics from all groups as objects, one after another."""
    stats = DataStats(of_groups=sum(manifest.rows for _, manifest in data_sets))
    for directory, _ in data_sets:
        for group in read_groups(directory):
            stats.groups += 1
            stats.margins += group.margin is not None
            stats.nonpositive_margins += group.margin is not None and group.margin <= 0.0
            stats.per_prompt.update(len(instructions) for instructions in group.instructions[1:])
            stats.levels.update(relation.level.value for relation in group.relations)
            for cell in group.sequences:
                response = ("chosen", "rejected")[cell.response]
                for record, satisfied in zip(group.instructions[cell.prompt], cell.satisfied, strict=True):
                    stats.flags.setdefault(record.name, Counter())[response, satisfied] += 1
            stats.words["prompt"].append(sum(len(message.content.split()) for message in group.prompts[0]))
            for name, text in zip(("chosen", "rejected"), group.responses, strict=True):
                stats.words[name].append(len(text.split()))
            stats.kept.append(group)
    return stats


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_columns_give_the_numbers_of_objects(run_dir: Path, rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH_ROWS", rows_at_once)
    splits = [(run_dir / "groups" / s, read_manifest(run_dir / "groups" / s)) for s in ("train", "eval")]
    assert data_stats(splits) == counted_by_objects(splits)


def test_margins_and_texts_of_every_kind(tmp_path: Path, grid_groups: GroupMaker) -> None:
    """No margin, one of 0, several messages, white space beyond ASCII, a group of the pair alone."""
    groups = grid_groups(4)
    groups[0] = replace(groups[0], margin=0.0)
    groups[1] = replace(groups[1], margin=1.5, responses=("  a\u00a0b\u2003c\x1cd ", ""))
    system = (Message("system", "Be brief."), *groups[2].prompts[0])
    groups[2] = replace(groups[2], prompts=(system, *groups[2].prompts[1:]), margin=-2.0)
    groups[3] = replace(
        groups[3],
        prompts=groups[3].prompts[:1],
        instructions=((),),
        sequences=groups[3].sequences[:2],
        relations=groups[3].relations[:1],
    )
    parts = [write_part(tmp_path, n, [g.to_row()], [], GROUP_SCHEMA, "f") for n, g in enumerate(groups)]
    parts.append(write_part(tmp_path, 4, [], [], GROUP_SCHEMA, "f"))
    splits = [(tmp_path, commit(tmp_path, "synthesize", "f", parts))]
    stats = data_stats(splits)
    assert stats == replace(counted_by_objects(splits), kept=stats.kept)
    assert [group.pair_id for group in stats.kept] == [group.pair_id for group in groups]
    assert (stats.margins, stats.nonpositive_margins) == (3, 2)
    assert (stats.words["chosen"][1], stats.words["rejected"][1]) == (4, 0)


def test_flags_that_do_not_fit_are_reported(tmp_path: Path, grid_groups: GroupMaker) -> None:
    whole, broken = grid_groups(2)
    cells = (*broken.sequences[:2], replace(broken.sequences[2], satisfied=(True, False)), *broken.sequences[3:])
    rows = [whole.to_row(), replace(broken, sequences=cells).to_row()]
    manifest = commit(tmp_path, "synthesize", "f", [write_part(tmp_path, 0, rows, [], GROUP_SCHEMA, "f")])
    with pytest.raises(UserError, match="pair pair-0001: a sequence has more or fewer flags"):
        data_stats([(tmp_path, manifest)])


def test_large_data_sets_are_sampled_by_parts(run_dir: Path) -> None:
    folder = run_dir / "groups" / "train"
    manifest = read_manifest(folder)
    assert sampled_parts(manifest, most=(manifest.rows + 1) // 2) == (manifest.parts[0], manifest.parts[2])
    assert sampled_parts(manifest) == manifest.parts
    assert sum(batch.num_rows for batch in sample_batches(folder, manifest)) == manifest.rows
    assert {batch.schema.names[0] for batch in sample_batches(folder, manifest, ["source"])} == {"source"}


def test_texts_are_kept_of_every_nth_group(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_GROUPS", 20)
    monkeypatch.setattr(shards, "BATCH_ROWS", 7)
    splits = [(run_dir / "groups" / s, read_manifest(run_dir / "groups" / s)) for s in ("train", "eval")]
    total = sum(manifest.rows for _, manifest in splits)
    every = -(-total // 20)
    groups = [group for directory, _ in splits for group in read_groups(directory)]
    assert data_stats(splits).kept == groups[::every]


def test_a_damaged_part_of_the_sample_is_noted(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "run")
    file = tmp_path / "run" / "pairs" / "train" / "part-00000.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    files = read_run(tmp_path / "run")
    assert [note for note in files.notes if "part-00000.parquet: missing or damaged" in note] == files.notes != []
    assert "pairs/train" not in {data_set.name for data_set in files.data_sets}


def test_functions_and_examples_are_those_of_the_groups(run_dir: Path) -> None:
    files = read_run(run_dir)
    for data_set in files.data_sets:
        if data_set.name.startswith("groups/"):
            groups = read_groups(run_dir / data_set.name)
            names = Counter(record.name for group in groups for some in group.instructions for record in some)
            # In the same order too: equal counts are shown in it.
            assert list(data_set.functions.items()) == list(names.items())
    assert [example["group"]["pair_id"] for example in files.examples] == [
        group.pair_id for group in read_groups(run_dir / "groups" / "eval")[:4]
    ]


def test_curves_of_long_runs_are_thinned(tmp_path: Path) -> None:
    rows = [{"step": n, "loss": 1.0} | ({"eval/loss": 2.0} if n % 100 == 0 else {}) for n in range(30_001)]
    (tmp_path / "rm").mkdir()
    (tmp_path / "rm" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = read_run(tmp_path).metrics["rm"]
    evaluations = [row["step"] for row in kept if "eval/loss" in row]
    assert evaluations == list(range(0, 30_001, 100))  # all: there are few
    others = [row["step"] for row in kept if "eval/loss" not in row]
    # 29,700 of them: at the 10,001st every second is dropped, and at the 20,001st again.
    assert others == [row["step"] for row in rows if "eval/loss" not in row][::4]


def test_the_card_opens_in_datasets(run_dir: Path, tmp_path: Path) -> None:
    module = tmp_path / "mine.py"
    module.write_text("")
    card = build_data_card(run_dir, CONFIG.model_copy(update={"modules": (str(module),)}), 0)
    opened = datasets.load_dataset(str(card.parent), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in opened.items()} == {
        split: read_manifest(run_dir / "groups" / split).rows for split in ("train", "eval")
    }
    row = opened["train"][0]
    assert json.loads(row["instructions"][1][0]["args"])
    text = card.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in GROUP_SCHEMA.names)
    assert "layout: independent" in text
    header = yaml.safe_load(text.split("---")[1])
    assert header["size_categories"] == ["n<1K"]
    assert f"| demo_pairs.jsonl | {sum(len(rows) for rows in opened.values())} |" in text
    assert read_manifest(run_dir / "pairs" / "train").content_hash[:16] in text
    assert "mine.py: sha256" in text
    assert str(tmp_path) not in text


def test_acceptance_is_counted_where_it_happens(run_dir: Path) -> None:
    splits = [(run_dir / "groups" / s, read_manifest(run_dir / "groups" / s)) for s in ("train", "eval")]
    tally = read_tally(splits)
    assert tally is not None
    assert tally.pairs.total() == sum(read_manifest(run_dir / "pairs" / s).rows for s in ("train", "eval"))
    assert tally.groups.total() == sum(manifest.rows for _, manifest in splits)
    # Three contrasts a group of this layout, and every draw that separates is used where the pair gives a group.
    assert 3 * tally.groups.total() <= tally.separating.total() <= tally.draws.total()
    assert all(0 <= tally.written[name] <= asked for name, asked in tally.asked.items())
    used = {i.name for d, _ in splits for g in read_groups(d) for some in g.instructions for i in some}
    assert used <= {name for name, count in tally.written.items() if count}


def test_without_counts_nothing_is_claimed(run_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "groups" / "train"
    manifest = commit(folder, "synthesize", "f", [write_part(folder, 0, [], [], GROUP_SCHEMA, "f")])
    assert read_tally([(run_dir / "groups" / "eval", read_manifest(run_dir / "groups" / "eval"))]) is not None
    assert read_tally([(folder, manifest)]) is None


def test_without_groups(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        build_data_report(tmp_path)


@pytest.fixture(autouse=True)
def no_progress_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
