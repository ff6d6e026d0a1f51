"""Weights of a model directory: safetensors or nothing. Looked at before any library opens a file of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mapl_ray.errors import UserError

# Formats that are pickles, or were when they were made. Files of these names beside safetensors (training_args.bin, an
# old pytorch_model.bin) are common, and are not read.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_NAMED_WEIGHTS = "transformers_weights"  # a key of config.json
_CURE = "Convert them to safetensors; pickles are not read."


def check_weights(folder: Path, *, whole: bool = True) -> None:
    """Raise `UserError` for weights that are pickles alone, an index that leads elsewhere, or an adapter among them.

    `whole`: the weights are there, or should be; a hub's come when they are loaded.
    """
    _check_config(folder / "config.json")
    pickles = any(file for pattern in _PICKLES for file in folder.glob(pattern))
    if whole and pickles and not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: pickled weights only. {_CURE}")
    for index in folder.rglob("*.safetensors.index.json"):
        try:
            shards = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index}: not an index of weights (weight_map). Save the model again.") from None
        for shard in shards:
            if not isinstance(shard, str) or not shard.endswith(".safetensors") or "/" in shard or "\\" in shard:
                raise UserError(f"{index}: {shard!r} is no safetensors file of this directory. {_CURE}")
    if (folder / "adapter_config.json").is_file():
        # transformers would load the adapter's base model, from wherever its file says, instead of this one.
        raise UserError(
            f"{folder}: holds an adapter beside a model, and it is not clear which is meant. Merge it "
            "(peft: merge_and_unload), or take adapter_config.json away."
        )


def _check_config(file: Path) -> None:
    """transformers takes the weights from the file that `transformers_weights` names, in place of the usual ones."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # whatever loads it says so
    if _has_key(values, _NAMED_WEIGHTS):
        raise UserError(
            f"{file}: {_NAMED_WEIGHTS} names other files as the weights, which is not supported. Save the model again "
            "with save_pretrained, or remove the key."
        )


def _has_key(values: Any, key: str) -> bool:
    if isinstance(values, dict):
        return key in values or any(_has_key(value, key) for value in values.values())
    return isinstance(values, list) and any(_has_key(value, key) for value in values)
