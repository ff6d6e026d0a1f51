"""Check that reference and policy have the same tokenizer. ref_logps are sums over the policy's tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from mapl_ray.data.records import canonical_json
from mapl_ray.errors import UserError

# Whitespace, digits, case, marks, scripts: where tokenizers with the same vocabulary can differ.
_PROBE = "Two  spaces,\ttab\n\nlines; 1234.5 isn't don't I'm NaïveÉ 東京 😀 <b> https://a.b/c?d=1 "


def tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    """Everything that decides the token ids of a conversation. Equal identities give equal ids."""
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")}
    return {
        "vocabulary": _digest(tokenizer.get_vocab()),
        **{f"{name} token id": value for name, value in special.items()},
        "chat template": _digest(tokenizer.chat_template),
        "way of splitting text": _digest(tokenizer.encode(_PROBE, add_special_tokens=False)),
    }


def check_same_tokenizer(
    scorer: str, trainer: str, scorer_revision: str | None = None, trainer_revision: str | None = None
) -> None:
    """Raise `UserError`, with the differences, if the two models' tokenizers would give different ids."""
    # Imported here: transformers takes seconds to import, and some callers of this module do not need it.
    from mapl_ray.models import load_tokenizer

    theirs = tokenizer_identity(load_tokenizer(scorer, scorer_revision))
    ours = tokenizer_identity(load_tokenizer(trainer, trainer_revision))
    differing = [
        f"{name} ({_short(ours[name])} / {_short(theirs[name])})" for name in ours if ours[name] != theirs[name]
    ]
    if differing:
        raise UserError(
            f"ref_logps of {scorer}: its tokenizer is not that of {trainer}, the trained model: they differ in "
            f"{', '.join(differing)}. Use a reference model with the trained model's tokenizer files and chat template."
        )


def _digest(value: object) -> str:
    plain = dict(value) if isinstance(value, Mapping) else value
    return hashlib.sha256(canonical_json(plain).encode("utf-8", "surrogatepass")).hexdigest()


def _short(value: object) -> str:
    return value[:8] if isinstance(value, str) else str(value)
