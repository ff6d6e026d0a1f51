"""The Ray cluster launcher's file, by Ray's own validator; nothing is started."""

import copy
import json
import os
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli

Json = dict[str, Any]


FILES = ("ray-launcher.yaml", "ray-launcher-aws.yaml")


def read(root: Path, name: str) -> Json:
    return yaml.safe_load((root / "cluster" / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=FILES)
def launcher(root: Path, request: pytest.FixtureRequest) -> Json:
    return read(root, request.param)


def test_ray_takes_the_one_of_machines_that_exist(root: Path) -> None:
    launcher = read(root, FILES[0])
    prepared = prepare_config(copy.deepcopy(launcher))
    validate_config(prepared)
    node_type = prepared["available_node_types"][prepared["head_node_type"]]
    assert node_type["min_workers"] == len(launcher["provider"]["worker_ips"])  # every machine joins
    assert prepared["head_start_ray_commands"] == launcher["head_start_ray_commands"]  # not Ray's open defaults


def test_on_aws_workers_are_spot_and_the_head_is_not(root: Path) -> None:
    launcher = read(root, FILES[1])
    prepared = prepare_config(copy.deepcopy(launcher))
    validate_config(prepared)
    types = prepared["available_node_types"]
    market = {name: one["node_config"].get("InstanceMarketOptions") for name, one in types.items()}
    assert market == {"head": None, "gpu-on-demand": None, "gpu-spot": {"MarketType": "spot"}}
    assert prepared["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu-on-demand"]["min_workers"] == 1
    assert types["gpu-spot"]["min_workers"] == 0 < types["gpu-spot"]["max_workers"]
    assert sum(one["max_workers"] for one in types.values()) == prepared["max_workers"]
    assert prepared["provider"]["cache_stopped_nodes"] is False  # a spot machine can't be stopped and kept


def test_on_aws_the_head_has_a_small_role_and_workers_have_none(root: Path) -> None:
    launcher = read(root, FILES[1])
    nodes = {name: one["node_config"] for name, one in launcher["available_node_types"].items()}
    # Ray gives a head without a profile full access to EC2 and S3.
    assert {name: "IamInstanceProfile" in node for name, node in nodes.items()} == {
        "head": True, "gpu-on-demand": False, "gpu-spot": False,
    }  # fmt: skip
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert all(node["MetadataOptions"] == options for node in nodes.values())
    cluster = launcher["cluster_name"]
    assert launcher["provider"]["key_pair"] == {"key_name": cluster}
    ranges = [
        one["CidrIp"] for rule in launcher["provider"]["security_group"]["IpPermissions"] for one in rule["IpRanges"]
    ]
    assert ranges
    assert all(one.endswith("/32") for one in ranges)


def test_the_heads_role_may_touch_this_cluster_alone(root: Path) -> None:
    policy = json.loads((root / "cluster" / "aws-head-policy.json").read_text(encoding="utf-8"))
    cluster = read(root, FILES[1])["cluster_name"]
    for statement in policy["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert statement["Effect"] == "Allow"
        assert all(re.fullmatch(r"ec2:[A-Z][A-Za-z]+", action) for action in actions)  # no wildcard, no other service
        if all(action.startswith("ec2:Describe") for action in actions):
            continue
        assert statement["Resource"] != "*"
        if any("instance/" in one for one in [statement["Resource"], *statement["Resource"]]):
            tags = statement["Condition"]["StringEquals"]
            assert tags in (
                {"aws:RequestTag/ray-cluster-name": cluster},
                {"aws:ResourceTag/ray-cluster-name": cluster},
                {"ec2:CreateAction": "RunInstances"},
            )


class Metadata(BaseHTTPRequestHandler):
    """AWS's metadata service, version 2, as a worker's machine sees it: no notice until there is one."""

    notice = False
    asked = 0

    def do_PUT(self) -> None:
        self.answer(200 if self.path == "/latest/api/token" else 404, b"a-token")

    def do_GET(self) -> None:
        type(self).asked += 1
        told = self.headers["X-aws-ec2-metadata-token"] == "a-token" and type(self).notice
        there = told and self.path == "/latest/meta-data/spot/instance-action"
        self.answer(200 if there else 404, b'{"action": "terminate"}')

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_spot_notice_is_passed_on_to_ray_once(root: Path, tmp_path: Path) -> None:
    (tmp_path / "ray").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    (tmp_path / "ray").chmod(0o755)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "METADATA_URL": f"http://127.0.0.1:{server.server_port}",
        "METADATA_SECONDS": "0.1",
    }
    watch = subprocess.Popen(["sh", root / "cluster" / "spot-notice.sh"], env=environment)
    try:
        deadline = time.monotonic() + 20
        while Metadata.asked < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert watch.poll() is None
        assert not (tmp_path / "told").exists()  # nothing is said before there is a notice
        Metadata.notice = True
        assert watch.wait(timeout=20) == 0
    finally:
        watch.kill()
        server.shutdown()
    (line,) = (tmp_path / "told").read_text().splitlines()
    command, *words = line.split()
    options = cli.commands[command].make_context(command, words).params  # Ray's own reading of it
    assert options["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert 60 <= options["deadline_remaining_seconds"] < 120


def test_a_misspelt_field_would_be_found(launcher: Json) -> None:
    broken = prepare_config({**copy.deepcopy(launcher), "head_start_commands": []})
    with pytest.raises(jsonschema.ValidationError, match="'head_start_commands' was unexpected"):
        validate_config(broken)


def test_every_ray_start_asks_for_a_token_and_keeps_the_dashboard_to_itself(launcher: Json) -> None:
    commands = launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]
    starts = [command for command in commands if re.search(r"\bray start\b", command)]
    assert len(starts) == 2
    token = f"RAY_AUTH_TOKEN_PATH=$HOME/.ray/{launcher['cluster_name']}/auth_token"
    assert all(f" RAY_AUTH_MODE=token {token} " in command for command in starts)
    # Nobody else may enter the folder that Ray opens to everybody, nor guess its name.
    assert all(
        command.startswith("SESSION=$(mktemp -d /tmp/mapl-XXXXXXXXXX) && RAY_TMPDIR=$SESSION ") for command in starts
    )
    assert all("--temp-dir=$SESSION/ray" in command for command in starts)
    # Ports for Prometheus ask for no token.
    assert all(" RAY_enable_metrics_collection=false " in command for command in starts)
    (head,) = (command for command in starts if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in head
    # The autoscaler's and the dashboard's ports are not covered by that switch; Ray starts no server on port -1.
    assert " AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1 " in head
    assert not any("0.0.0.0" in command for command in commands)


def test_the_token_travels_as_a_file_that_only_its_owner_reads(launcher: Json) -> None:
    file = f"~/.ray/{launcher['cluster_name']}/auth_token"  # this cluster's alone
    assert launcher["file_mounts"] == {file: file}
    assert f"chmod 600 {file}" in launcher["setup_commands"]
    assert launcher["auth"]["ssh_user"] != "root"
