"""One run at a time: who holds a lease, and when it is taken over. Owners are real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mapl_ray import lease as leases
from mapl_ray.errors import UserError
from mapl_ray.lease import Owner, lease, lease_path

HOLD = """
import sys
from pathlib import Path
from mapl_ray.lease import lease
with lease(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from mapl_ray.lease import lease
counter = Path(sys.argv[2])
for _ in range(20):
    with lease(Path(sys.argv[1]), patience_seconds=300):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return lease_path(tmp_path / "run", "rm")


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def take(path: Path) -> None:
    with lease(path):
        assert json.loads(path.read_text())["process"] == os.getpid()


def test_a_held_lease_is_refused_and_names_its_owner(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(UserError, match=rf"run: another run of rm is at work there \(process {holder.pid} on"):
        take(path)
    holder.communicate("")
    assert not path.exists()
    take(path)
    assert not path.parent.parent.exists()  # nothing is left of a run that has written nothing


def test_within_one_process_too(path: Path) -> None:
    with lease(path), pytest.raises(UserError, match="at work there"):
        take(path)
    take(path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lease_of_a_dead_process_is_taken_over_at_once(
    path: Path, holder: subprocess.Popen[str], how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    holder.send_signal(how)
    while Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)  # not waited for: a process that has ended and is still in the table
    assert path.exists()
    take(path)
    assert f"rm taken over from a run that is gone (process {holder.pid} on" in capsys.readouterr().out


def elsewhere(path: Path, **changes: str) -> Owner:
    """A lease of an owner that can't be looked up from here."""
    owner = replace(Owner.this_process(), host="node7", **({"boot": "another"} | changes))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(owner)))
    return owner


@pytest.mark.parametrize("changes", [{"boot": "another"}, {"boot": ""}, {"processes": "pid:[1]"}])
def test_another_hosts_lease_is_taken_over_when_it_is_too_old(path: Path, changes: dict[str, str]) -> None:
    elsewhere(path, **changes)
    old = time.time() - leases.GONE_SECONDS - 1
    os.utime(path, (old, old))
    take(path)


def test_another_hosts_lease_that_is_refreshed_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_LOOK_SECONDS", 0.05)
    elsewhere(path)
    done = threading.Event()

    def refresh() -> None:
        while not done.wait(0.02):
            os.utime(path)

    thread = threading.Thread(target=refresh)
    thread.start()
    try:
        with pytest.raises(UserError, match="on node7"):
            take(path)
    finally:
        done.set()
        thread.join()


def test_a_number_that_is_used_again_is_no_owner(path: Path) -> None:
    owner = replace(Owner.this_process(), started="1")  # as after a wrap of process ids
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(owner)))
    take(path)


def test_a_damaged_lease_is_named_and_removed_when_nobody_refreshes_it(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff{}")
    with pytest.raises(UserError, match=r"rm.json: a damaged lease. If no run works on .*run, try again in 90 s"):
        take(path)
    os.utime(path, (time.time() - leases.GONE_SECONDS - 1,) * 2)
    take(path)


def test_an_owner_that_was_taken_for_dead_ends(path: Path) -> None:
    code = HOLD.replace("with lease", "import mapl_ray.lease\nmapl_ray.lease.BEAT_SECONDS = 0.1\nwith lease")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not path.exists():
        time.sleep(0.05)
    elsewhere(path)
    assert process.stderr is not None
    assert "taken over by another run (process" in process.stderr.read()
    assert process.wait(30) == 1
    assert json.loads(path.read_text())["host"] == "node7"  # and leaves the other's lease


def test_many_at_once_take_turns(path: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(path), str(counter)]
    processes = [subprocess.Popen(command) for _ in "abc"]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "60"


def test_an_owner_refreshes_its_lease_and_makes_a_lost_one_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run on another host would take it for dead after `GONE_SECONDS`."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    with lease(path):
        os.utime(path, (1.0, 1.0))
        deadline = time.monotonic() + 30
        while path.stat().st_mtime == 1.0:
            assert time.monotonic() < deadline, "not refreshed"
            time.sleep(0.01)
        path.unlink()
        while not path.exists():
            assert time.monotonic() < deadline, "not made again"
            time.sleep(0.01)
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()
