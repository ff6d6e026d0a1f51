"""A run config from a YAML file and overrides, with every mistake in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mapl_ray.config.run import RunConfig
from mapl_ray.config.searched import check_space, section_of
from mapl_ray.config.stages import TrainConfig
from mapl_ray.config.strict_yaml import as_number, load_yaml
from mapl_ray.config.texts import check_texts
from mapl_ray.errors import UserError


def load_config(path: str | Path | None, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file (None: all defaults) and apply `section.key=value` overrides, values parsed as YAML.

    Raises `UserError` naming file, key and value for anything that is not a valid run.
    """
    values: Any = {}
    where = "defaults"
    if path is not None:
        where = str(path)
        try:
            values = load_yaml(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such config file. Recipes are in jobs/configs/.") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"{path}: not a readable YAML file: {error}") from None
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a mapping of sections at the top, got {type(values).__name__}.")
    for override in overrides or []:
        _apply_override(values, override)
    return parse_config(values, where)


def parse_config(values: dict[str, Any], where: str) -> RunConfig:
    """Validate plain values; `where` names their origin in messages."""
    check_texts(values, where)
    section: tuple[str, ...] = ()
    try:
        config = RunConfig.model_validate(values)
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
    return config


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r}: expected section.key=value, as in rm.zero_stage=3.")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not valid YAML: {error}") from None
    *parents, leaf = key.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"override {override!r}: '{parent}' is a value, not a section.")
    node[leaf] = as_number(value)
    if parents and parents[0] == "train":
        # The command line has the last word: it also wins over what the file says for one method.
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
        field = model.model_fields.get(str(part))  # None: a name or an index within a mapping or a sequence
        model = (section_of(field.annotation) if field is not None else None) or model
    return f"Known keys here: {', '.join(model.model_fields)}."
