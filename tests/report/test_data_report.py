"""The data report and the data card of real groups."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import datasets
import pytest
import yaml

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.data.records import GROUP_SCHEMA, PAIR_SCHEMA, PreferencePair, Rejection, RelationGroup
from mapl_ray.data.shards import commit, read_groups, read_manifest, write_part
from mapl_ray.errors import UserError
from mapl_ray.preferences import read_pairs
from mapl_ray.report import build_data_card, build_data_report
from mapl_ray.report.acceptance import read_tally
from mapl_ray.report.data_stats import data_stats
from mapl_ray.synthesis import Tally, synthesize

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


def test_large_data_sets_are_sampled_by_parts(run_dir: Path) -> None:
    from mapl_ray.report.data_stats import sample_rows

    folder = run_dir / "groups" / "train"
    manifest = read_manifest(folder)
    assert (
        len([*sample_rows(folder, manifest, most=(manifest.rows + 1) // 2)])
        == manifest.parts[0].rows + manifest.parts[2].rows
    )
    assert len([*sample_rows(folder, manifest)]) == manifest.rows


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
