"""Hostile configs: tags, bombs, names that lead elsewhere, secrets."""

import os
import secrets
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.cli import main
from mapl_ray.config import RunConfig, load_config
from mapl_ray.distributed.jobs import job_client
from mapl_ray.distributed.jobs.submit import submit
from mapl_ray.distributed.runtime import ray_session
from mapl_ray.errors import UserError
from mapl_ray.private_files import cluster_token

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: !!python/object/apply:os.system ['touch CANARY']", "tag"),
        ("name: !!python/name:os.system", "tag"),
        ("name: !!python/object/new:subprocess.Popen [['touch', 'CANARY']]", "tag"),
        ("!!python/object/apply:os.system ['touch CANARY']: x", "tag"),
        ("name: !custom x", "tag"),
        ("name: !!str x", "tag"),  # harmless, and no config needs it
        ("seed: 1\nseed: 2", "the key 'seed' occurs twice"),
        ("train:\n  beta: 1\n  zero_stage: 1\n  beta: 2", "the key 'beta' occurs twice"),
        ("train: {beta: 1, beta: 2}", "occurs twice"),
        ("data: &d {path: a}\nsynthesis: *d", "anchors and aliases"),
        ("train: {<<: {beta: 1}, beta: 2}", "merge keys"),
        (BOMB, "anchors and aliases"),
        ("[" * 5000, "nested deeper"),
        ("a: " * 50 + "x", "not a readable YAML"),
        ("seed: " + "9" * 5000, "not a readable YAML"),
        ("seed: 2001-13-45", "seed='2001-13-45': .*valid integer"),
        ("? [a, b]\n: c", "not a readable YAML|unknown key|keyword"),
        ("name: x\n---\nname: y", "not a readable YAML"),
        ("name: " + "x" * 2**20, "larger than"),
        ("name: \x01", "not a readable YAML"),
        ("name: ../../x", "expected letters"),
        ("name: /etc/x", "expected letters"),
        ('name: "x\\n"', "control character"),
        ('name: "x\\0"', "control character"),
        ("name: ..", "expected letters"),
        ("name: -rf", "expected letters"),
        ("name: $(touch CANARY)", "expected letters"),
        ("data_run: ../other", "expected letters"),
        ("output_dir: s3://bucket/runs", "not a URI"),
        ("output_dir: ''", "got an empty text"),
        ('output_dir: "runs\\e[2J"', "control character"),
        ('data: {path: "a\\r\\nb.jsonl"}', "data.path contains a control character"),
    ],
)
def test_a_hostile_file(text: str, message: str, canary: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text.replace("CANARY", str(canary.path)))
    started = time.monotonic()
    with pytest.raises(UserError, match=message):
        load_config(path)
    # An override of a text is that text, quotes and backslashes included.
    if "\n" not in text and ": " in text and not text.startswith(("?", "a: ", "output_dir: '", 'output_dir: "')):
        key, _, value = text.partition(": ")
        with pytest.raises(UserError):
            load_config(None, [f"{key}={value.replace('CANARY', str(canary.path))}"])
    assert time.monotonic() - started < 5.0  # no bomb went off


def test_a_link_does_not_lead_out_of_the_storage_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "runs", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "mine").symlink_to(outside)
    config = RunConfig(output_dir=str(root), name="mine")
    with pytest.raises(UserError, match=r"is a link to .*outside output_dir"):
        _ = config.run_dir
    with pytest.raises(UserError, match="is a link to"):
        _ = RunConfig(output_dir=str(root), data_run="mine").data_dir
    assert main(["report", f"output_dir={root}", "name=mine"]) == 2
    assert list(outside.iterdir()) == []
    # The root itself may be a link: that is its owner's word.
    (tmp_path / "link").symlink_to(root)
    assert RunConfig(output_dir=str(tmp_path / "link"), name="other").run_dir == root / "other"


@pytest.mark.parametrize(
    "override",
    [
        "data.path=s3://AKIA:{secret}@bucket/a.jsonl",
        "data.path=s3://AKIA:ab/{secret}@bucket/a.jsonl",
        "data.mix=[{{path: 's3://AKIA:{secret}@bucket/a.jsonl'}}]",
        "data.benchmarks=['https://user:{secret}@host/a.txt']",
        "scoring.reward_model=https://user:{secret}@host/model",
        "train.deepspeed_config={{wandb: {{url: 'https://user:{secret}@host'}}}}",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = secrets.token_hex(8)
    assert main(["synthesize", override.format(secret=secret), "--print-config"]) == 2
    shown = capsys.readouterr()
    assert "a password in an address" in shown.err
    assert secret not in shown.err + shown.out


def test_addresses_that_hold_no_password_pass() -> None:
    for path in ("hdfs://host:8020/a@b.jsonl", "s3://bucket/a:b@c.jsonl", "s3://bucket?endpoint_override=h:1@2"):
        assert load_config(None, [f"data.path={path}"]).data.path == path


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "aws_key_id"])
def test_submit_sends_no_secret_of_the_environment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv(name, secret)
    config = tmp_path / "run.yaml"
    config.write_text("name: x\n")
    command = ["submit", "synthesize", "--address", "http://127.0.0.1:1", "--config", str(config)]
    assert main([*command, f"model.revision={secret}"]) == 2
    said = capsys.readouterr().err
    assert f"an override holds the value of {name}" in said
    config.write_text(f"name: x  # {secret}\n")
    assert main(command) == 2
    said += capsys.readouterr().err
    assert f"run.yaml holds the value of {name}" in said
    assert secret not in said
    config.write_text("name: x\n")
    with pytest.raises(UserError, match="no Ray job server answers"):  # nothing to refuse: it is tried
        submit(config, ["synthesize"], "http://127.0.0.1:1")


def test_a_token_in_an_address_is_not_shown() -> None:
    with pytest.raises(UserError, match="expected the dashboard's address") as caught:
        job_client.job_server("http://user:hunter2@host:8265")
    assert "hunter2" not in str(caught.value)


def test_the_token_that_we_make_is_its_owners_alone_and_this_clusters_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with cluster_token(tmp_path) as one, cluster_token(tmp_path) as other:
            for path in (one, other):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert len(path.read_text()) == 64
            assert one.read_text() != other.read_text()
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_a_killed_process_left_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    (tmp_path / "token-left").write_text("a")
    with cluster_token(tmp_path) as living:
        with cluster_token(tmp_path):
            assert not (tmp_path / "token-left").exists()
        assert living.is_file()


@pytest.mark.parametrize("name", ["RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE"])
def test_rays_switches_to_unpickle_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match=f"{name}=1: .*Unset it"), ray_session(RunConfig().cluster):
        pass
