"""KubeRay's manifests: valid by its own schemas with no unknown field, closed to the network, fit for their recipe."""

import copy
import ipaddress
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray

from mapl_ray.addresses import is_metadata_service
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
    policy = manifests["NetworkPolicy"]["spec"]
    validator = jsonschema.Draft202012Validator(rules)
    assert list(validator.iter_errors(policy["ingress"])) == []
    assert list(validator.iter_errors([{"form": []}]))  # a misspelt `from`, which would let everybody in
    outward = strict(spec["networkPolicy"]["properties"]["head"]["properties"]["egressRules"])
    assert list(jsonschema.Draft202012Validator(outward).iter_errors(policy["egress"])) == []


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
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    own, operator = spec["ingress"]
    assert own["from"] == [{"podSelector": spec["podSelector"]}]
    assert [port["port"] for port in operator["ports"]] == [8265]
    (peer,) = operator["from"]
    assert peer["podSelector"]["matchLabels"]  # a namespaceSelector alone would let in every pod there is
    # Labels are anybody's to choose in a namespace of their own: the operator's namespace is named.
    assert list(peer["namespaceSelector"]["matchLabels"]) == ["kubernetes.io/metadata.name"]


METADATA = [
    "169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fe80::a9fe:a9fe",
    "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42",
]  # fmt: skip


def reaches(policy: Json, address: str, port: int) -> bool:
    """Whether the policy lets a pod connect to an address outside, as Kubernetes decides."""
    target = ipaddress.ip_address(address)
    for rule in policy["egress"]:
        if not any(one["port"] == port for one in rule.get("ports", [{"port": port}])):
            continue
        for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
            inside = target in ipaddress.ip_network(block["cidr"])
            if inside and not any(target in ipaddress.ip_network(one) for one in block.get("except", [])):
                return True
    return False


def test_jobs_reach_no_metadata_service(manifests: dict[str, Json]) -> None:
    policy = manifests["NetworkPolicy"]["spec"]
    assert [address for address in METADATA if not is_metadata_service(address)] == []  # the package's own list
    assert [address for address in METADATA if reaches(policy, address, 80) or reaches(policy, address, 53)] == []
    assert reaches(policy, "198.51.100.7", 443)
    assert reaches(policy, "2001:db8::7", 443)
    assert reaches(policy, "169.254.20.10", 53)  # NodeLocal DNSCache
    assert not reaches(policy, "169.254.20.10", 80)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_named_by_digest_and_secrets_are_files(kind: str, ray_clusters: dict[str, Json]) -> None:
    for template in pods(ray_clusters[kind]):
        secret_volumes = {one["name"] for one in template["spec"]["volumes"] if "secret" in one}
        for container in template["spec"]["containers"]:
            assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", container["image"])
            assert not any("secretKeyRef" in one.get("valueFrom", {}) for one in container["env"])
            environment = {one["name"]: one.get("value") for one in container["env"]}
            mounts = {one["mountPath"]: one for one in container["volumeMounts"] if one["name"] in secret_volumes}
            assert str(Path(environment["HF_TOKEN_PATH"]).parent) in mounts
            assert all(one["readOnly"] for one in mounts.values())


SPOT = {  # a label that a provider gives its pre-emptible nodes
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}


def admits(affinity: Json, labels: dict[str, str]) -> bool:
    """Whether a pod of this affinity may be put on a node of these labels, as Kubernetes decides."""
    (term,) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    tests = {
        "DoesNotExist": lambda there, one: there is None,
        "NotIn": lambda there, one: there not in one["values"],
    }
    return all(tests[one["operator"]](labels.get(one["key"]), one) for one in term["matchExpressions"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_is_never_on_a_node_that_can_be_taken_away(kind: str, ray_clusters: dict[str, Json]) -> None:
    pod = ray_clusters[kind]["headGroupSpec"]["template"]["spec"]
    assert admits(pod["affinity"], {"kubernetes.io/os": "linux", "eks.amazonaws.com/capacityType": "ON_DEMAND"})
    for label, value in SPOT.items():
        assert not admits(pod["affinity"], {label: value})
    assert "tolerations" not in pod
    assert "nodeSelector" not in pod


@pytest.mark.parametrize("kind", KINDS)
def test_the_spot_group_can_be_empty_and_tells_ray_before_it_goes(kind: str, ray_clusters: dict[str, Json]) -> None:
    steady, spot = ray_clusters[kind]["workerGroupSpecs"]
    assert (spot["replicas"], spot["minReplicas"]) == (0, 0)
    assert spot["maxReplicas"] > 0
    assert steady["minReplicas"] > 0
    pod = spot["template"]["spec"]
    ((label, value),) = pod["nodeSelector"].items()
    assert SPOT[label] == value
    assert label in {one["key"] for one in pod["tolerations"]}
    assert "nodeSelector" not in steady["template"]["spec"]
    (container,), (other,) = pod["containers"], steady["template"]["spec"]["containers"]
    shell, option, line = container["lifecycle"]["preStop"]["exec"]["command"]
    assert (shell, option) == ("/bin/sh", "-c")
    words = shlex.split(line)
    drain, wait = words[: words.index("&&")], words[words.index("&&") + 1 :]
    options = ray_options("drain-node", drain[2:])
    assert drain[:2] == ["ray", "drain-node"]
    assert options["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert wait == ["sleep", str(options["deadline_remaining_seconds"])]  # the pod stays while Ray makes use of it
    assert options["deadline_remaining_seconds"] < pod["terminationGracePeriodSeconds"]
    assert {**container, "lifecycle": None} == {**other, "lifecycle": None}


def ray_options(command: str, words: list[str]) -> Json:
    """What Ray's own command line makes of them; raises for what it does not know."""
    from ray.scripts.scripts import cli

    context = cli.commands[command].make_context(command, list(words))
    return dict(context.params)


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
        (volume,) = (one for one in template["spec"]["volumes"] if "persistentVolumeClaim" in one)
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (mount,) = (one for one in template["spec"]["containers"][0]["volumeMounts"] if one["name"] == volume["name"])
        assert config.run_dir.is_relative_to(mount["mountPath"])
