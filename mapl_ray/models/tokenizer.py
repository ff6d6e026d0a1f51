"""Checks of a model directory and loading of its tokenizer, without torch, before a cluster starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mapl_ray.errors import UserError, first_line
from mapl_ray.hub_models import HubUnreachableError, is_hub_name
from mapl_ray.model_copies import local_directory
from mapl_ray.models.quiet import transformers_class
from mapl_ray.models.weight_files import check_weights

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def load_tokenizer(path: str | Path, revision: str | None = None) -> Any:
    """Load a tokenizer, and set a pad token that differs from EOS.

    transformers reads a reward model's score at the last token that is not padding. With EOS as pad token, that would
    be the token before EOS. Raises `UserError` if there is no tokenizer or no EOS token.
    """
    check_model_directory(path, revision)
    folder = local_directory(path, weights=False, revision=revision)
    try:
        auto = transformers_class("AutoTokenizer")
        tokenizer = auto.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # a damaged file can cause any exception in the libraries
        raise unloadable(path, "tokenizer", error) from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{path}: the tokenizer has no EOS token, which must end each response. Set its eos_token.")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = _spare_token(tokenizer, path)
    return tokenizer


def check_model_directory(path: str | Path, revision: str | None = None) -> None:
    """Check a model directory (local, at a URI or on a hub) without reading its weights. Passes if the hub can't be
    reached from here; the model is checked again when it is loaded.

    Raises `UserError` for an address that can't be reached, a missing or incomplete directory, and pickled weights.
    """
    try:
        folder = Path(local_directory(path, weights=False, revision=revision))
    except HubUnreachableError:
        return
    if not folder.is_dir():
        raise UserError(f"{path}: no such model directory. Give a directory, a hub name, or `tiny`.")
    if not (folder / "config.json").is_file():
        raise UserError(f"{path}: no config.json, so not a Hugging Face model directory.")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(f"{path}: no tokenizer ({', '.join(_TOKENIZER_FILES)}). Save it in the model's directory.")
    check_weights(folder, whole=not is_hub_name(path))


def unloadable(path: str | Path, what: str, error: Exception) -> UserError:
    """Build the error for a tokenizer or model at `path` that a library could not load."""
    reason = first_line(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
    return UserError(f"{path}: the {what} could not be loaded: {reason}")


def _spare_token(tokenizer: Any, path: str | Path) -> str:
    """Choose a pad token that never ends a response: a reserved token, the unknown token, or BOS."""
    names = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<pad>", "[PAD]")
    vocabulary = tokenizer.get_vocab()
    for token in (*names, tokenizer.unk_token, tokenizer.bos_token):
        if token in vocabulary and vocabulary[token] != tokenizer.eos_token_id:
            return str(token)
    raise UserError(f"{path}: the tokenizer has no token for padding except EOS. Add a pad token to it.")
