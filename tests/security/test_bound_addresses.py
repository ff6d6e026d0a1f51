"""Where data is not fetched from: other schemes, other machines' files, a cloud's own credentials."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from mapl_ray.config import DataConfig, parse_config
from mapl_ray.doctor import diagnose
from mapl_ray.errors import UserError
from mapl_ray.models import check_model_directory
from mapl_ray.preferences import Contamination, check_source

LINK_LOCAL = [
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662", "[::ffff:169.254.169.254]",
    "[fe80::1]", "[fd00:ec2::254]", "[fd20:ce::254]", "[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::1]",
    "100.100.100.200", "168.63.129.16", "metadata.google.internal", "METADATA", "metadata.google.internal.",
]  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        *((f"hdfs://{host}:80/latest/a.jsonl", "metadata service") for host in LINK_LOCAL),
        *((f"s3://b/a.jsonl?scheme=http&endpoint_override={host}", "metadata service") for host in LINK_LOCAL),
        ("s3://b/a.jsonl?endpoint_override=http://169.254.169.254:80", "metadata service"),
        ("s3://b/a.jsonl?endpoint_override=ok&endpoint_override=169.254.169.254", "metadata service"),
        ("s3://b/a.jsonl?endpoint%5Foverride=169%2E254.169.254", "metadata service"),
        ("http://169.254.169.254/latest/meta-data/a.jsonl", "http:// is not read"),
        ("https://host/a.jsonl", "https:// is not read"),
        ("ftp://host/a.jsonl", "ftp:// is not read"),
        ("gopher://host/a.jsonl", "gopher:// is not read"),
        ("data://text/a.jsonl", "data:// is not read"),
        ("zip://a.jsonl::file:///a.zip", "not a valid zip:// address"),
        ("simplecache://x/a.jsonl", "simplecache:// is not read"),
        ("FILE://host/etc/passwd", "takes no host"),
        ("file://localhost/etc/passwd", "takes no host"),
        ("file://169.254.169.254/share/a.jsonl", "takes no host"),
        ("file://..//a.jsonl", "takes no host"),
    ],
)
def test_addresses_that_are_not_read(uri: str, message: str) -> None:
    for source in (DataConfig(path=uri), parse_config({"data": {"mix": [{"path": uri}]}}, "test").data):
        with pytest.raises(UserError, match=message):
            check_source(source)
    with pytest.raises(UserError, match=message):
        Contamination.load(DataConfig(benchmarks=(uri,)))


@pytest.mark.parametrize(
    "path", ["file:/etc/passwd", "http:x", "//169.254.169.254/share/a.jsonl", "\\\\host\\share\\a.jsonl", "hf:x/y"]
)
def test_addresses_in_disguise_are_no_files(path: str) -> None:
    with pytest.raises(UserError, match=r"no such file or folder|unsupported kind of file"):
        check_source(DataConfig(path=path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http://169.254.169.254/model", "http:// is not read"),
        ("s3://bucket/model?endpoint_override=169.254.169.254", "metadata service"),
        ("file:///etc", "no safetensors there"),
    ],
)
def test_models_are_not_read_from_such_addresses(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_model_directory(name)
    for key in ("model.name_or_path", "scoring.judge.model", "scoring.pair_reward_model"):
        values: dict[str, object] = {}
        node = values
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})  # type: ignore[assignment]
        node[leaf] = name
        failed = [finding for finding in diagnose(parse_config(values, "test")) if finding.level == "fail"]
        assert any(name in finding.detail for finding in failed), key


def test_what_is_refused_is_not_asked(tmp_path: Path) -> None:
    """A listener where a refused address points: nobody comes."""
    called: list[object] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.5)

        def accept() -> None:
            with contextlib.suppress(TimeoutError):
                called.append(server.accept())

        listener = threading.Thread(target=accept)
        listener.start()
        for scheme in ("http", "ftp", "file"):
            with pytest.raises(UserError):
                check_source(DataConfig(path=f"{scheme}://127.0.0.1:{server.getsockname()[1]}/a.jsonl"))
        listener.join()
    assert called == []
