"""Load a run config from a YAML file and overrides, and report all errors in one message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mapl_ray.config.field_types import type_at, typed_value, typed_yaml
from mapl_ray.config.path_text import AS_WRITTEN, expanded
from mapl_ray.config.run import RunConfig
from mapl_ray.config.searched import check_space, section_of
from mapl_ray.config.stages import TrainConfig
from mapl_ray.config.texts import check_texts
from mapl_ray.errors import UserError

Override = str | tuple[str, Any]


def load_config(path: str | Path | None, overrides: Sequence[Override] = (), *, as_written: bool = False) -> RunConfig:
    """Read a YAML file (None: all defaults) and apply overrides, in their order.

    Args:
        overrides: `section.key=value` texts, parsed by the type of the field (strings as written, anything else as
            YAML), or pairs of a dotted key and its value.
        as_written: do not expand `~` and variables in paths.

    Raises `UserError` naming file, key and value for anything that is not a valid run.
    """
    values: Any = {}
    where = "defaults"
    if path is not None:
        where = str(path)
        try:
            values = typed_yaml(Path(expanded(where)).read_text(encoding="utf-8"), RunConfig)
        except FileNotFoundError:
            raise UserError(f"{path}: no such config file. Recipes are in jobs/configs/.") from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{path}: not a readable YAML file: {error}") from None
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a mapping of sections at the top, got {type(values).__name__}.")
    for override in overrides:
        key, value = _read(override) if isinstance(override, str) else override
        _apply_override(values, key, value)
    return parse_config(values, where, as_written=as_written)


def override_text(key: str, value: Any) -> str:
    """The override that `load_config` parses to this value: `key=text`, or `key=` and JSON."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def parse_config(values: dict[str, Any], where: str, *, as_written: bool = False) -> RunConfig:
    """Validate plain values. `where` names their origin in messages; `as_written` is as in `load_config`."""
    check_texts(values, where)
    section: tuple[str, ...] = ()
    try:
        config = RunConfig.model_validate(values, context={AS_WRITTEN: as_written})
        for section in (("rm",), ("dpo",)):
            config.training("rm" if section == ("rm",) else "dpo")
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in (*section, *item["loc"]))
            if item["type"] == "extra_forbidden":
                root = TrainConfig if section else RunConfig
                lines.append(f"unknown key '{key}'. {_known_keys(root, item['loc'])}")
            else:
                lines.append(f"{key}={item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
        raise UserError(f"{where}: " + "; ".join(lines)) from None
    check_space(config, where)
    check_texts(config.model_dump(), where)  # again, with expanded variables
    return config


def _read(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r}: expected section.key=value, as in rm.zero_stage=3.")
    try:
        return key, typed_value(text, type_at(RunConfig, key.split(".")))
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not valid YAML: {error}") from None


def _apply_override(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"override {key}={value!r}: '{parent}' is a value, not a section.")
    node[leaf] = value
    if parents and parents[0] == "train":
        # The command line wins, also over values that the file sets for one method.
        for method in ("rm", "dpo"):
            _remove(values.get(method), [*parents[1:], leaf])


def _remove(node: Any, keys: list[str]) -> None:
    for key in keys[:-1]:
        node = node.get(key) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(keys[-1], None)


def _known_keys(root: type[BaseModel], location: tuple[int | str, ...]) -> str:
    model = root
    for part in location[:-1]:
        field = model.model_fields.get(str(part))  # None: a key of a mapping or an index of a sequence
        model = (section_of(field.annotation) if field is not None else None) or model
    return f"Known keys here: {', '.join(model.model_fields)}."
