"""Weights of a model directory: safetensors or nothing. Looked at before any library opens a file of it."""

from __future__ import annotations

import json
from pathlib import Path

from mapl_ray.errors import UserError

# Formats that are pickles, or were when they were made. Files of these names beside safetensors (training_args.bin, an
# old pytorch_model.bin) are common, and are not read.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_CURE = "Convert them to safetensors; pickles are not read."


def check_weights(folder: Path) -> None:
    """Raise `UserError` for weights that are pickles alone, an index that leads elsewhere, or an adapter among them."""
    if any(file for pattern in _PICKLES for file in folder.glob(pattern)) and not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: pickled weights only. {_CURE}")
    for index in folder.glob("*.safetensors.index.json"):
        try:
            shards = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index}: not an index of weights (weight_map). Save the model again.") from None
        for shard in shards:
            if not isinstance(shard, str) or not shard.endswith(".safetensors") or "/" in shard or "\\" in shard:
                raise UserError(f"{index}: {shard!r} is no safetensors file of this directory. {_CURE}")
    if (folder / "adapter_config.json").is_file():
        # transformers would load the adapter's base model, from wherever its file says, in the place of this one.
        raise UserError(
            f"{folder}: holds an adapter beside a model, and it is not clear which is meant. Merge it "
            "(peft: merge_and_unload), or take adapter_config.json away."
        )
