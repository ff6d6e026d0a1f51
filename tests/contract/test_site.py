"""`make docs` builds the site from nothing, without a warning; nothing in it is loaded from another host."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mapl_ray

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    # Without the ARGS of the make that may have started these tests.
    options = {"DOCS_VENV": folder / "venv", "SITE": folder / "site", "PYTHON": sys.executable, "ARGS": ""}
    command = ["make", "docs", *(f"{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def articles(site: Path) -> dict[str, str]:
    """The own text of every page, as HTML, by path."""
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("index.html")}
    return {
        path.relative_to(site).as_posix(): text.split("<article", 1)[1].split("</article>", 1)[0]
        for path, text in pages.items()
    }


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_every_name_has_a_section_and_none_is_empty(site: Path) -> None:
    text = articles(site)["docs/api/index.html"]
    sections = re.split(r'<h3 id="([^"]+)" class="doc', text)
    names = [name.rsplit(".", 1)[1] for name in sections[1::2]]
    assert sorted(names) == sorted(mapl_ray.__all__)
    for name, body in zip(names, sections[2::2], strict=True):
        words = html.unescape(re.sub(r"<[^>]+>", " ", body.split("<h2", 1)[0].split('class="doc doc-contents', 1)[1]))
        assert len(words.split()) > 5, name


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_markdown_is_rendered_and_nothing_comes_from_elsewhere(site: Path) -> None:
    found = articles(site)
    assert len(found) > 20
    for name, text in found.items():
        prose = re.findall(r"<(?:p|li|td)>(.*?)</(?:p|li|td)>", text, re.DOTALL)
        raw = [one for one in prose if re.search(r"^\s*(\* |```|:::|\|)", one, re.MULTILINE)]
        assert raw == [], name  # a list, a fence, a directive or a table that was taken for text
    loaded = re.compile(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"|<link[^>]+href="(https?:[^"]+)"')
    assert [match[0] for path in site.rglob("*.html") for match in loaded.finditer(path.read_text())] == []
