"""Check the names and values of a search space against the config models before the search starts."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mapl_ray.config.loss_options import Method
from mapl_ray.config.run import RunConfig
from mapl_ray.config.space import Scalar
from mapl_ray.config.stages import TrainConfig
from mapl_ray.errors import UserError

_MOST_CORNERS = 256
_BUDGET = "tune.max_steps, tune.eval_every_steps and tune.checkpoint_every_steps set how long a trial runs"
_SIZE = "all trials need the same resources, or some would never start: set it for all trials in train"
_CONDUCT = "it does not change the trained model: set it for all trials in train"
# Training options that can't differ between trials.
_REFUSED = {
    **dict.fromkeys(("max_steps", "epochs", "eval_every_steps", "checkpoint_every_steps"), _BUDGET),
    **dict.fromkeys(("num_workers", "sequence_parallel_size", "min_workers", "worker_wait_seconds"), _SIZE),
    **dict.fromkeys(("cpus_per_worker", "gpus_per_worker"), _SIZE),
    **dict.fromkeys(
        ("loggers", "prefetch", "keep_token_ids", "checkpoints_to_keep", "best_by", "max_failures"), _CONDUCT
    ),
    "on_unusable_checkpoint": _CONDUCT,
}
# Options that may change during a run. Any other would not match the checkpoint or its position in the data.
MIDWAY = frozenset(
    {
        "beta", "learning_rate", "max_grad_norm", "weights.lambda_inter", "weights.lambda_intra",
        "objective.center_rewards_coefficient", "objective.label_smoothing", "objective.margin_scale",
        "objective.nll_weight",
    }
)  # fmt: skip


def check_space(config: RunConfig, where: str) -> None:
    """Raise `UserError`, with file, field and fix, for a name or a value with which no trial can start."""
    tune = config.tune
    for searched in tune.space:
        if (wrong := _wrong_name(searched, tune.method, tune.scheduler == "pbt")) is not None:
            raise UserError(f"{where}: tune.space.{searched}: {wrong}")
    for corner in _corners(config):
        try:
            with_params(config, corner).training(tune.method)
        except ValidationError as error:
            item = error.errors()[0]
            key = ".".join(str(part) for part in item["loc"])
            name = next((name for name in corner if key and _option(name) == key), None)
            reason = item["msg"].removeprefix("Value error, ")
            if name is not None:
                raise UserError(f"{where}: tune.space.{name}: a trial could draw {corner[name]!r}: {reason}") from None
            drawn = ", ".join(f"{name}={value}" for name, value in corner.items())
            of_key = f"{key}: " if key else ""
            raise UserError(f"{where}: tune.space: a trial could draw {drawn}: {of_key}{reason}") from None


def with_params(config: RunConfig, params: Mapping[str, Scalar]) -> RunConfig:
    """The run config with a trial's values in the searched method's section, which overrides `train`.

    `RunConfig.training` validates the section.
    """
    section: dict[str, Any] = _copied(config.rm if config.tune.method == "rm" else config.dpo)
    for name, value in params.items():
        *parents, leaf = _option(name).split(".")
        node = section
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[leaf] = value
    return config.model_copy(update={config.tune.method: section})


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The config section in an annotation: itself, or inside an optional, a mapping or a sequence."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_of(part)) is not None), None)


def _wrong_name(name: str, method: Method, population: bool) -> str | None:
    root, _, option = name.partition(".")
    known = set(_options(TrainConfig))
    if root not in ("train", "rm", "dpo") or not option:
        if root in RunConfig.model_fields and root not in ("train", "rm", "dpo"):
            return (
                "all trials share pairs, groups, scores and tokens, so only training options can be searched: "
                f"train.NAME or {method}.NAME"
            )
        return f"unknown name; {_nearest(name, known, 'train')}"
    if option not in known:
        return f"unknown name; {_nearest(option, known, root)}"
    if root != "train" and root != method:
        return f"tune.method={method} does not read {root}: use train.{option}, or set tune.method={root}"
    if option in _REFUSED:
        return f"can't be searched: {_REFUSED[option]}"
    if option == "beta" and method == "rm":
        return "beta is only for DPO, and tune.method=rm: remove it, or set tune.method=dpo"
    if population and option not in MIDWAY:
        return f"scheduler=pbt changes values during a run, and this one can't change: expected one of {_MIDWAY}"
    return None


_MIDWAY = ", ".join(f"train.{name}" for name in sorted(MIDWAY))


def _nearest(option: str, known: set[str], root: str) -> str:
    """A suggestion by the whole name or by its last part: `lambda_intra` gives `weights.lambda_intra`."""
    full = {f"{root}.{name}": name for name in known}
    last = option.rsplit(".", 1)[-1]
    close = [f"{root}.{name}" for name in sorted(known) if name.rsplit(".", 1)[-1] == last]
    close = close or difflib.get_close_matches(f"{root}.{option}", full, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(last, known, n=1, cutoff=0.0)
    return f"did you mean {close[0] if close[0] in full else f'{root}.{close[0]}'}?"


def _options(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all options below a section."""
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation) if _is_section(field.annotation) else None
        if inner is None:
            yield prefix + name
        else:
            yield from _options(inner, f"{prefix}{name}.")


def _is_section(annotation: Any) -> bool:
    """Whether it is a section or an optional one, not a sequence or mapping of sections."""
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_section(part) for part in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _option(name: str) -> str:
    return name.partition(".")[2]


def _corners(config: RunConfig) -> Iterator[dict[str, Scalar]]:
    """Every combination of extreme values; if there are too many, a selection that contains every extreme value."""
    space = {name: dimension.probes for name, dimension in config.tune.space.items()}
    if math.prod(len(values) for values in space.values()) <= _MOST_CORNERS:
        for values in itertools.product(*space.values()):
            yield dict(zip(space, values, strict=True))
        return
    for index in range(min(_MOST_CORNERS, max(len(values) for values in space.values()) * 2)):
        # At even indices all dimensions take the same place, at odd ones each is shifted by its position.
        yield {
            name: values[(index // 2 + (index % 2) * place) % len(values)]
            for place, (name, values) in enumerate(space.items())
        }


def _copied(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in section.items()}
