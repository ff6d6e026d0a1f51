"""Diagnosis of kernels that can't be compiled or run: one line from the error's text, and what to do about it."""

from __future__ import annotations

import re
from typing import NamedTuple

_CACHE = (
    "set TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR, on every node, to folders on a local disk that Ray's user can "
    "write to and that is not mounted noexec"
)
_COMPILER = "install gcc and g++ on every node, or set others with CC and CXX (Debian: apt-get install build-essential)"
_DRIVER = "update the node's NVIDIA driver, or install a torch build for the CUDA version of this driver"
# Patterns in the message, tried in this order, ignoring case, with the remedy for each.
_CURES = (
    (
        r"Python\.h",
        "install the headers of Ray's Python (Debian: python3-dev), or use a Python that includes them",
    ),
    (
        r"not compiled with CUDA",
        "the node has the CPU build of torch: install the GPU stack there (.ci/install .venv gpu)",
    ),
    (r"driver on your system is too old|driver version is insufficient|unsupported toolchain", _DRIVER),
    (r"no kernel image|not compatible with the current PyTorch", "install a torch that is built for this GPU"),
    (
        r"no NVIDIA driver|No CUDA GPUs are available|CUDA driver initialization failed",
        "run nvidia-smi on that node; a container needs the NVIDIA runtime, and CUDA_VISIBLE_DEVICES must name a GPU",
    ),
    (
        r"-lcuda\b|libcuda\.so",
        "let the linker find the driver's libcuda.so; a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    ),
    (r"no bfloat16", "set train.bf16=false and model.dtype=float32, or use other GPUs (A100, L4, H100 and later)"),
    (r"triton installation|No module named 'triton'", "install triton with torch (.ci/install .venv gpu)"),
    (r"No space left|Disk quota exceeded", f"free space in the compiler's cache folder, or {_CACHE}"),
    (r"Permission denied|Read-only file system|Not a directory|File exists|failed to map segment", _CACHE),
    (r"C compiler|C\+\+ compiler|C\+\+ compile error|No such file or directory: '[^']*(cc|\+\+|clang)'", _COMPILER),
    (r"returned non-zero exit status", f"the compiler failed: see its message above; {_COMPILER}"),
    (r"out of memory", "free the GPU's memory: nvidia-smi on that node lists the processes that use it"),
    (
        r"is off by",
        "do not train on this GPU before the cause is known: run diagnostics (dcgmi diag), update the driver",
    ),
)
_OTHER = "set train.attention=varlen or train.attention=branches, which need no compiler"
_OF_A_COMPILER = re.compile(r"\berror: |cannot find -l")
_OF_TORCH = re.compile(r"backend='\w+' raised:$")  # the actual error is in the next line
_LONGEST = 300  # characters of a line


class Fault(NamedTuple):
    """The cause as one line, and the remedy."""

    line: str
    cure: str


def fault_of(text: str, log: str = "") -> Fault:
    """Find cause and remedy from the text of an exception. `log`: output of compilers on stderr.

    The first line of torch and Triton errors often says only that a compiler failed; then the compiler's first error is
    added.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _OF_TORCH.search(line)]
    first = lines[0] if lines else "an error without a message"
    why = next((line for line in [*lines[1:], *log.splitlines()] if _OF_A_COMPILER.search(line)), None)
    line = _cut(first) if why is None else f"{_cut(first)} ({_cut(why.strip())})"
    everything = f"{text}\n{log}"
    cure = next((cure for words, cure in _CURES if re.search(words, everything, re.IGNORECASE)), _OTHER)
    return Fault(line, cure)


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
