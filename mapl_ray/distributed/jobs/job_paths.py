"""Make a config's paths absolute for a job, which starts in another folder, possibly on another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mapl_ray.config import RunConfig, expanded
from mapl_ray.errors import UserError
from mapl_ray.models import SMOLLM2
from mapl_ray.synthesis import with_absolute_paths

_NAMES = ("demo", "tiny", SMOLLM2, "policy")  # our own names, not paths


def absolute_paths(config: RunConfig, *, local: bool) -> dict[str, Any]:
    """Overrides that resolve relative paths, `~` and variables, so that they mean the same in the job.

    `config` is loaded with `as_written=True`. `local`: whether the job runs on this machine; if not, raises `UserError`
    for a path of this machine.
    """
    found: dict[str, Any] = {}
    for key, value in _values(config):
        if (there := _there(key, value, local=local)) != value:
            found[key] = there
    here = config.synthesis.model_copy(update={"modules": tuple(map(expanded, config.synthesis.modules))})
    modules = with_absolute_paths(here).modules
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
        yield f"evaluation.sets.{name}", of_set.model_dump(mode="json", exclude_unset=True)  # or a plain string


def _there(key: str, value: Any, *, local: bool) -> Any:
    """The value with its paths absolute: a text, a source with its `path`, or a list of either."""
    if isinstance(value, list):
        return [_there(key, item, local=local) for item in value]
    if isinstance(value, dict):
        return value | {"path": _there(f"{key}.path", value["path"], local=local)}
    if value is None or value in _NAMES:
        return value
    found = expanded(value)
    if found != value and not local:
        raise _not_there(key, value)
    if "://" in found or Path(found).is_absolute():
        return found
    # Hub names stay as they are; a value counts as a path only if it is one on this machine.
    if key == "output_dir" or found.startswith(("./", "../", "~")) or Path(found).exists():
        if not local:
            raise _not_there(key, value)
        return str(Path(found).resolve())
    return found


def _not_there(key: str, value: object) -> UserError:
    return UserError(
        f"{key}={value!r}: a relative path, ~ or a variable of this machine has no meaning on another machine. "
        "Give an absolute path on storage that all nodes of the cluster share."
    )
