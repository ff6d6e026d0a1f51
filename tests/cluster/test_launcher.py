"""The Ray cluster launcher's file, by Ray's own validator; nothing is started."""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

Json = dict[str, Any]


@pytest.fixture(scope="module")
def launcher(root: Path) -> Json:
    return yaml.safe_load((root / "cluster" / "ray-launcher.yaml").read_text(encoding="utf-8"))


def test_ray_takes_it(launcher: Json) -> None:
    prepared = prepare_config(copy.deepcopy(launcher))
    validate_config(prepared)
    node_type = prepared["available_node_types"][prepared["head_node_type"]]
    assert node_type["min_workers"] == len(launcher["provider"]["worker_ips"])  # every machine joins
    assert prepared["head_start_ray_commands"] == launcher["head_start_ray_commands"]  # not Ray's open defaults


def test_a_misspelt_field_would_be_found(launcher: Json) -> None:
    broken = prepare_config({**copy.deepcopy(launcher), "head_start_commands": []})
    with pytest.raises(jsonschema.ValidationError, match="'head_start_commands' was unexpected"):
        validate_config(broken)


def test_every_ray_start_asks_for_a_token_and_keeps_the_dashboard_to_itself(launcher: Json) -> None:
    commands = launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]
    starts = [command for command in commands if re.search(r"\bray start\b", command)]
    assert len(starts) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ") for command in starts)
    (head,) = (command for command in starts if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in head
    assert not any("0.0.0.0" in command for command in commands)


def test_the_token_travels_as_a_file_that_only_its_owner_reads(launcher: Json) -> None:
    assert launcher["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}  # where Ray looks for it
    assert "chmod 600 ~/.ray/auth_token" in launcher["setup_commands"]
    assert launcher["auth"]["ssh_user"] != "root"
