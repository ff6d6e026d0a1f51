"""Checks of a model before a cluster or an engine starts: its kind, labels, tokenizer and weights.

Weights are checked by names and shapes, from the files' headers. Weights at a URI or on a hub are checked when they are
loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mapl_ray.errors import UserError
from mapl_ray.hub_models import HubUnreachableError
from mapl_ray.model_copies import local_directory
from mapl_ray.models.kinds import Kind, check_kind, check_shareable, kind_of, read_config
from mapl_ray.models.tokenizer import check_model_directory, load_tokenizer


def verify_model(path: str | Path, wanted: Kind, revision: str | None = None, what: str = "") -> None:
    """Check a model that is used without training: for scoring, evaluation, as reference or judge.

    `what`: the setting that names the model, such as `scoring.reward_model=`. Raises `UserError` for another kind of
    model, several labels, special token ids without an embedding, and weights that are missing, extra or misnamed.
    Passes if the hub can't be reached from here; the model is checked again when it is loaded.
    """
    if not _is_reachable(path, revision):
        return
    check_kind(path, wanted, revision, what)
    _check_tokenizer(path, revision, what)
    if Path(path).is_dir():
        from mapl_ray.models.load import check_weights_fit  # importing torch takes seconds

        check_weights_fit(path, wanted, revision)


def verify_base(path: str | Path, method: str, revision: str | None = None, what: str = "") -> None:
    """Check the base model of a training: for `dpo` a policy; for `rm` a policy, which gets a new head, or a reward
    model with one label. Raises and passes as `verify_model` does."""
    if method == "dpo":
        verify_model(path, "policy", revision, what)
        return
    if not _is_reachable(path, revision):
        return
    if any(name.endswith("ForSequenceClassification") for name in read_config(path, revision).architectures or []):
        kind_of(path, revision, what)  # raises for several labels
    _check_tokenizer(path, revision, what)
    if Path(path).is_dir():
        from mapl_ray.models.load import check_weights_fit

        check_weights_fit(path, "reward model", revision, fresh_head=True)


def verify_shareable(path: str | Path, size: int, revision: str | None = None) -> None:
    """Run `check_shareable` with the model's config.json. Passes if the hub can't be reached, as in `verify_model`."""
    if size > 1 and _is_reachable(path, revision):
        check_shareable(read_config(path, revision).get_text_config(), size, path)


def check_token_ids(tokenizer: Any, config: Any, path: str | Path) -> None:
    """Raise `UserError` if the tokenizer has special token ids for which the model has no embedding."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    for name in ("bos", "eos", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if size is not None and number is not None and number >= size:
            raise UserError(
                f"{path}: the tokenizer's {name}_token {getattr(tokenizer, f'{name}_token')!r} has id {number}, but "
                f"config.json has vocab_size={size}: it is another model's tokenizer. Save the model's own one there."
            )


def _is_reachable(path: str | Path, revision: str | None) -> bool:
    check_model_directory(path, revision)
    try:
        local_directory(path, weights=False, revision=revision)
    except HubUnreachableError:
        return False
    return True


def _check_tokenizer(path: str | Path, revision: str | None, what: str) -> None:
    check_token_ids(load_tokenizer(path, revision), read_config(path, revision), f"{what}{path}")
