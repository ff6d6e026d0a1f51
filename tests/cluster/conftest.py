"""The shipped cluster files, and the schemas they are checked against."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT.parent / "shared" / "schemas"


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder that holds `cluster/` and `jobs/`."""
    return ROOT


@pytest.fixture(scope="session")
def manifests(root: Path) -> dict[str, dict[str, Any]]:
    """Every Kubernetes object under cluster/kuberay, by kind."""
    files = sorted((root / "cluster" / "kuberay").glob("*.yaml"))
    found = [one for path in files for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


@pytest.fixture(scope="session")
def ray_clusters(manifests: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The two RayClusterSpecs: the standing cluster's and the job's own."""
    return {"RayCluster": manifests["RayCluster"]["spec"], "RayJob": manifests["RayJob"]["spec"]["rayClusterSpec"]}


@pytest.fixture(scope="session")
def crd_schemas() -> dict[str, dict[str, Any]]:
    """`openAPIV3Schema` of KubeRay's RayCluster and RayJob, version v1; skipped, with a message, where missing."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"no KubeRay schemas at {SCHEMAS}")
    # The C loader: 1.4 MB of YAML take the Python one half a minute.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for kind, name in (("RayCluster", "rayclusters"), ("RayJob", "rayjobs")):
        definition = yaml.load((SCHEMAS / f"ray.io_{name}.crd.yaml").read_text(encoding="utf-8"), loader)
        assert definition["spec"]["names"]["kind"] == kind
        (version,) = (one for one in definition["spec"]["versions"] if one["name"] == "v1")
        found[kind] = version["schema"]["openAPIV3Schema"]
    return found
