"""Sections -> one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TypeAlias

from mapl_ray.report.markup import Markup, el, join
from mapl_ray.shards import write_atomically

Section: TypeAlias = tuple[str, str, Markup | None, str]  # id, title, content, what to say where there is none


def render(path: Path, title: str, question: str, sections: Sequence[Section], notes: Sequence[str]) -> Path:
    """Write the page, whole or not at all, and return its path."""
    navigation = el("nav", el("ul", *(el("li", el("a", name, href=f"#{key}")) for key, name, _, _ in sections)))
    parts = [
        el("section", el("h2", name), el("p", missing, class_="missing") if content is None else content, id=key)
        for key, name, content, missing in sections
    ]
    body = join([navigation, *parts, *(el("p", note, class_="missing") for note in notes)])
    template = Template(resources.files("mapl_ray.report").joinpath("template.html").read_text(encoding="utf-8"))
    text = template.substitute(title=join([title]), question=join([question]), body=body)
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return path
