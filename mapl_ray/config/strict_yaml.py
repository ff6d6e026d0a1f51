"""A strict YAML loader for configs.

It rejects tags (`!!python/object` would build objects), anchors (a few lines of nested aliases expand to gigabytes),
merge keys, duplicate keys (PyYAML silently takes the last one), and documents that are too deep or too large.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Any

import yaml

MAX_BYTES = 2**20
MAX_DEPTH = 32


def load_yaml(text: str, retag: Callable[[yaml.Node], None] | None = None) -> Any:
    """Load one YAML document as plain values. Raises `yaml.YAMLError` with the place of what it rejects.

    `retag` may change the tags of the nodes before they are converted to values.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise yaml.YAMLError(f"larger than {MAX_BYTES} bytes, the limit for configs")
    loader: Any = _StrictLoader(text)  # a restricted SafeLoader; PyYAML has no types
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if retag is not None:
            retag(root)
        return loader.construct_document(root)
    except ValueError as error:  # e.g. a number with more digits than Python parses, or a 13th month
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def as_number(value: Any) -> Any:
    """Convert a text such as `5e-6`, a usual form of learning rates, to a number: YAML 1.1 reads it as text."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


class _StrictLoader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        parser: Any = self  # PyYAML's parser has no types
        event = parser.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused("anchors and aliases (&name, *name) are not supported: write the value out", event)
        if getattr(event, "tag", None) is not None:
            raise _refused(f"tags are not supported, remove this one: {event.tag!r}", event)
        if self._depth == MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH} levels", event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _refused("merge keys (<<) are not supported: write the keys out", key_node)
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise _refused(f"the key {key!r} occurs twice", key_node)
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def _refused(what: str, at: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, what, at.start_mark)
