"""`mapl doctor`: open ports and the token file. Real Ray is asked in tests/multihost/test_doctor.py."""

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, start_http_server

from mapl_ray.doctor import diagnose
from mapl_ray.doctor.ask import ask
from mapl_ray.doctor.endpoints import check_endpoints, endpoints, judge
from mapl_ray.doctor.other_users import check_session_folders, check_token_file

# --- what a stranger gets ---


@contextmanager
def http_server(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(("status", "answer"), [(401, "refuses"), (403, "refuses"), (200, "answers"), (404, "answers")])
def test_a_page(status: int, answer: str) -> None:
    with http_server(status) as port:
        assert ask("127.0.0.1", port) == answer
        assert ask("0.0.0.0", port) == answer  # it listens on every interface: asked on loopback


def test_numbers_for_prometheus() -> None:
    server, thread = start_http_server(0, addr="127.0.0.1", registry=CollectorRegistry())
    assert ask("127.0.0.1", server.server_port) == "metrics"
    server.shutdown()
    thread.join()


class Calls(grpc.GenericRpcHandler):
    """Ends every call of one service with one status, or well."""

    def __init__(self, service: str, code: grpc.StatusCode) -> None:
        self._service, self._code = service, code

    def service(self, call: Any) -> Any:
        if self._service not in call.method:
            return None  # UNIMPLEMENTED

        def reply(request: bytes, context: Any) -> bytes:
            if self._code is not grpc.StatusCode.OK:
                context.abort(self._code, "")
            return b""

        return grpc.unary_unary_rpc_method_handler(reply)


@pytest.mark.parametrize("service", ["NodeInfoGcsService", "NodeManagerService", "CoreWorkerService", "RayletDriver"])
@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "refuses"),
        (grpc.StatusCode.OK, "answers"),
        (grpc.StatusCode.INVALID_ARGUMENT, "answers"),  # it looked at what it was asked
        (grpc.StatusCode.UNIMPLEMENTED, "unknown"),
    ],
)
def test_a_call(service: str, code: grpc.StatusCode, answer: str) -> None:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Calls(service, code)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert ask("127.0.0.1", port) == answer
    server.stop(None)


def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, and not listening
        assert ask("127.0.0.1", held.getsockname()[1]) == "unknown"


# --- what follows ---

# (answers by process, host and port; RAY_AUTH_MODE; level; part of the detail)
JUDGED = [
    ({(1, "::", 6379): "refuses"}, None, "ok", "[::]:6379, open beyond this machine, requires a token"),
    ({(1, "::", 6379): "answers"}, "token", "fail", "[::]:6379 answers without a token"),
    ({(1, "0.0.0.0", 8265): "refuses", (2, "10.0.0.1", 8265): "answers"}, None, "fail", "10.0.0.1:8265 answers"),
    # The object manager's port tells nothing, its process's other one does.
    ({(1, "::", 40001): "refuses", (1, "::", 40002): "unknown"}, None, "ok", "[::]:40001, [::]:40002"),
    ({(1, "::", 40001): "refuses", (2, "::", 40002): "unknown"}, None, "fail", "[::]:40002 may not require a token"),
    ({(1, "::", 40002): "unknown"}, "token", "warn", "gave no answer"),
    ({(0, "::", 40001): "refuses", (0, "::", 40002): "unknown"}, None, "fail", "40002"),  # perhaps two processes
    ({(1, "::", 40001): "refuses", (1, "0.0.0.0", 40002): "metrics"}, None, "warn", "0.0.0.0:40002 serves metrics"),
    ({(n, "::", 10000 + n): "refuses" for n in range(1, 6)}, None, "ok", "[::]:10003 and 2 more"),
]


@pytest.mark.parametrize(("answers", "mode", "level", "detail"), JUDGED)
def test_the_finding(answers: Any, mode: str | None, level: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    finding = judge("raylet", answers)
    assert finding.level == level
    assert finding.detail.startswith("raylet: ")
    assert detail in finding.detail
    assert bool(finding.cure) is (level == "fail" or "metrics" in detail)


def test_a_port_of_rays_default_ones_is_looked_at_whoever_listens_there() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("0.0.0.0", 10001))
        except OSError:
            pytest.skip("port 10001 is taken")
        server.listen()
        assert any((one.host, one.port) == ("0.0.0.0", 10001) for one in endpoints())
        assert any(
            finding.level in ("warn", "fail") and "0.0.0.0:10001" in finding.detail for finding in check_endpoints()
        )


# --- token file ---


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o400, "ok"), (0o640, "fail"), (0o604, "fail")])
def test_the_token_file_is_its_owners_alone(
    mode: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-this-test")
    token.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    (finding,) = check_token_file()
    assert finding.level == level
    assert f"{mode:04o}" in finding.detail
    assert finding.cure == ("" if level == "ok" else f"chmod 600 {token}")
    assert "secret-of-this-test" not in finding.detail


def test_no_token_file_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert list(check_token_file()) == []


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [(0o755, 0o777, True), (0o1777, 0o777, True), (0o700, 0o777, False), (0o755, 0o755, False), (0o750, 0o777, False)],
)
def test_ray_sessions_that_others_can_change(outer: int, inner: int, expected: bool) -> None:
    with session_of_a_process(outer, inner) as session:
        findings = [one for one in check_session_folders() if str(session) in one.detail]
    assert [finding.level for finding in findings] == ["fail" if expected else "ok"]


@contextmanager
def session_of_a_process(outer: int, inner: int) -> Iterator[Path]:
    """A session folder with this mode, in a folder with the other, and a running process that names it."""
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which is private as a whole
        session = Path(name) / "outer" / "session"
        session.mkdir(parents=True)
        Path(name).chmod(0o755)
        session.parent.chmod(outer)
        session.chmod(inner)
        process = subprocess.Popen([sys.executable, "-c", "input()", f"--session_dir={session}"], stdin=subprocess.PIPE)
        try:
            yield session
        finally:
            process.kill()
            process.communicate()


def test_the_doctor_reports_an_open_token_file_and_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.touch()
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with session_of_a_process(0o755, 0o777) as session:
        failed = [finding.detail for finding in diagnose(None) if finding.level == "fail"]
    assert any(str(token) in detail for detail in failed)
    assert any(str(session) in detail for detail in failed)
