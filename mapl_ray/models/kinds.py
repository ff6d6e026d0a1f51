"""Checks of a model by its config.json only: reward model or policy, and use with sequence parallelism."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mapl_ray.errors import UserError, first_line
from mapl_ray.model_copies import local_directory
from mapl_ray.models.quiet import quiet_transformers, transformers_class

Kind = Literal["reward model", "policy"]
_HEADS: dict[str, Kind] = {
    "ForSequenceClassification": "reward model",
    "ForCausalLM": "policy",
    "LMHeadModel": "policy",
    "ForConditionalGeneration": "policy",
}
_ROPE_BY_LENGTH = {"dynamic", "longrope"}


def read_config(path: str | Path, revision: str | None = None) -> Any:
    """Load the transformers config of a directory, a URI (its small files are copied) or a hub name.

    Raises `UserError` if it can't be read.
    """
    try:
        with quiet_transformers():
            return transformers_class("AutoConfig").from_pretrained(
                str(local_directory(path, weights=False, revision=revision)), trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: config.json can't be loaded: {first_line(error)}") from None


def kind_of(path: str | Path, revision: str | None = None, what: str = "") -> Kind:
    """Return "reward model" or "policy", by the architecture in config.json. `what`: the setting that names the model,
    such as `scoring.reward_model=`.

    Raises `UserError` for another or no architecture, and for a classifier with a number of labels other than 1, as it
    is not known which logit would be the reward.
    """
    config = read_config(path, revision)
    architectures = config.architectures or []
    for name in architectures:
        for ending, kind in _HEADS.items():
            if name.endswith(ending):
                if kind == "reward model" and config.num_labels != 1:
                    labels = ", ".join(f"{number}: {label}" for number, label in sorted(config.id2label.items())[:4])
                    raise UserError(
                        f"{what}{path}: config.json: num_labels={config.num_labels} ({labels}): a classifier, not a "
                        "reward model; expected num_labels=1. Use a reward model with one label."
                    )
                return kind
    raise UserError(
        f"{what}{path}: expected a reward model (...ForSequenceClassification) or a policy (...ForCausalLM), but found "
        f"{', '.join(architectures) or 'no architectures in config.json'}."
    )


def check_kind(path: str | Path, wanted: Kind, revision: str | None = None, what: str = "") -> None:
    """Raise `UserError` if the model is not of kind `wanted`, or if `kind_of` raises."""
    if kind_of(path, revision, what) == wanted:
        return
    found = ", ".join(read_config(path, revision).architectures or [])
    expected = {
        "reward model": "...ForSequenceClassification with num_labels=1. Train one (mapl train rm), or use another",
        "policy": "...ForCausalLM. Use a causal language model",
    }[wanted]
    raise UserError(f"{what}{path}: not a {wanted}: config.json: architectures={found}; expected {expected}.")


def check_shareable(config: Any, size: int, name: str | Path) -> None:
    """Raise `UserError` if `size` ranks can't share the tokens of a row (`train.sequence_parallel_size`).

    Args:
        config: the model's text config. Numbers of heads that it does not have are not checked.
        name: the model's name, for the message.
    """
    if size == 1:
        return
    for field in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(config, field, None)
        if isinstance(heads, int) and heads % size:
            raise UserError(
                f"train.sequence_parallel_size={size}: {name} has {field}={heads}, which is not divisible by it. "
                "Choose a size that divides both numbers of heads."
            )
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {str(one.get("rope_type")) for one in (rope, *rope.values()) if isinstance(one, dict)}
    if found := kinds & _ROPE_BY_LENGTH:
        raise UserError(
            f"train.sequence_parallel_size={size}: {name} has rotary frequencies of type {', '.join(sorted(found))}, "
            "which depend on the longest position of a batch, but a rank has only part of the positions. Set it to 1."
        )
