"""The version of the code that a row was measured with."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("mapl_ray", "benchmarks/reliability")
_DIGITS = 12  # digits of a commit hash


def code_digest(root: Path = ROOT) -> str:
    """sha256 (hex) over the Python files of `FOLDERS`, names and content."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def commit(root: Path = ROOT) -> str:
    """The first digits of the checkout's commit, with "+" if files of `FOLDERS` differ from it; `unknown` outside a
    checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--", *FOLDERS).strip()
        return git("rev-parse", "HEAD")[:_DIGITS] + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
