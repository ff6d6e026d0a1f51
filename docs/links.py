"""The project's Markdown pages and the links between them.

`tests/contract/test_links.py` checks them, and `docs/site.py` puts the pages and what they link to into the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Folders beside docs/ whose README.md is a page.
_FOLDERS = ("benchmarks", "cluster", "examples")
_FENCE = re.compile(r"^(```+).*?^\1[ ]*$", re.DOTALL | re.MULTILINE)
_BLOCK_END = re.compile(r"\n\s*\n|\n(?=\|)")  # code between backticks stays within a paragraph or a table's row
_INLINE_CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\]\(<?([^()\s<>]+)>?\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def pages() -> list[Path]:
    """Every page, sorted by path."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / name / "README.md" for name in _FOLDERS)]
    return sorted(found)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files inside the project that a page links to, each with the anchor of the link ("" without one).

    Links in code are left out.
    """
    for block in _BLOCK_END.split(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        for target in _LINK.findall(_INLINE_CODE.sub("", block)):
            if "://" not in target and not target.startswith("mailto:"):
                path, _, anchor = target.partition("#")
                yield (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in _HEADING.findall(text):
        words = re.sub(r"[^\w\s-]", "", _MARKUP.sub(r"\1", heading)).strip().lower()
        found.add(re.sub(r"\s", "-", words))
    return found


def broken() -> list[str]:
    """One line per link to a file or heading that does not exist, or to a folder, which the site can't show."""
    wrong = []
    for page in pages():
        for target, anchor in links(page):
            if not target.is_file() or not target.is_relative_to(ROOT):
                wrong.append(f"{page.relative_to(ROOT)}: {target} is not a file of the project")
            elif anchor and (target.suffix != ".md" or anchor not in anchors(target)):
                wrong.append(f"{page.relative_to(ROOT)}: {target.relative_to(ROOT)} has no heading for #{anchor}")
    return wrong
