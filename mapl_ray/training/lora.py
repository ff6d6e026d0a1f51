"""LoRA (Hu et al. 2022) and QLoRA (Dettmers et al. 2023) through peft: what is trained, and what is written at the end.

peft puts its layers into the model in place, so the model below its wrapper runs as before, tree batches included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapl_ray.config import LoraConfig, Method, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.models import quiet_peft, quiet_transformers, with_saved_adapter
from mapl_ray.optional import require

if TYPE_CHECKING:
    import torch


def check_quantize(config: TrainConfig) -> None:
    """Raises `UserError` where 4-bit weights can't be had: without bitsandbytes."""
    if config.lora is not None and config.lora.quantize is not None:
        require(f"train.lora.quantize={config.lora.quantize}", ["bitsandbytes"], "set it to null")


def with_adapter(model: Any, lora: LoraConfig, method: Method, seed: int) -> Any:
    """The model in peft's wrapper: adapters and, of a reward model, the scalar head are trained, nothing else.

    The adapters depend on the seed alone, so that every rank draws the same.
    """
    import torch

    peft = _peft()
    settings = peft.LoraConfig(
        task_type="SEQ_CLS" if method == "rm" else "CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=["score"] if method == "rm" else None,
    )
    if lora.quantize is not None:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(model, settings)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"train.lora.target_modules={lora.target_modules}: {reason}") from None


@contextmanager
def switched_off(wrapped: Any) -> Iterator[None]:
    """The base model as it was: the reference that costs no memory."""
    wrapped.base_model.disable_adapter_layers()
    try:
        yield
    finally:
        wrapped.base_model.enable_adapter_layers()


def save_adapter(wrapped: Any, state_dict: dict[str, torch.Tensor], directory: Path) -> None:
    """Adapters and head in peft's format. `state_dict` has the names of the model below the wrapper."""
    named = {f"base_model.model.{name}": tensor.detach().cpu() for name, tensor in state_dict.items()}
    with quiet_transformers():
        wrapped.save_pretrained(directory, state_dict=named, save_embedding_layers=False)


def merged(base: Any, adapter: Path) -> Any:
    """The base model, freshly loaded, with the adapters of a directory added into its weights.

    Raises `UserError` where adapter and model do not fit, weight by weight.
    """
    return with_saved_adapter(base, adapter).merge_and_unload()


def _peft() -> Any:
    """peft, imported where adapters are used: it loads bitsandbytes, and takes seconds of every rank's start."""
    quiet_peft()
    import peft

    return peft
