"""Parse YAML scalars and overrides by the type of their config field.

A string field takes the text as written. Plain YAML would read `2024-11-29` as a date, `yes` as true, `0123` as an
octal number, `a #2.jsonl` as `a` and `[x].jsonl` as a broken list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict

from mapl_ray.config.strict_yaml import as_number, load_yaml

_NUMBERS = {int, float}
# YAML 1.1 numbers in base 60 (`1:30`) and base 8 (`010`), which users never intend.
_OLD_NUMBER = re.compile(r"[-+]?(0\d|\d[\d_]*:)")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class LaidOver:
    """Marks a plain mapping that has the keys of a section."""

    section: type[BaseModel]


def type_at(section: type[BaseModel], keys: Sequence[str]) -> Any:
    """The type of the value at dotted `keys`; `Any` if the section has no such key."""
    kind: Any = section
    for key in keys:
        kind = _inner(kind, key)
    return kind


def typed_yaml(text: str, kind: Any) -> Any:
    """Load a YAML document, with scalars parsed by the types below `kind`. Raises as `load_yaml` does."""
    return load_yaml(text, lambda root: _retag(root, kind))


def typed_value(text: str, kind: Any) -> Any:
    """The value of an override for a field of type `kind`.

    A string field takes the text itself; `null` is None if the field allows None. A field that takes a string or a
    collection takes the text unless it is a `{...}` or `[...]` of YAML. Anything else is YAML. Raises `yaml.YAMLError`.
    """
    scalars = _scalars(kind)
    if not _is_text(scalars):
        return as_number(typed_yaml(text, kind))
    if text.startswith(_openings(kind)):
        try:
            return typed_yaml(text, kind)
        except yaml.YAMLError:
            return text
    return None if text == "null" and NoneType in scalars else text


def _retag(node: yaml.Node, kind: Any) -> None:
    """Set the tags of plain scalars by the type of their field."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _retag(key, _key_type(kind))
            _retag(value, _inner(kind, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _retag(item, _item_type(kind, index))
    elif isinstance(node, yaml.ScalarNode) and node.style is None and _read_as_text(node, _scalars(kind)):
        node.tag = f"{_TAG}str"


def _read_as_text(node: yaml.Node, scalars: Collection[Any]) -> bool:
    tag = node.tag.removeprefix(_TAG)
    if tag in ("null", "merge"):
        return False
    if _is_text(scalars):
        return True
    if not (_NUMBERS & {*scalars}) or str in scalars:
        return False
    # Keep the text: pydantic parses decimal digits and reports anything else with its value.
    return (tag in ("bool", "timestamp") and bool not in scalars) or bool(_OLD_NUMBER.match(node.value))


def _is_text(scalars: Collection[Any]) -> bool:
    return str in scalars and not {int, float, bool} & {*scalars}


def _scalars(kind: Any) -> set[Any]:
    """The scalar types that a type accepts; empty for collections, sections and `Any`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {str} if getattr(kind, "TEXT_FIELD", None) else set()
    origin = get_origin(kind)
    if origin is Literal:
        return {type(value) for value in get_args(kind)}
    if origin in (Union, UnionType):
        return {one for part in get_args(kind) for one in _scalars(part)}
    if origin is Annotated:
        return _scalars(get_args(kind)[0])
    return {kind} if kind in (str, int, float, bool, NoneType) else set()


def _parts(kind: Any) -> list[Any]:
    """The members of a union, flattened; the type itself if it is no union."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return [one for part in get_args(kind) for one in _parts(part)]
    return _parts(get_args(kind)[0]) if origin is Annotated else [kind]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _openings(kind: Any) -> tuple[str, ...]:
    """The opening brackets of the collections that this type accepts."""
    parts = _parts(kind)
    mapping = any(_is_section(part) or get_origin(part) is dict for part in parts)
    sequence = any(get_origin(part) in (list, tuple) for part in parts)
    return (*(["{"] if mapping else []), *(["["] if sequence else []))


def _mapping_types(kind: Any) -> tuple[Any, Any]:
    arguments = next((get_args(part) for part in _parts(kind) if get_origin(part) in (dict, Mapping)), ())
    return (arguments[0], arguments[1]) if arguments else (Any, Any)


def _key_type(kind: Any) -> Any:
    return str if any(_is_section(part) for part in _parts(kind)) else _mapping_types(kind)[0]


def _inner(kind: Any, key: str) -> Any:
    section = next((part for part in _parts(kind) if _is_section(part)), None)
    if section is None:
        return _mapping_types(kind)[1]
    field = section.model_fields.get(key)
    if field is None:
        return Any
    over = next((one.section for one in field.metadata if isinstance(one, LaidOver)), None)
    return field.annotation if over is None else over


def _item_type(kind: Any, index: int) -> Any:
    arguments = next((get_args(part) for part in _parts(kind) if get_origin(part) in (list, tuple)), ())
    if not arguments:
        return Any
    return arguments[index] if index < len(arguments) and arguments[index] is not ... else arguments[0]


class Section(BaseModel):
    """Base class of the sections of a run config: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
