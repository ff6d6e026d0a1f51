"""KubeRay's manifests: valid by its own schemas with no unknown field, closed to the network, fit for their recipe."""

import copy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray

from mapl_ray.config import load_config

Json = dict[str, Any]
KINDS = ("RayCluster", "RayJob")


def strict(schema: Any) -> Any:
    """The schema with unknown fields refused, as `kubectl --validate=strict` does, and integer-or-string honoured.

    Kubernetes prunes what `properties` does not list, unless `x-kubernetes-preserve-unknown-fields` says otherwise.
    """
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    new = {key: {name: strict(one) for name, one in value.items()} if key == "properties" else strict(value)
           for key, value in schema.items()}  # fmt: skip
    if isinstance(new.get("properties"), dict) and not new.get("x-kubernetes-preserve-unknown-fields"):
        new.setdefault("additionalProperties", False)
    return new


def metadata_allowed(schema: Json) -> Json:
    """Kubernetes itself checks the object's own `metadata`, which the definition leaves open."""
    new = copy.deepcopy(schema)
    new["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return new


@pytest.fixture(scope="module")
def validators(crd_schemas: dict[str, Json]) -> dict[str, jsonschema.Draft202012Validator]:
    return {kind: jsonschema.Draft202012Validator(metadata_allowed(strict(crd_schemas[kind]))) for kind in KINDS}


def errors_of(validator: jsonschema.Draft202012Validator, value: Json) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifests_are_valid_by_kuberays_schema(
    kind: str, manifests: dict[str, Json], validators: dict[str, jsonschema.Draft202012Validator]
) -> None:
    assert manifests[kind]["apiVersion"] == "ray.io/v1"
    assert errors_of(validators[kind], manifests[kind]) == []


# (kind, path to the place, key, value, part of the message)
MISTAKES = [
    ("RayCluster", (), "rayVerson", "2.60.0", "'rayVerson' was unexpected"),
    ("RayCluster", ("authOptions",), "modus", "token", "'modus' was unexpected"),
    ("RayCluster", ("authOptions",), "mode", "tokn", "'tokn' is not one of"),
    ("RayCluster", ("headGroupSpec", "template", "spec"), "securityContex", {}, "'securityContex' was unexpected"),
    ("RayCluster", ("headGroupSpec", "template", "spec", "containers", 0), "imagePolicy", "x", "was unexpected"),
    ("RayCluster", ("workerGroupSpecs", 0), "replicas", "one", "'one' is not of type 'integer'"),
    ("RayJob", (), "ttlSecondsAfterFinish", 1, "'ttlSecondsAfterFinish' was unexpected"),
    ("RayJob", (), "backoffLimit", "many", "'many' is not of type 'integer'"),
    ("RayJob", ("rayClusterSpec", "authOptions"), "secret", "x", "'secret' was unexpected"),
]


@pytest.mark.parametrize(("kind", "path", "key", "value", "message"), MISTAKES)
def test_a_misspelt_field_or_value_would_be_found(
    kind: str,
    path: tuple[str | int, ...],
    key: str,
    value: Any,
    message: str,
    manifests: dict[str, Json],
    validators: dict[str, jsonschema.Draft202012Validator],
) -> None:
    broken = copy.deepcopy(manifests[kind])
    place: Any = broken["spec"]
    for step in path:
        place = place[step]
    place[key] = value
    found = errors_of(validators[kind], broken)
    assert any(message in error for error in found), found


def test_the_network_policys_rules_are_valid(manifests: dict[str, Json], crd_schemas: dict[str, Json]) -> None:
    # The schema of a NetworkPolicy's rules is part of RayCluster's own `networkPolicy` field.
    spec = crd_schemas["RayCluster"]["properties"]["spec"]["properties"]
    rules = strict(spec["networkPolicy"]["properties"]["head"]["properties"]["ingressRules"])
    ingress = manifests["NetworkPolicy"]["spec"]["ingress"]
    validator = jsonschema.Draft202012Validator(rules)
    assert list(validator.iter_errors(ingress)) == []
    assert list(validator.iter_errors([{"form": []}]))  # a misspelt `from`, which would let everybody in


def pods(spec: Json) -> list[Json]:
    """Pod templates of a RayClusterSpec, head first."""
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_asked_for_and_no_port_leaves_the_kubernetes_cluster(
    kind: str, ray_clusters: dict[str, Json], manifests: dict[str, Json]
) -> None:
    spec = ray_clusters[kind]
    assert spec["authOptions"]["mode"] == "token"
    # The operator refuses token mode without it, and it decides the job's command line: it must be the stack's.
    assert spec["rayVersion"] == ray.__version__
    head = spec["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert not head.get("enableIngress", False)
    for template in pods(spec):
        pod = template["spec"]
        assert not pod.get("hostNetwork", False)
        for container in pod["containers"]:
            assert not any("hostPort" in port for port in container.get("ports", []))
            names = {one["name"] for one in container["env"]}
            assert not names & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}  # these would win over the operator's
    selected = manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items()
    templates = pods(spec) + ([manifests["RayJob"]["spec"]["submitterPodTemplate"]] if kind == "RayJob" else [])
    for template in templates:
        assert selected <= template["metadata"]["labels"].items()


def test_the_network_policy_lets_in_ray_itself_and_the_operators_one_port(manifests: dict[str, Json]) -> None:
    spec = manifests["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    own, operator = spec["ingress"]
    assert own["from"] == [{"podSelector": spec["podSelector"]}]
    assert [port["port"] for port in operator["ports"]] == [8265]
    (peer,) = operator["from"]
    assert peer["podSelector"]["matchLabels"]  # a namespaceSelector alone would let in every pod there is


@pytest.mark.parametrize("kind", KINDS)
def test_pods_are_not_root_and_bounded(kind: str, ray_clusters: dict[str, Json], manifests: dict[str, Json]) -> None:
    templates = pods(ray_clusters[kind])
    templates += [manifests["RayJob"]["spec"]["submitterPodTemplate"]] if kind == "RayJob" else []
    for template in templates:
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000  # the image's user, see the Dockerfile test
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_the_job_gives_its_machines_back(manifests: dict[str, Json]) -> None:
    spec = manifests["RayJob"]["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert 0 <= spec["backoffLimit"] <= 3  # bounded: a job that always fails must end


def test_the_two_clusters_are_the_same(ray_clusters: dict[str, Json]) -> None:
    assert ray_clusters["RayCluster"] == ray_clusters["RayJob"]


def test_the_jobs_recipe_fits_the_cluster_and_its_storage(
    root: Path, manifests: dict[str, Json], ray_clusters: dict[str, Json]
) -> None:
    python, script, option, recipe = shlex.split(manifests["RayJob"]["spec"]["entrypoint"])
    assert (python, option) == ("python", "--config")
    assert (root / script).is_file()
    config = load_config(root / recipe)
    spec = ray_clusters["RayJob"]
    limits = [
        (group["replicas"], group["template"]["spec"]["containers"][0]["resources"]["limits"])
        for group in spec["workerGroupSpecs"]
    ]
    gpus = sum(count * int(one["nvidia.com/gpu"]) for count, one in limits)
    cpus = sum(count * int(one["cpu"]) for count, one in limits)
    train, scoring = config.training("dpo"), config.scoring
    assert train.num_workers * train.gpus_per_worker <= gpus
    assert train.num_workers * train.cpus_per_worker < cpus  # strictly: drivers and readers need some as well
    assert scoring.num_engines * scoring.gpus_per_engine <= gpus
    # What the run writes outlives the pods.
    claim = manifests["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for template in pods(spec):
        (volume,) = template["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (mount,) = template["spec"]["containers"][0]["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert config.run_dir.is_relative_to(mount["mountPath"])
