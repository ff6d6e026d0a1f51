"""The report: whole, self-contained, safe against what the data holds, tolerant of what is missing."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mapl_ray.data.shards import write_json
from mapl_ray.errors import UserError
from mapl_ray.report import build_report
from mapl_ray.report.examples_section import highlighted
from mapl_ray.report.markup import el
from mapl_ray.report.svg import ticks

VOID = {"meta", "link", "img", "br"}


class _Tags(HTMLParser):
    """Every tag with its attributes, and whether they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(run_dir: Path) -> str:
    return build_report(run_dir).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    assert parser.open == []
    return parser.tags


def test_all_sections_are_there(page, tags):
    ids = [attributes["id"] for tag, attributes in tags if tag == "section"]
    assert ids == [
        "results", "levels", "k", "families", "gaps", "length", "calibration", "wording", "answers", "sets",
        "curves", "tuning", "examples", "data", "cost", "provenance",
    ]  # fmt: skip
    assert 'class="missing"' not in page
    assert "<em>difference</em>" in page
    assert "no function serves" in page


def test_families_that_training_held_out_are_marked(page):
    section = page[page.index('id="families"') : page.index('id="gaps"')]
    assert "position †" in section
    assert "Held out of training (†): position." in section
    assert "inter, unseen" in section
    assert "length †" not in section


def test_calibration_wording_and_sets_are_shown(page):
    calibration, wording, sets = (
        page[page.index(f'id="{start}"') : page.index(f'id="{end}"')]
        for start, end in (("calibration", "wording"), ("wording", "answers"), ("sets", "curves"))
    )
    assert re.findall(r"<figcaption>(.*?)</figcaption>", calibration) == ["pref", "intra", "inter"]
    assert re.search(r"rm: confidence 0\.\d\d, accuracy [01]\.\d\d, \d+ relations", calibration)
    assert "intra, seen" in wording
    assert "inter: flips" in wording
    assert "styles (rm-bench)" in sets
    assert "31 rows: 30 used, 1 rejected, 0 too long" in sets
    assert "rows.jsonl, row 30" in sets
    assert "instruction loose" in sets


def test_answers_before_and_after_are_shown(page):
    section = page[page.index('id="answers"') : page.index('id="sets"')]
    assert "2 held-out prompts, 4 instructions checked." in section
    assert "A note of the models." in section
    assert "<em>dpo - before DPO</em>" in section
    assert re.search(r'<th scope="row">Do not use commas.</th><td>✗</td><td>✓</td>', section)
    assert "dpo (truncated at max_new_tokens)" in section
    assert '<th scope="row">dpo-baseline</th>' in section


def test_results_without_held_out_groups_show_the_sets_alone(run_dir, tmp_path):
    results = json.loads((run_dir / "evaluation.json").read_text())
    write_json(tmp_path / "evaluation.json", results | {"models": {}, "comparisons": [], "examples": []})
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "styles (rm-bench)" in page
    assert 'id="levels"' not in page


def test_results_of_an_earlier_release_are_still_readable(run_dir, tmp_path):
    results = json.loads((run_dir / "evaluation.json").read_text())
    del results["sets"], results["own_prompts"]
    for model in results["models"].values():
        for measure in ("calibration", "invariance", "by_phrasing"):
            del model[measure]
    write_json(tmp_path / "evaluation.json", results)
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "Calibration was not measured." in page
    assert "No public sets were evaluated" in page
    assert "No own prompts were answered" in page


def test_text_from_the_data_is_escaped(page, tags):
    names = {tag for tag, _ in tags}
    assert "script" not in names
    assert "img" not in names
    assert not [key for _, attributes in tags for key in attributes if key.startswith("on")]
    assert "&lt;script&gt;" in page  # it is shown, as text
    assert "<title>MAPL run: made-up &lt;b&gt;run</title>" in page


def test_nothing_is_loaded_from_elsewhere(page, tags):
    for _tag, attributes in tags:
        for key in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\(", page)
    assert "default-src 'none'" in page


def test_instructions_are_highlighted_in_escaped_text():
    shown = highlighted("a <i> Use 1 & 2. b Use 1.", ["Use 1", "Use 1 & 2."])
    assert shown == "a &lt;i&gt; <mark>Use 1 &amp; 2.</mark> b <mark>Use 1</mark>."


def test_attributes_are_escaped():
    assert el("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'


def test_an_empty_run_gives_a_report_that_says_what_is_missing(tmp_path):
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert page.count('class="missing"') == 7  # results, curves, tuning, examples, data, cost, provenance
    assert "mapl evaluate" in page


def test_damaged_parts_are_told_not_fatal(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"models": ')
    (tmp_path / "rm").mkdir()
    (tmp_path / "rm" / "metrics.jsonl").write_text('not json\n{"step": 1, "loss": NaN}\n{"loss": 2}\n')
    (tmp_path / "tune").mkdir()
    write_json(tmp_path / "tune" / "trials.json", {"trials": ["x", {"params": None, "objective": "bad"}]})
    (tmp_path / "groups" / "eval").mkdir(parents=True)
    (tmp_path / "groups" / "eval" / "manifest.json").write_text("{}")
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "evaluation.json of" in page
    assert "not a manifest" in page


def test_a_missing_run_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no such run directory"):
        build_report(tmp_path / "gone")


def test_curves_come_level_by_level_and_only_for_metrics(page):
    curves = page[page.index('id="curves"') : page.index('id="tuning"')]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", curves)
    accuracies = [f"eval/rewards/accuracies/{level}" for level in ("pref", "intra", "inter")]
    assert captions == [*accuracies, "eval/loss", "loss"]


def test_ticks_are_round():
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(3.0, 3.0) == [3.0]
    assert ticks(-0.9, 1.1) == [-0.5, 0.0, 0.5, 1.0]


def test_chromium_reports_no_console_errors(run_dir, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium installed")
    shot = tmp_path / "report.png"
    log = _open(browser, build_report(run_dir), tmp_path, shot)
    assert shot.stat().st_size > 20_000, log
    assert "CONSOLE" not in log
    # The check itself must be able to fail: a page with a console error shows one.
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('seen')</script>")
    assert "CONSOLE" in _open(browser, bad, tmp_path, tmp_path / "bad.png")


def _open(browser: str, page: Path, profile: Path, shot: Path) -> str:
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile / 'profile'}", "--enable-logging=stderr", "--window-size=1280,3000",
        f"--screenshot={shot}", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stderr
