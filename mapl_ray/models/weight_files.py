"""Checks that a model directory's weights are safetensors, before a library opens any of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mapl_ray.errors import UserError

# Formats that are or may be pickles. Such files are common next to safetensors (training_args.bin, an old
# pytorch_model.bin), and are not read.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_NAMED_WEIGHTS = "transformers_weights"  # a key of config.json
_CURE = "Convert them to safetensors; pickles are not read."


def check_weights(folder: Path, *, whole: bool = True) -> None:
    """Raise `UserError` if there are only pickled weights, an index names a file outside, or there is an adapter.

    `whole`: whether the weights should be there. Those of a hub are downloaded later.
    """
    _check_config(folder / "config.json")
    pickles = any(file for pattern in _PICKLES for file in folder.glob(pattern))
    if whole and pickles and not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: pickled weights only. {_CURE}")
    for index in folder.rglob("*.safetensors.index.json"):
        try:
            shards = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index}: not an index of weights (no weight_map). Save the model again.") from None
        for shard in shards:
            if not isinstance(shard, str) or not shard.endswith(".safetensors") or "/" in shard or "\\" in shard:
                raise UserError(f"{index}: {shard!r} is not a safetensors file in this directory. {_CURE}")
    if (folder / "adapter_config.json").is_file():
        # transformers would load the base model that adapter_config.json names instead of this model.
        raise UserError(
            f"{folder}: has both a model and an adapter, so it is ambiguous. Merge the adapter "
            "(peft: merge_and_unload), or remove adapter_config.json."
        )


def _check_config(file: Path) -> None:
    """Refuse the key `transformers_weights`, which makes transformers load weights from another file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # reported when the config is loaded
    if _has_key(values, _NAMED_WEIGHTS):
        raise UserError(
            f"{file}: {_NAMED_WEIGHTS} names other files as the weights, which is not supported. Save the model again "
            "with save_pretrained, or remove the key."
        )


def _has_key(values: Any, key: str) -> bool:
    if isinstance(values, dict):
        return key in values or any(_has_key(value, key) for value in values.values())
    return isinstance(values, list) and any(_has_key(value, key) for value in values)
