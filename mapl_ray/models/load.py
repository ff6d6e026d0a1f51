"""Loading of models from a local directory, a URI or a hub: only safetensors, no remote code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from mapl_ray.errors import UserError
from mapl_ray.model_copies import local_directory
from mapl_ray.models.heads import Float32Head, replace_linear
from mapl_ray.models.kinds import Kind, check_kind, read_config
from mapl_ray.models.quiet import quiet_transformers, transformers_class
from mapl_ray.models.tokenizer import check_model_directory, unloadable
from mapl_ray.models.tree_attention import plain_attention
from mapl_ray.models.weight_files import check_weights
from mapl_ray.models.weight_names import check_loaded

Dtype = Literal["float32", "bfloat16"]


def load_policy(
    path: str | Path, dtype: Dtype, revision: str | None = None, device: str = "cpu", four_bit: bool = False
) -> Any:
    """Load a causal language model. Raises `UserError` if it can't be loaded or a weight does not match its config."""
    model, info = _load("AutoModelForCausalLM", path, dtype, revision, device, four_bit)
    check_loaded(path, info)
    return model


def load_policy_shapes(path: str | Path, revision: str | None = None) -> Any:
    """Load the policy on the meta device: names and shapes without values. Raises as `load_policy` does."""
    return load_policy(path, "float32", revision, "meta")


def load_reward_model(
    path: str | Path,
    dtype: Dtype,
    revision: str | None = None,
    device: str = "cpu",
    seed: int | None = None,
    four_bit: bool = False,
) -> Any:
    """Load a model with a scalar head (`num_labels=1`).

    `seed`: initializes the head if the checkpoint has none (a base model before training); `model.fresh_head` is True
    then. Without a seed, such a checkpoint is refused. Raises `UserError` if the model can't be loaded or a weight does
    not match its config, and for a classifier with several labels.
    """
    labels = read_config(path, revision)
    if any(name.endswith("ForSequenceClassification") for name in labels.architectures or []):
        check_kind(path, "reward model", revision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        model, info = _load("AutoModelForSequenceClassification", path, dtype, revision, device, four_bit, num_labels=1)
    if not isinstance(getattr(model, "score", None), torch.nn.Module):
        raise UserError(
            f"{path}: {type(model).__name__} has no head `score`. Use a decoder model (Llama, Qwen, Mistral)."
        )
    model.fresh_head = check_loaded(path, info, fresh_head=seed is not None)
    replace_linear(model.score, Float32Head)
    return model


def check_weights_fit(path: str | Path, kind: Kind, revision: str | None = None, fresh_head: bool = False) -> None:
    """Check names and shapes of the weights as loading does, without reading values.

    Raises `UserError` as the loaders do.
    """
    auto = "AutoModelForSequenceClassification" if kind == "reward model" else "AutoModelForCausalLM"
    options = {"num_labels": 1} if kind == "reward model" else {}
    _, info = _load(auto, path, "float32", revision, "meta", False, **options)
    check_loaded(path, info, fresh_head=fresh_head)


def _load(
    auto: str, path: str | Path, dtype: Dtype, revision: str | None, device: str, four_bit: bool, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Load a model; returns it and transformers' loading info."""
    check_model_directory(path, revision)
    folder = local_directory(path, weights=True, revision=revision)
    check_weights(Path(folder))
    try:
        with quiet_transformers():
            return _from_pretrained(auto, folder, dtype, device, four_bit, options)
    except (OSError, ValueError, SafetensorError) as error:
        raise unloadable(path, "model", error) from None


def _from_pretrained(
    auto: str,
    path: str | Path,
    dtype: Dtype,
    device: str,
    four_bit: bool,
    options: dict[str, Any],
) -> tuple[Any, dict[str, Any]]:
    auto_config = transformers_class("AutoConfig")
    config = auto_config.from_pretrained(str(path), trust_remote_code=False, **options)

    def load(implementation: str) -> tuple[Any, dict[str, Any]]:
        model, info = transformers_class(auto).from_pretrained(
            str(path),
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=implementation,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_loaded` raises instead, with the names of the weights
            **({"device_map": "meta"} if device == "meta" else {}),
            **({"quantization_config": _four_bit(dtype)} if four_bit else {}),
        )
        return model, info

    try:
        model, info = load(plain_attention(config))
    except ValueError as error:
        if "does not support an attention implementation" not in str(error):
            raise
        model, info = load("eager")  # families with their own attention code, for padded batches only
    if device != "meta":
        _computed_buffers_in_float32(model)
    return _differentiable(model) if four_bit else model, info


@torch.no_grad()
def _computed_buffers_in_float32(model: Any) -> None:
    """Recompute in float32 the non-persistent buffers that were created in bfloat16 or float16.

    DeepSpeed creates all tensors in the dtype of the weights while it partitions a model (ZeRO-3). Rotary frequencies
    with 8 bits are off by up to 0.4 %, which rotates tokens at position 1,000 by up to a radian.
    """
    for module in model.modules():
        rounded = [
            name
            for name in module._non_persistent_buffers_set
            if (buffer := module._buffers[name]) is not None and buffer.dtype in (torch.bfloat16, torch.float16)
        ]
        if rounded and next(module.parameters(recurse=False), None) is None:
            for name in rounded:
                module._buffers[name] = module._buffers[name].float()
            model._init_weights(module)


def _four_bit(dtype: Dtype) -> Any:
    """Config of NF4 with double quantization (Dettmers et al. 2023, section 3); computes in the model's dtype."""
    return transformers_class("BitsAndBytesConfig")(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=["lm_head", "score"],
    )


def _differentiable(model: Any) -> Any:
    """Disable bitsandbytes' AVX512-bf16 kernel in every 4-bit layer, and return the model.

    On CPUs with AVX512-bf16, the first forward pass in eval mode permanently repacks a layer's weights for that kernel.
    It has no backward pass, so training steps after an evaluation would lose the gradient through the layer without an
    error. It also always multiplies in bfloat16.
    """
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            layer.support_avx512bf16_for_cpu = False
    return model
