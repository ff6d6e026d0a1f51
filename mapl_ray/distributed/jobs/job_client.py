"""Client of a cluster's job server: connect only if it is safe, and follow a job's log."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ray.job_submission import JobStatus, JobSubmissionClient

from mapl_ray.addresses import is_loopback
from mapl_ray.errors import RunError, UserError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TERMINAL = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
# In Ray these override the address argument, so a job could go to a cluster other than the one named.
_OVERRIDING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
ANSWER_SECONDS = 10.0
WRONG_TOKEN = (
    "the cluster requires a token, and the local one is missing or wrong. Set RAY_AUTH_MODE=token and "
    "RAY_AUTH_TOKEN_PATH to a file (mode 0600) that holds the cluster's token."
)
_RECONNECTS = 5
_SOCKET_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING = "0A"


def job_server(address: str | None) -> str:
    """The job server's URL (`http://host:port`); None and `auto` mean this machine.

    Raises `UserError` for any scheme but http and https: Ray would import a module named after the scheme.
    """
    if address in (None, "auto"):
        return DEFAULT_ADDRESS
    assert address is not None
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.path.strip("/") or parts.query:
        shown = "(not shown: it may hold a password)" if "@" in address else repr(address)
        raise UserError(
            f"address {shown}: expected the dashboard's address, such as http://127.0.0.1:8265. "
            "Don't put a token in it: save the token in a file and set RAY_AUTH_TOKEN_PATH to its path."
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port or (443 if parts.scheme == 'https' else 8265)}"


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def on_this_machine(client: JobSubmissionClient, url: str) -> bool:
    """Whether the cluster's head runs here and sees the same files as this process.

    A loopback address is not enough: it may be the local end of a tunnel or of `kubectl port-forward`. So look
    on this machine for a process of the cluster's session in this process's mount namespace.
    """
    if not is_loopback(_host(url)):
        return False
    own = _mount_namespace("self")
    if own is None:  # Without /proc, as on macOS, only the loopback address can be checked.
        return True
    session = str(client._do_request("GET", "/api/version").json().get("session_name") or "")
    processes = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if session and session in _text(path)]
    return any(_mount_namespace(process.name) == own for process in processes)


def _mount_namespace(process: str) -> str | None:
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:  # It has ended, or belongs to another user.
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def asks_for_token(url: str) -> bool:
    """Whether the job server rejects a request without a token.

    Raises `UserError` if no job server answers at `url`.
    """
    # A proxy must not answer for a cluster on this machine.
    handlers = [urllib.request.ProxyHandler({})] if is_loopback(_host(url)) else []
    try:
        urllib.request.build_opener(*handlers).open(f"{url}/api/jobs/", timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return True
        raise UserError(
            f"{url}: answered {error.code}; expected a list of jobs. Check that this is the address of Ray's dashboard."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{url}: no Ray job server answers ({error}). Start one with `ray start --head`, or open a tunnel to "
            "the cluster's port 8265 (cluster/README.md)."
        ) from None
    return False


def check_protection(
    url: str, *, protected: bool, allow_unprotected: bool, allow_plain_http: bool = False
) -> list[str]:
    """Check that the cluster is safe to use; return warnings to show. `protected`: whether it requires a token.

    Raises `UserError` for a remote cluster that requires no token, unless `allow_unprotected`; if the token would be
    sent over http to another machine, unless `allow_plain_http`; and if a process of another user would receive it.
    """
    if not protected:
        if not is_loopback(_host(url)) and not allow_unprotected:
            raise UserError(
                f"{url}: this cluster requires no token, so anyone can run code on it. Start it with "
                "RAY_AUTH_MODE=token (every file under cluster/ does), or pass --allow-unprotected if its network is "
                "closed to others."
            )
        return [f"{url} requires no token: anyone who can reach this port can run code there."]
    if is_loopback(_host(url)):
        check_listener(url, urlsplit(url).port or 0)
        return []
    if url.startswith("https://"):
        return []
    if not allow_plain_http:
        raise UserError(
            f"{url}: the cluster's token would be sent over http, where others can read it or impersonate the "
            "cluster to get it. Use an ssh tunnel or `kubectl port-forward` and its address on this machine "
            "(cluster/README.md), or https; or pass --allow-plain-http on a network that you trust."
        )
    return [f"{url} is not encrypted, others can read the token (--allow-plain-http)."]


def connect(
    address: str | None, *, allow_unprotected: bool = False, allow_plain_http: bool = False
) -> tuple[JobSubmissionClient, str, list[str]]:
    """Connect to the job server; returns the client, the URL, and warnings to show.

    Raises `UserError` like `check_protection`, if the cluster requires a token and the local one is missing or wrong,
    and if no job server answers.
    """
    url = job_server(address)
    protected = asks_for_token(url)
    warnings = check_protection(
        url, protected=protected, allow_unprotected=allow_unprotected, allow_plain_http=allow_plain_http
    )
    with exactly_this_address():
        try:
            client = JobSubmissionClient(url)
            client.list_jobs()  # Creating the client does not always fail for a wrong token.
        except Exception as error:  # Ray raises RuntimeError, ConnectionError and AuthenticationError here.
            if not protected:
                raise UserError(f"{url}: {error}") from None
            raise UserError(f"{url}: {WRONG_TOKEN}") from None
    return client, url, warnings


@contextmanager
def exactly_this_address() -> Iterator[None]:
    """Hide the environment variables that would make Ray use a cluster other than the one given."""
    kept = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def follow(client: JobSubmissionClient, job_id: str, write: Callable[[str], None]) -> int:
    """Pass the job's log to `write` as it grows, and return the exit code once the job has ended.

    0 succeeded; 2 the job reports a user's mistake; 1 any other failure; 130 stopped.
    Raises `RunError` if the connection to the cluster is lost.
    """
    written = 0
    failures = 0
    while True:
        try:
            written = asyncio.run(_tail(client, job_id, write, written))
            status = client.get_job_status(job_id)
            if status in TERMINAL:
                return exit_code(client, job_id)
            failures = 0
        except Exception as error:  # Socket, HTTP request and server response raise different types.
            failures += 1
            if failures > _RECONNECTS:
                raise RunError(f"job {job_id}: lost the cluster while following the log: {error}") from None
        time.sleep(1.0)


async def _tail(client: JobSubmissionClient, job_id: str, write: Callable[[str], None], written: int) -> int:
    """Write new log text; returns the number of characters written in all. Every connection sends the log from its
    start, so the first `written` characters are skipped."""
    seen = 0
    async for text in client.tail_job_logs(job_id):
        new = text[max(0, written - seen) :]
        seen += len(text)
        if new:
            write(new)
            written = seen
    return written


def exit_code(client: JobSubmissionClient, job_id: str) -> int:
    """The exit code of a job that has ended."""
    details = client.get_job_info(job_id)
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return 130
    return details.driver_exit_code if details.driver_exit_code in (2, 130) else 1


def listeners(port: int) -> set[int]:
    """User ids of the sockets that listen on a local TCP port; empty without /proc, as on macOS."""
    found = set()
    for table in _SOCKET_TABLES:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except (OSError, ValueError):
            continue
        for line in lines:
            fields = line.split()
            local, state, user = fields[1], fields[3], fields[7]
            if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                found.add(int(user))
    return found


def check_listener(url: str, port: int) -> None:
    """Raise `UserError` if a user other than this one or root listens on the port: any user may take a free port,
    answer 401 and wait for a token."""
    others = listeners(port) - {os.getuid(), 0}
    if others:
        raise UserError(
            f"{url}: the process that listens there belongs to another user (uid {min(others)}), who would receive the "
            "cluster's token. Open your own tunnel on another port, or submit as that user."
        )
