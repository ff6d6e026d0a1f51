"""Talk to a cluster's job server: connect only where it is safe, follow a job's log, list and stop jobs."""

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
# Ray lets these win over an address that is handed in, so a job could go to another cluster than the one named.
_OVERRIDING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
ANSWER_SECONDS = 10.0
WRONG_TOKEN = (
    "the cluster asks for a token, and the one here is missing or not its own. Set RAY_AUTH_MODE=token and "
    "RAY_AUTH_TOKEN_PATH to a file (mode 0600) that holds the cluster's token."
)
_RECONNECTS = 5
_SOCKET_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING = "0A"


def job_server(address: str | None) -> str:
    """The job server's URL (`http://host:port`); None and `auto` mean this machine's.

    Raises `UserError` for any scheme but http and https: Ray would import a module of the scheme's name.
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
            f"address {shown}: expected the dashboard's address, as in http://127.0.0.1:8265. "
            "A token does not belong in it: put it in a file named by RAY_AUTH_TOKEN_PATH."
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port or (443 if parts.scheme == 'https' else 8265)}"


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def on_this_machine(client: JobSubmissionClient, url: str) -> bool:
    """Whether the cluster's head runs here and sees the same files as this process.

    A loopback address is not enough: it may be the near end of a tunnel or of `kubectl port-forward`. So look
    for a process of the cluster's session among this machine's, in this process's mount namespace.
    """
    if not is_loopback(_host(url)):
        return False
    own = _mount_namespace("self")
    if own is None:  # No /proc to look at, as on macOS: loopback is all there is to go by.
        return True
    session = str(client._do_request("GET", "/api/version").json().get("session_name") or "")
    processes = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if session and session in _text(path)]
    return any(_mount_namespace(process.name) == own for process in processes)


def _mount_namespace(process: str) -> str | None:
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:  # Ended meanwhile, or another user's.
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def asks_for_token(url: str) -> bool:
    """Whether the job server turns away a request without a token.

    Raises `UserError` if nothing answers there.
    """
    # A proxy must not answer for a cluster on this machine.
    handlers = [urllib.request.ProxyHandler({})] if is_loopback(_host(url)) else []
    try:
        urllib.request.build_opener(*handlers).open(f"{url}/api/jobs/", timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return True
        raise UserError(
            f"{url}: answered {error.code} where a list of jobs was expected. Is this Ray's dashboard?"
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
    """Warnings to show about a cluster that asks for a token (`protected`) or does not.

    Raises `UserError` for a remote one that does not, unless `allow_unprotected`, and where the token would go over
    http to another machine, unless `allow_plain_http`, or to a process of another user of this one.
    """
    if not protected:
        if not is_loopback(_host(url)) and not allow_unprotected:
            raise UserError(
                f"{url}: this cluster runs anybody's code, for it asks for no token. Start it with "
                "RAY_AUTH_MODE=token (every file under cluster/ does), or pass --allow-unprotected if its network is "
                "closed to others."
            )
        return [f"{url} asks for no token: whoever reaches this port can run code there."]
    if is_loopback(_host(url)):
        check_listener(url, urlsplit(url).port or 0)
        return []
    if url.startswith("https://"):
        return []
    if not allow_plain_http:
        raise UserError(
            f"{url}: the cluster's token would go there over http, where it can be read on the way, and whoever "
            "answers in the cluster's place gets it. Use an ssh tunnel or `kubectl port-forward` and its address on "
            "this machine (cluster/README.md), or https; or pass --allow-plain-http on a network that you trust."
        )
    return [f"{url} is not encrypted, the token can be read on the way (--allow-plain-http)."]


def connect(
    address: str | None, *, allow_unprotected: bool = False, allow_plain_http: bool = False
) -> tuple[JobSubmissionClient, str, list[str]]:
    """A client of the job server, its URL, and warnings to show.

    Raises `UserError` as `check_protection` does, for a cluster that asks for a token when there is none or a wrong one
    here, and where nothing answers.
    """
    url = job_server(address)
    protected = asks_for_token(url)
    warnings = check_protection(
        url, protected=protected, allow_unprotected=allow_unprotected, allow_plain_http=allow_plain_http
    )
    with exactly_this_address():
        try:
            client = JobSubmissionClient(url)
            client.list_jobs()  # Building the client does not always show that a token is refused.
        except Exception as error:  # Ray raises RuntimeError, ConnectionError and AuthenticationError here.
            if not protected:
                raise UserError(f"{url}: {error}") from None
            raise UserError(f"{url}: {WRONG_TOKEN}") from None
    return client, url, warnings


@contextmanager
def exactly_this_address() -> Iterator[None]:
    """Hide the environment variables that would make Ray talk to another cluster than the one handed in."""
    kept = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def follow(client: JobSubmissionClient, job_id: str, write: Callable[[str], None]) -> int:
    """Hand the job's log to `write` as it grows, and return the exit code once the job has ended.

    0 succeeded; 2 the job called it the user's mistake; 1 any other failure; 130 stopped.
    Raises `RunError` if the cluster goes away meanwhile.
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
        except Exception as error:  # The socket, the HTTP request or the server's answer: each has its own type.
            failures += 1
            if failures > _RECONNECTS:
                raise RunError(f"job {job_id}: lost the cluster while following the log: {error}") from None
        time.sleep(1.0)


async def _tail(client: JobSubmissionClient, job_id: str, write: Callable[[str], None], written: int) -> int:
    """Every connection sends the log from its start: pass over the `written` characters that were shown before."""
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
    """User ids of the sockets that listen on a TCP port here; empty where the kernel does not say, as on macOS."""
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
    """Raise `UserError` where another user than this one and root listens: any user may take a free port, answer 401
    and wait for a token."""
    others = listeners(port) - {os.getuid(), 0}
    if others:
        raise UserError(
            f"{url}: the process that listens there is of another user (uid {min(others)}), and would be sent the "
            "cluster's token. Open a tunnel of your own on another port, or submit as that user."
        )
