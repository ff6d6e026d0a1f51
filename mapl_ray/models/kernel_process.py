"""Runs `kernel_trial` in a separate process, with a time limit, an empty compiler cache, and the compilers' output."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mapl_ray.models.kernel_faults import fault_of
from mapl_ray.unfinished import scratch_folder

# Far more than two kernels take, as importing torch from a network file system may take minutes.
LIMIT_SECONDS = 300.0
STEP, RESULT = "step: ", "result: "  # prefixes of the lines that `kernel_trial` prints
_LATE = (
    "run it again; if it times out again, look for processes that keep the GPU or the CPUs busy (nvidia-smi, top), and "
    "set TORCHINDUCTOR_CACHE_DIR to a local disk"
)
_DIED = "check the node's log (dmesg) for Linux's out-of-memory killer or a fault of the GPU or its driver (Xid)"


@dataclass(frozen=True, slots=True)
class KernelNeeds:
    """What to test."""

    bf16: bool  # dtype: bfloat16 if True, else float32
    flex: bool  # whether to test FlexAttention too


@dataclass(frozen=True, slots=True)
class KernelTrial:
    """Result of a kernel test on one device."""

    host: str
    device: str  # such as "GPU 3 (NVIDIA H100 80GB HBM3)"
    seconds: float = 0.0
    error: str = ""  # one line; "" if all kernels passed
    cure: str = ""
    tried: bool = True


def tried_in_process(device: str, needs: KernelNeeds, seconds: float = LIMIT_SECONDS) -> KernelTrial:
    """Test the kernels on the first device of type `device` ("cuda", "cpu") that is visible to this process.

    Compiler caches are empty temporary folders inside the cache folders that training would use. Never raises: failures
    are in the result.
    """
    trial = KernelTrial(socket.gethostname(), _label(device))
    program = [sys.executable, "-P", "-m", "mapl_ray.models.kernel_trial"]  # -P: no imports from the current folder
    command = [*program, device, "bfloat16" if needs.bf16 else "float32", *(["flex"] if needs.flex else [])]
    began = time.monotonic()
    try:
        with scratch_folder("mapl-kernel") as folder, _empty_caches(needs) as caches:
            code = _run(command, caches, folder, seconds)
            out, log = ((folder / name).read_text("utf-8", errors="replace") for name in ("out", "err"))
    except OSError as error:
        line, cure = fault_of(f"{type(error).__name__}: {error}")
        return replace(trial, error=line, cure=cure)
    return _read(replace(trial, seconds=time.monotonic() - began), code, out, log, seconds)


def _label(device: str) -> str:
    if device != "cuda":
        return device.upper()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return f"GPU {visible.split(',')[0] or 0}"


@contextmanager
def _empty_caches(needs: KernelNeeds) -> Iterator[dict[str, str]]:
    """Yield environment variables for empty cache folders, inside the current cache folders. Raises `OSError`."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # importing torch takes seconds

    named = {"TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default_cache_dir()}
    if triton := os.environ.get("TRITON_CACHE_DIR"):  # the default is inside the other folder
        named["TRITON_CACHE_DIR"] = triton
    with ExitStack() as stack:
        folders = {}
        for name, value in named.items() if needs.flex else ():
            folder = Path(value).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            folders[name] = str(stack.enter_context(scratch_folder("mapl-kernel", folder)))
        yield folders


def _run(command: list[str], variables: dict[str, str], folder: Path, seconds: float) -> int | None:
    """Run the command and return its exit code; None if it timed out and was killed. Its output goes to the files `out`
    and `err`."""
    # One compile thread, as inductor's pool of compile processes takes seconds to start.
    environment = {**os.environ, **variables, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
        )
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.returncode is None:  # kill the whole session, which includes compilers
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _read(trial: KernelTrial, code: int | None, out: str, log: str, seconds: float) -> KernelTrial:
    """Complete the trial from the output of the process."""
    lines = out.splitlines()
    step = next((line.removeprefix(STEP) for line in reversed(lines) if line.startswith(STEP)), "start Python")
    result = next((line.removeprefix(RESULT) for line in lines if line.startswith(RESULT)), None)
    if code is None:
        return replace(trial, error=f"not finished after {seconds:g} s, in this step: {step}", cure=_LATE)
    if result is None:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = [line.strip() for line in log.splitlines() if line.strip()]
        fault = fault_of(said[-1] if said else "", log)
        cure = _DIED if code < 0 else fault.cure
        return replace(
            trial, error=f"ended with {how} in this step: {step}{f': {fault.line}' if said else ''}", cure=cure
        )
    found = json.loads(result)
    device = f"{trial.device} ({found['name']})" if found["name"] else trial.device
    if not found["error"]:
        return replace(trial, device=device)
    fault = fault_of(found["error"], log)
    return replace(trial, device=device, error=fault.line, cure=fault.cure)
