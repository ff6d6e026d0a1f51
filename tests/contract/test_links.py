"""Links between the project's pages lead to files and headings that exist; docs/api.md has the whole public API."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import mapl_ray
from mapl_ray.config import loss_options
from mapl_ray.instructions import types

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def links() -> ModuleType:
    spec = importlib.util.spec_from_file_location("links", ROOT / "docs" / "links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_link_is_broken(links: ModuleType) -> None:
    assert len(links.pages()) >= 20
    assert sum(1 for page in links.pages() for _ in links.links(page)) >= 80
    assert links.broken() == []


def test_broken_links_are_found(links: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("benchmarks", "cluster", "examples"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").touch()
    (tmp_path / "docs" / "b.md").write_text("# Two words: `x.y`\n", encoding="utf-8")
    (tmp_path / "README.md").write_text(
        "[good](docs/b.md) [good](docs/b.md#two-words-xy) [good](https://example.org/x) `[code](gone.md)`\n"
        "```\n[code](gone.md)\n```\n"
        "[no file](docs/c.md) [no heading](docs/b.md#two) [a folder](docs) [own heading](#none)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(links, "ROOT", tmp_path)
    assert [line.removeprefix("README.md: ") for line in links.broken()] == [
        f"{tmp_path / 'docs' / 'c.md'} is not a file of the project",
        "docs/b.md has no heading for #two",
        f"{tmp_path / 'docs'} is not a file of the project",
        "README.md has no heading for #none",
    ]


def test_every_page_is_in_the_navigation(links: ModuleType) -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1].split("\n\n")[0]
    listed = re.findall(r": (\S+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(ROOT).as_posix() for page in links.pages())


def test_api_page_has_every_public_name_with_a_docstring() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = [path.rsplit(".", 1)[1] for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)]
    assert sorted(names) == sorted(mapl_ray.__all__)
    values = {"REGISTRY": types, "Method": loss_options}  # not classes: the string below the assignment
    for name in names:
        if name in values:
            assert re.search(rf'^{name}\b.* = .*\n"""\S', inspect.getsource(values[name]), re.MULTILINE), name
        else:
            written = getattr(mapl_ray, name).__doc__
            assert written, name
            assert not written.startswith(f"{name}("), name  # what dataclasses write by themselves
