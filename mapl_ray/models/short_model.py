"""A small random model with the classes and attention of a large one, but few layers, to test its computation."""

from __future__ import annotations

import copy
from typing import Any

import torch

_VOCABULARY = 128
_WIDEST = 256  # intermediate size of MLPs, which attention does not depend on
_MLP_WIDTHS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")


def short_model(model: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    """Build a model with the fewest layers (at least two) that include every kind of layer of `model`, in eval mode.

    The weights of `model` are not read, so they may be partitioned (ZeRO-3), quantized, or on another device. Number
    and size of heads are kept. Random weights are large enough that attention affects the outputs.
    """
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    layers = _shortest(text)
    for name, values in _by_layer(text).items():
        setattr(text, name, values[:layers])
    text.num_hidden_layers = layers
    text.vocab_size = min(_VOCABULARY, text.vocab_size)
    for part in (config, text):
        part.pad_token_id = 0
    for name in _MLP_WIDTHS:
        if isinstance(width := getattr(text, name, None), int):
            setattr(text, name, min(_WIDEST, width))
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        short = type(model)(config).to(dtype)
        generator = torch.Generator(device).manual_seed(0)
        with torch.no_grad():
            for parameter in short.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=2.0 * parameter.shape[-1] ** -0.5, generator=generator)
    return short.eval()


def _by_layer(config: Any) -> dict[str, list[Any]]:
    """Settings that have one value per layer, such as `layer_types`."""
    number = config.num_hidden_layers
    return {
        name: value
        for name, value in config.to_dict().items()
        if isinstance(value, list) and len(value) == number and hasattr(config, name)
    }


def _shortest(config: Any) -> int:
    """The smallest number of first layers (at least two) that include every kind of layer of the model."""
    settings = _by_layer(config)
    number: int = config.num_hidden_layers
    kinds = [tuple(str(values[layer]) for values in settings.values()) for layer in range(number)]
    first = [kinds.index(kind) for kind in set(kinds)]
    return min(number, max([2, *(index + 1 for index in first)]))
