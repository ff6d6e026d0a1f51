"""What must not travel with a job: Ray shows entry points, metadata and environments to whoever may list jobs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from mapl_ray.errors import UserError

_NAME = re.compile(r"(^|_)(TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|KEY|APIKEY)(_ID)?$", re.IGNORECASE)
_SHORTEST = 8  # what is shorter is a switch, or would be found everywhere


def refuse_secrets(texts: Mapping[str, str]) -> None:
    """Raise `UserError` if a text holds the value of an environment variable that by its name is a secret.

    Args:
        texts: what would travel, by what to call it in the message; the message shows no value.
    """
    for name, value in os.environ.items():
        if len(value) < _SHORTEST or not _NAME.search(name):
            continue
        for what, text in texts.items():
            if value in text:
                raise UserError(
                    f"{what} holds the value of {name}, which everybody who may list the cluster's jobs could read. "
                    "Take it out: the cluster's own environment or secrets are the place for it (docs/cluster.md)."
                )
