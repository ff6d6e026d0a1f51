"""Loading of PEFT adapters, with a check of all weight names and shapes. PEFT only warns about missing weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mapl_ray.errors import UserError, first_line
from mapl_ray.models.quiet import quiet_peft, quiet_transformers
from mapl_ray.models.weight_names import refuse

_FILE = "adapter_model.safetensors"
_CURE = "Save the adapter again with save_pretrained, or give an adapter of this model."


def with_saved_adapter(base: Any, adapter: Path) -> Any:
    """Wrap the model with PEFT and load a saved adapter into it. Raises as `verify_adapter` does."""
    wrapped = _wrapped(base, adapter)
    with quiet_transformers():
        wrapped.load_adapter(str(adapter), "default")
    return wrapped


def verify_adapter(adapter: Path, base: str, revision: str | None = None) -> None:
    """Check that an adapter's weights fit the policy, by names and shapes, without reading weights.

    Raises `UserError` for an adapter without safetensors, or with weights that are missing, extra, misnamed, or of
    another shape.
    """
    from mapl_ray.models.load import load_policy_shapes  # importing torch takes seconds

    _wrapped(load_policy_shapes(base, revision), adapter)


def _wrapped(base: Any, adapter: Path) -> Any:
    quiet_peft()
    import peft  # the import takes seconds

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
