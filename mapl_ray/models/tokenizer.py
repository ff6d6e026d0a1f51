"""A model directory and its tokenizer, read without torch: what a driver checks before a cluster starts."""

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
    """A tokenizer with EOS, and a padding token that is never the last of a response.

    transformers finds a reward model's last token as the last one that is not padding; with EOS as padding it would
    find the one before. Raises `UserError` where there is no tokenizer or no EOS.
    """
    check_model_directory(path, revision)
    folder = local_directory(path, weights=False, revision=revision)
    try:
        auto = transformers_class("AutoTokenizer")
        tokenizer = auto.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # the libraries raise whatever a damaged file makes them do
        raise unloadable(path, "tokenizer", error) from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{path}: the tokenizer has no EOS token; the end of a response could not be marked.")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = _spare_token(tokenizer, path)
    return tokenizer


def check_model_directory(path: str | Path, revision: str | None = None) -> None:
    """What can be seen of a directory, here, at a URI or on a hub, without its weights. A hub that can't be reached
    from here passes: whatever loads the model looks again.

    Raises `UserError` for an address that can't be reached, a directory that is not there or not whole, and one whose
    weights are pickles.
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
        raise UserError(f"{path}: no tokenizer ({', '.join(_TOKENIZER_FILES)}). Save it beside the model.")
    check_weights(folder, whole=not is_hub_name(path))


def unloadable(path: str | Path, what: str, error: Exception) -> UserError:
    """The error to raise where a library could not load the tokenizer or model at `path`."""
    reason = first_line(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
    return UserError(f"{path}: the {what} could not be loaded: {reason}")


def _spare_token(tokenizer: Any, path: str | Path) -> str:
    """A token that never ends a response: one kept in reserve, the unknown token, or BOS."""
    names = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<pad>", "[PAD]")
    vocabulary = tokenizer.get_vocab()
    for token in (*names, tokenizer.unk_token, tokenizer.bos_token):
        if token in vocabulary and vocabulary[token] != tokenizer.eos_token_id:
            return str(token)
    raise UserError(f"{path}: the tokenizer has no token to pad with but EOS. Add a padding token to it.")
