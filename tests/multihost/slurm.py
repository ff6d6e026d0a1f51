"""`cluster/slurm.sh` on two hosts: it runs on one, its step on the other, and it stays up to be looked at."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.multihost.cluster import PYTHON
from tests.multihost.host import ROOT, Host

_SMALL = ("--num-cpus=1", "--object-store-memory=80000000")
# In srun's place: hands its step, words and environment, to this process, which starts it on the other host.
_SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
env -0 >"$STEPS/environment"
printf '%s\\0' "$@" >"$STEPS/aside" && mv "$STEPS/aside" "$STEPS/step"
trap 'touch "$STEPS/stop"; exit 143' TERM
while :; do sleep 0.2 & wait $!; done
"""
# In the command's place: the command, and then what keeps the cluster until it is no longer wanted.
_MAPL = """#!/usr/bin/env bash
"$PYTHON" -m mapl_ray.cli "$@"
code=$?
touch "$STEPS/done"
while [ ! -e "$STEPS/end" ]; do sleep 0.2; done
exit $code
"""


@contextmanager
def slurm_job(hosts: Sequence[Host], folder: Path, words: Sequence[str]) -> Iterator[Path]:
    """Run a `mapl` command by the script on two hosts; yields the job's log once the command is over, the cluster up.

    Raises if the script ends otherwise than well.
    """
    tools, log = folder / "bin", folder / "job.log"
    tools.mkdir()
    for name, text in (("srun", _SRUN), ("mapl", _MAPL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {
        "PATH": f"{tools}:{PYTHON.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHON": str(PYTHON),
        "STEPS": str(folder),
        "SLURM_JOB_ID": f"hosts{hosts[0].init}",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURMD_NODENAME": hosts[0].name,
        "MAPL_TOKEN_ROOT": str(folder),
        "MAPL_RAY_HEAD_OPTIONS": " ".join(_SMALL),
    }
    job = hosts[0].start([ROOT / "cluster" / "slurm.sh", *words], log, environment)
    step: subprocess.Popen[bytes] | None = None
    try:
        _wait_for(folder / "step", job, log)
        told = dict(pair.split("=", 1) for pair in (folder / "environment").read_text().split("\0") if "=" in pair)
        ray = {name: value for name, value in told.items() if "RAY" in name or "METRIC" in name}
        command = (folder / "step").read_text().rstrip("\0").split("\0")
        step = hosts[1].start([*command, *_SMALL], folder / "step.log", {**ray, "PATH": environment["PATH"]})
        _wait_for(folder / "done", job, log)
        yield log
        (folder / "end").touch()
        _wait_for(folder / "stop", job, log)
        step.terminate()
        if (code := job.wait(timeout=60)) != 0:
            raise RuntimeError(f"the job ended with {code}:\n{log.read_text()[-3000:]}")
    finally:
        for process in (job, step):
            if process is not None:
                process.terminate()
                process.wait(timeout=60)


def _wait_for(path: Path, job: subprocess.Popen[bytes], log: Path, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if job.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no {path.name} of the job:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)
