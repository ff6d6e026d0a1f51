"""The trained model as a Hugging Face directory that transformers and vLLM load as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from mapl_ray.models import quiet_transformers

_WRAPPER = "model."  # RewardScores and PolicyLogps hold the model under this name


def export_model(model: Any, tokenizer: Any, state_dict: dict[str, torch.Tensor], directory: Path) -> None:
    """Write weights (safetensors), config, tokenizer and chat template; the directory appears at once."""
    aside = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    weights = {name.removeprefix(_WRAPPER): tensor.detach().cpu() for name, tensor in state_dict.items()}
    model.config.pad_token_id = tokenizer.pad_token_id  # transformers finds the last token by it
    with quiet_transformers():
        model.save_pretrained(aside, state_dict=weights)
    tokenizer.save_pretrained(aside)
    shutil.rmtree(directory, ignore_errors=True)
    aside.rename(directory)
