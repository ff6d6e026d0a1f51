"""A model's sizes, from its config.json, from `model.tiny`, or estimated from the number in a hub name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mapl_ray.config import LoraConfig, Method, RunConfig
from mapl_ray.errors import UserError
from mapl_ray.model_states import parameter_count
from mapl_ray.training.throughput import FlopCounter


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder with a gated MLP."""

    source: str
    parameters: float
    layers: int
    hidden: int
    mlp: int
    attention: int  # heads * head size
    key_value: int  # key-value heads * head size
    vocabulary: int
    tied: bool = False  # whether embeddings and output layer share their weights

    @property
    def embeddings(self) -> float:
        return float(self.vocabulary * self.hidden)

    def trained(self, lora: LoraConfig | None) -> float:
        """Number of trained parameters: all, or those of adapters of rank r, r * (in + out) per matrix."""
        if lora is None:
            return self.parameters
        query, both = self.hidden + self.attention, self.hidden + self.key_value
        return float(self.layers * lora.r * (2 * query + 2 * both + 3 * (self.hidden + self.mlp)))

    def flops(self, method: Method, lora: LoraConfig | None) -> FlopCounter:
        """FLOPs per token."""
        weights = max(1.0, self.parameters - self.embeddings * (1 if self.tied else 2))
        return FlopCounter(
            weights=round(weights),
            trained=round(weights if lora is None else self.trained(lora)),
            head=0 if method == "rm" else round(self.embeddings),
            attention=self.layers * self.attention,
        )


def model_shape(config: RunConfig) -> ModelShape:
    """Sizes of `model.name_or_path`. Raises `UserError` if neither config.json nor the name has a size."""
    counted = parameter_count(config)
    if counted is None:
        raise UserError(
            f"model.name_or_path={config.model.name_or_path!r}: its size is unknown. Use a local directory with "
            "config.json, or a name that contains its size (Llama-3.1-8B)."
        )
    parameters, source = counted
    if config.model.name_or_path == "tiny":
        tiny = config.model.tiny
        width = tiny.hidden_size
        return ModelShape(source, parameters, tiny.num_layers, width, 4 * width, width, width, tiny.vocab_size)
    path = Path(config.model.name_or_path) / "config.json"
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        hidden, heads = int(values["hidden_size"]), int(values["num_attention_heads"])
        head = int(values.get("head_dim") or hidden // heads)
        key_value = head * int(values.get("num_key_value_heads") or heads)
        layers, mlp, vocabulary = (int(values[key]) for key in ("num_hidden_layers", "intermediate_size", "vocab_size"))
        tied = bool(values.get("tie_word_embeddings"))
        return ModelShape(source, parameters, layers, hidden, mlp, heads * head, key_value, vocabulary, tied)
    # Assumes 12 h^2 parameters per layer, h / 128 layers, a vocabulary of 128,000, 4 query heads per key-value head.
    hidden = round((parameters * 128 / 12) ** (1 / 3) / 128) * 128 or 128
    layers = max(1, round(parameters / (12 * hidden**2)))
    source += "; sizes estimated from it"
    return ModelShape(
        source, parameters, layers, hidden, 3 * hidden, hidden, hidden // 4, 128_000, tied=parameters < 3e9
    )
