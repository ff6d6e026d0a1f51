"""Injection-safe HTML and SVG: every text is escaped unless it is `Markup` created here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TypeAlias

from mapl_ray.data.shards import write_atomically


class Markup(str):
    """Text that is already safe HTML."""

    __slots__ = ()


Child = str | int | None


def el(tag: str, *children: Child, **attributes: str | float | None) -> Markup:
    """An element; `class_` becomes `class`, `stroke_width` becomes `stroke-width`, None attributes are left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_number(value), quote=True)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Concatenate children; plain text is escaped, None is left out."""
    return Markup("".join(_child(child) for child in children if child is not None))


def table(head: Iterable[Child], rows: Iterable[Iterable[Child]], class_: str | None = None) -> Markup:
    """A table that scrolls horizontally on a narrow screen; the first column holds row headers."""
    body = []
    for row in rows:
        first, *rest = row
        body.append(el("tr", el("th", first, scope="row"), *(el("td", cell) for cell in rest)))
    header = el("thead", el("tr", *(el("th", cell, scope="col") for cell in head)))
    return el("div", el("table", header, el("tbody", *body), class_=class_), class_="scroll", tabindex="0")


def _child(child: str | int | None) -> str:
    return child if isinstance(child, Markup) else html.escape(str(child), quote=True)


def _number(value: str | float | None) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


Section: TypeAlias = tuple[str, str, Markup | None, str]  # id, title, content, text if there is no content


def write_page(path: Path, title: str, question: str, sections: Sequence[Section], notes: Sequence[str]) -> Path:
    """Write the page atomically and return its path."""
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
