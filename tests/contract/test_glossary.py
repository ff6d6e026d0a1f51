"""Words that the glossary of CONTRIBUTING.md replaces do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Word forms of the glossary's left column.
PATTERNS = {
    "told, tells": r"\b(told|tells|telling)\b",
    "tell apart": r"\btell\b",
    "mend, mended": r"\bmend(ed|s|ing)?\b",
    "anew": r"\banew\b",
    "at hand": r"\bat\s+hand\b",
    "taken up": r"\btaken\s+up\b",
    "wish": r"\bwish(es|ed)?\b",
    "with a word": r"\bwith\s+a\s+word\b(?! that starts)",
    "a row a sequence": r"\ba\s+row\s+a\s+sequence\b",
    "held against": r"\bheld\s+against\b",
    "came of": r"\bcame\s+of\b",
    "laid over": r"\blaid\s+over\b",
    "for ever": r"\bfor\s+ever\b",
    "whosever": r"\bwhosever\b",
    "stands apart": r"\bstands?\s+apart\b",
    "not one of": r"\bnot\s+one\s+of\b",
}
# Text that is data: instructions and their wordings, words of texts, and names of other libraries' functions.
DATA = (
    "mapl_ray/instructions/wordings/",
    "mapl_ray/instructions/soft_content.py",
    "mapl_ray/instructions/word_lists.py",
)
ALLOWED = re.compile(
    r"\b(_study|sink|copy|self|_packed)\.tell\(|\btell a story\b|\btells_a_story\b|regards\|wishes", re.IGNORECASE
)


def texts() -> dict[str, str]:
    """Package, docs and what stands beside them, by path."""
    paths = [ROOT / "README.md", ROOT / "SECURITY.md"]
    for folder in ("mapl_ray", "docs", "jobs", "cluster", "examples"):
        paths += [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".md", ".yaml", ".sh", ".html")]
    names = {str(path.relative_to(ROOT)): path for path in paths}
    return {name: path.read_text(encoding="utf-8") for name, path in names.items() if not name.startswith(DATA)}


def test_left_column_is_what_is_searched() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("### Glossary")[1]
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows[1:] == list(PATTERNS)


@pytest.mark.parametrize("words", PATTERNS)
def test_none_of_it_is_in_package_and_docs(words: str) -> None:
    pattern = re.compile(PATTERNS[words], re.IGNORECASE)
    found = []
    for name, text in texts().items():
        for match in pattern.finditer(ALLOWED.sub(lambda one: " " * len(one[0]), text)):
            found.append(f"{name}:{text[: match.start()].count(chr(10)) + 1}: {match[0]!r}")
    assert found == []
