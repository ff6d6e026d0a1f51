"""`mapl doctor`: open ports and the token file."""

from pathlib import Path

import pytest

from mapl_ray import doctor_checks

# Listening: 0.0.0.0:8265 (0x2049), 127.0.0.1:6379 (0x18EB), 192.168.1.5:10001 (0x2711). The fourth is a connection,
# not a listener (state 01), the fifth listens on a port that is not Ray's (0x1F90 = 8080).
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:2049 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 100 0 0 10 0
   2: 0501A8C0:2711 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 100 0 0 10 0
   3: 0501A8C0:18EB 0601A8C0:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4 1 0 100 0 0 10 0
   4: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 5 1 0 100 0 0 10 0
"""
# [::]:6379, [::1]:8265 and [::ffff:127.0.0.1]:10001, in the kernel's words of four bytes.
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:18EB 00000000000000000000000000000000:0000 0A 0 0 0
   1: 00000000000000000000000001000000:2049 00000000000000000000000000000000:0000 0A 0 0 0
   2: 0000000000000000FFFF00000100007F:2711 00000000000000000000000000000000:0000 0A 0 0 0
"""


def test_listening_sockets_are_read_from_proc_net_tcp() -> None:
    expected = [("0.0.0.0", 8265), ("127.0.0.1", 6379), ("192.168.1.5", 10001), ("0.0.0.0", 8080)]
    assert list(doctor_checks.listening(TCP)) == expected
    assert [port for _, port in doctor_checks.listening(TCP6)] == [6379, 8265, 10001]
    assert list(doctor_checks.listening("header only\n")) == []


def test_only_rays_ports_beyond_loopback_are_exposed() -> None:
    assert doctor_checks.exposed(doctor_checks.listening(TCP)) == [("0.0.0.0", 8265), ("192.168.1.5", 10001)]
    assert doctor_checks.exposed(doctor_checks.listening(TCP6)) == [("::", 6379)]


def test_an_open_port_without_a_token_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "listening", lambda table: iter([("0.0.0.0", 6379)]))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    (finding,) = doctor_checks.check_endpoints()
    assert finding.level == "fail"
    assert "GCS listens on 0.0.0.0:6379" in finding.detail
    assert "RAY_AUTH_MODE=token" in finding.cure
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (finding,) = doctor_checks.check_endpoints()
    assert finding.level == "warn"  # not proved: said, and not called well


# --- token file ---


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o400, "ok"), (0o640, "fail"), (0o604, "fail")])
def test_the_token_file_is_its_owners_alone(
    mode: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-this-test")
    token.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    (finding,) = doctor_checks.check_token_file()
    assert finding.level == level
    assert f"{mode:04o}" in finding.detail
    assert finding.cure == ("" if level == "ok" else f"chmod 600 {token}")
    assert "secret-of-this-test" not in finding.detail


def test_no_token_file_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert list(doctor_checks.check_token_file()) == []
