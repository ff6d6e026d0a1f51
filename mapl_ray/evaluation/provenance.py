"""Provenance of results: code, packages, data, chat templates, counts, seed, date, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from mapl_ray.data.shards import fingerprint_of
from mapl_ray.versions import package_versions


class Provenance(TypedDict):
    """Everything needed to reproduce the results. All values can be written as JSON."""

    git_hash: str | None  # commit of the installed source; None outside a checkout
    git_dirty: bool | None
    versions: dict[str, str]
    data: dict[str, str]  # content hash of every data set
    chat_templates: dict[str, str | None]  # sha256 of every model's template
    counts: dict[str, int]
    settings: str | None  # digest of models, data and options that change the numbers
    seed: int
    date: str  # ISO 8601, UTC
    machine: dict[str, Any]


def collect_provenance(
    *,
    seed: int,
    data: Mapping[str, str] | None = None,
    chat_templates: Mapping[str, str | None] | None = None,
    counts: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Provenance:
    """Collect the provenance of this process.

    `data` maps a data set to its `Manifest.content_hash`, `chat_templates` maps a model to its template's text. Only
    the digest of `settings` is kept.
    """
    commit, dirty = _git(Path(__file__).resolve())
    return Provenance(
        git_hash=commit,
        git_dirty=dirty,
        versions=package_versions(),
        data=dict(data or {}),
        chat_templates={name: text_digest(text) for name, text in (chat_templates or {}).items()},
        counts=dict(counts or {}),
        settings=None if settings is None else fingerprint_of(settings),
        seed=seed,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(),
    )


def text_digest(text: str | None) -> str | None:
    """sha256 (hex) of a text; None for None."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def _git(source: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that tracks `source`, and whether it has changes.

    A copy installed inside another project's checkout is not tracked there, so it has no commit.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _machine() -> dict[str, Any]:
    import torch  # imported here so that the metrics only need numpy

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus}
