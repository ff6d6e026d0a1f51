"""PEFT adapters over a model, compared with it name by name: peft itself only warns of a weight that is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mapl_ray.errors import UserError, first_line
from mapl_ray.models.quiet import quiet_peft, quiet_transformers
from mapl_ray.models.weight_names import refuse

_FILE = "adapter_model.safetensors"
_CURE = "Save the adapter again with save_pretrained, or name the adapter of this model."


def with_saved_adapter(base: Any, adapter: Path) -> Any:
    """The model in peft's wrapper with the weights of a saved adapter. Raises as `verify_adapter` does."""
    wrapped = _wrapped(base, adapter)
    with quiet_transformers():
        wrapped.load_adapter(str(adapter), "default")
    return wrapped


def verify_adapter(adapter: Path, base: str, revision: str | None = None) -> None:
    """Compare an adapter's weights with the policy that it is applied to, reading neither.

    Raises `UserError` for an adapter without safetensors or whose weights are missing, extra, misnamed, or of another
    shape.
    """
    from mapl_ray.models.load import load_policy_shapes  # torch takes seconds

    _wrapped(load_policy_shapes(base, revision), adapter)


def _wrapped(base: Any, adapter: Path) -> Any:
    quiet_peft()
    import peft  # takes seconds of every process that imports it

    try:
        settings = peft.PeftConfig.from_pretrained(str(adapter))
        with safe_open(adapter / _FILE, framework="pt") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        with quiet_transformers():
            wrapped = peft.get_peft_model(base, settings)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{adapter}: the adapter can't be loaded: {first_line(error)}") from None
    wanted = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    other = [
        f"{name} {list(shapes[name])}, expected {list(tensor.shape)}"
        for name, tensor in sorted(wanted.items())
        if name in shapes and shapes[name] != tuple(tensor.shape)
    ]
    refuse(adapter, sorted(wanted.keys() - shapes), sorted(shapes.keys() - wanted), other, cure=_CURE)
    return wrapped
