"""Relative paths of a config that goes into a job, which starts in a folder of its own, perhaps on another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mapl_ray.config import RunConfig
from mapl_ray.errors import UserError
from mapl_ray.synthesis import with_absolute_paths

_NAMES = ("demo", "tiny", "policy")  # of ours, and no paths


def absolute_paths(config: RunConfig, *, local: bool) -> dict[str, Any]:
    """Overrides that keep relative paths meaning what they mean here; for another machine they are refused.

    Raises `UserError` for a relative path where the job does not run on this machine (`local`).
    """
    found: dict[str, Any] = {}
    for key, value in _values(config):
        if (there := _there(key, value, local=local)) != value:
            found[key] = there
    modules = with_absolute_paths(config.synthesis).modules
    if modules != config.synthesis.modules:
        if not local:
            raise _not_there("synthesis.modules", config.synthesis.modules)
        found["synthesis.modules"] = modules
    return found


def _values(config: RunConfig) -> Iterator[tuple[str, Any]]:
    scoring, evaluation = config.scoring, config.evaluation
    yield "output_dir", config.output_dir
    yield "data.path", config.data.path
    yield "data.mix", [source.model_dump(mode="json", exclude_unset=True) for source in config.data.mix]
    yield "data.benchmarks", [*config.data.benchmarks]
    yield "model.name_or_path", config.model.name_or_path
    yield "scoring.reward_model", scoring.reward_model
    yield "scoring.ref_model", scoring.ref_model
    yield "scoring.lora", scoring.lora
    yield "scoring.judge.model", scoring.judge.model
    yield "scoring.pair_reward_model", scoring.pair_reward_model
    yield "evaluation.models", [*evaluation.models]
    yield "evaluation.reference", evaluation.reference
    for name, of_set in evaluation.sets.items():
        yield f"evaluation.sets.{name}", of_set.model_dump(mode="json", exclude_unset=True)  # in a file, maybe a text


def _there(key: str, value: Any, *, local: bool) -> Any:
    """The value with its paths absolute: a text, a source with its `path`, or a list of either."""
    if isinstance(value, list):
        return [_there(key, item, local=local) for item in value]
    if isinstance(value, dict):
        return value | {"path": _there(f"{key}.path", value["path"], local=local)}
    if value is None or value in _NAMES or "://" in value or Path(value).is_absolute():
        return value
    # Names of a hub stay as they are; only what is a path here is one there.
    if key == "output_dir" or value.startswith(("./", "../", "~")) or Path(value).exists():
        if not local:
            raise _not_there(key, value)
        return str(Path(value).expanduser().resolve())
    return value


def _not_there(key: str, value: object) -> UserError:
    return UserError(
        f"{key}={value!r}: a relative path means nothing on another machine. "
        "Give an absolute path on storage that every node of the cluster sees."
    )
