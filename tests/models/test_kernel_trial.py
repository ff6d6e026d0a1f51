"""Kernels tried on a device: right values pass, wrong ones do not, and every real failure is named with its remedy."""

import os
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from mapl_ray.errors import RunError
from mapl_ray.models import flex_attention, kernel_trial
from mapl_ray.models.flex_attention import BlockMask, block_mask
from mapl_ray.models.kernel_faults import fault_of
from mapl_ray.models.kernel_process import KernelNeeds, KernelTrial, tried_in_process
from mapl_ray.models.kernel_trial import small_trees, try_kernels
from mapl_ray.models.tree_attention import dense_mask

FLEX = KernelNeeds(bf16=False, flex=True)
PLAIN = KernelNeeds(bf16=True, flex=False)
LONG_SECONDS = 500.0  # a busy machine needs minutes to import torch
NEEDS_CPU_TORCH = pytest.mark.skipif(torch.cuda.is_available(), reason="torch has a GPU here")


def tried_on_cpu(begin: list[str]) -> None:
    try_kernels("cpu", torch.float32, flex=True, backward=True, begin=begin.append)


@pytest.mark.usefixtures("flex_on_cpu")
def test_trees_equal_dense_attention_forward_and_backward() -> None:
    steps: list[str] = []
    tried_on_cpu(steps)
    assert steps == [
        "open the device",
        "a matrix product in float32",
        "FlexAttention's forward pass (compiles)",
        "FlexAttention's backward pass (compiles)",
    ]


def causal_mask(end: torch.Tensor, positions: torch.Tensor) -> BlockMask:
    """As of a row that is one chain: branches see each other."""
    return block_mask(torch.full_like(end, end.shape[1]), positions)


def wrong_backward(*args: object, **options: object) -> tuple[torch.Tensor, None]:
    """The right values with a tenth more of a gradient."""
    out, _ = flex_attention.tree_flex_attention(*args, **options)  # type: ignore[arg-type]
    return out.detach() + 1.1 * (out - out.detach()), None


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("block_mask", causal_mask, r"^FlexAttention is off by \d"),
        ("tree_flex_attention", wrong_backward, r"^FlexAttention's gradient of queries is off by 10\.0%"),
    ],
)
def test_wrong_values_are_found(name: str, wrong: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_trial, name, wrong)
    with pytest.raises(RunError, match=message):
        tried_on_cpu([])


def test_the_trees_have_blocks_of_every_kind() -> None:
    """By hand: the first branch (block 1) sees the whole prompt (block 0); the second branch and the other tree (block
    2) do not see the first branch, and only the second branch sees the prompt."""
    end, positions = small_trees()
    mask = block_mask(end, positions)
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_num_blocks.flatten().tolist() == [0, 1, 0]
    assert mask.kv_num_blocks.flatten().tolist() == [1, 1, 2]
    # Pairs: chains of 128, 128, 64 and 64 tokens, and the prompt under both branches.
    expected = 2 * (128 * 129 // 2) + 2 * (64 * 65 // 2) + 128 * (128 + 64)
    assert int(dense_mask(end, positions).sum()) == expected
    # Positions count from the root along a branch.
    assert positions[0, [0, 127, 128, 255, 256, 319, 320, 383]].tolist() == [0, 127, 128, 255, 128, 191, 0, 63]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty compiler's cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    return folder


def left_over(cache: Path) -> list[Path]:
    return list(cache.rglob("*"))


@pytest.mark.long
def test_a_cpus_compiler_gives_right_values_and_leaves_nothing(cache: Path) -> None:
    """The whole way, with a real compiler: torch's for CPUs compiles FlexAttention's forward pass with g++."""
    trial = tried_in_process("cpu", FLEX, LONG_SECONDS)
    assert trial.error == ""
    assert (trial.host, trial.device, trial.tried) == (os.uname().nodename, "CPU", True)
    assert trial.seconds > 0
    assert left_over(cache) == []


def test_without_flex_nothing_is_compiled(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    trial = tried_in_process("cpu", PLAIN, LONG_SECONDS)
    assert trial.error == ""
    assert not [file for file in cache.rglob("*") if file.is_file()]


def no_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)


def broken_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")


def wrapper(folder: Path, compiler: str) -> Path:
    """The compiler, without the folder of Python's headers."""
    include = sysconfig.get_paths()["include"]
    path = folder / f"{compiler}-without-python"
    path.write_text(
        "#!/bin/bash\nkept=()\n"
        f'for word in "$@"; do case "$word" in *{include}*) ;; *) kept+=("$word");; esac; done\n'
        f'exec {compiler} "${{kept[@]}}"\n'
    )
    path.chmod(0o755)
    return path


def no_headers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(wrapper(folder, "g++")))


def file_in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "taken").write_text("")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "taken"))


def below_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "taken").write_text("")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "taken" / "triton"))


CACHES = "set TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR"


@pytest.mark.parametrize(
    ("cause", "line", "cure"),
    [
        pytest.param(
            no_compiler, "No working C++ compiler", "install gcc and g++ on every node", marks=pytest.mark.faults
        ),
        pytest.param(broken_compiler, "No working C++ compiler", "others with CC and CXX", marks=pytest.mark.faults),
        pytest.param(no_headers, "fatal error: Python.h: No", "install the headers of", marks=pytest.mark.faults),
        (file_in_place, "File exists: '{folder}/taken'", CACHES),
        (below_a_file, "Not a directory: '{folder}/taken/triton'", CACHES),
    ],
)
def test_what_a_compiler_lacks_is_named(
    cause: Callable[[Path, pytest.MonkeyPatch], None],
    line: str,
    cure: str,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cause(tmp_path, monkeypatch)
    trial = tried_in_process("cpu", FLEX, LONG_SECONDS)
    assert line.format(folder=tmp_path) in trial.error
    assert "\n" not in trial.error
    assert cure in trial.cure
    assert left_over(cache) == []


# What a rank does on a GPU before its first step, with torch's compiler for CPUs.
TRAINING = """
from transformers import LlamaConfig, LlamaForCausalLM
from mapl_ray.models import prepare_for_trees, tree_support
from mapl_ray.models.flex_attention import FLEX
tree_support.tree_attention = lambda *asked: FLEX
sizes = dict(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
prepare_for_trees(LlamaForCausalLM(LlamaConfig(**sizes)))
"""


@pytest.mark.long
def test_a_training_that_can_not_compile_blames_the_machine(cache: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "false"}
    command = [sys.executable, "-c", TRAINING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONG_SECONDS, check=False)
    assert done.returncode == 1
    last = next(line for line in done.stderr.splitlines() if "UserError" in line)
    assert f"train.attention=flex: {os.uname().nodename} can't compile FlexAttention: " in last
    assert "No working C++ compiler" in last
    assert "Remedy: install gcc and g++ on every node" in last


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_not_be_written(cache: Path) -> None:
    cache.mkdir(mode=0o500)
    trial = tried_in_process("cpu", FLEX)
    assert "PermissionError" in trial.error
    assert "set TORCHINDUCTOR_CACHE_DIR" in trial.cure


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if "kernel_trial" in " ".join(one.cmdline())]


def test_a_trial_that_takes_too_long_is_ended(cache: Path) -> None:
    trial = tried_in_process("cpu", FLEX, seconds=0.5)
    assert trial.error == "not finished after 0.5 s, in this step: start Python"
    assert "nvidia-smi" in trial.cure
    assert children() == []
    assert left_over(cache) == []


def test_a_process_that_dies_is_named_with_its_step(cache: Path) -> None:
    def kill() -> None:
        for _ in range(6000):
            for child in children():
                child.kill()
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    trial = tried_in_process("cpu", FLEX, LONG_SECONDS)
    killer.join()
    assert trial.error.startswith("ended with signal SIGKILL in this step: start Python")
    assert "out-of-memory" in trial.cure
    assert left_over(cache) == []


@NEEDS_CPU_TORCH
@pytest.mark.faults
def test_a_torch_for_cpus_on_a_node_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    trial = tried_in_process("cuda", PLAIN, LONG_SECONDS)
    assert trial.device == "GPU 5"
    assert trial.error == "AssertionError: Torch not compiled with CUDA enabled"
    assert "has the CPU build of torch" in trial.cure


# A part of Triton that needs no GPU: it compiles launchers in C, which take Python's headers and libcuda.
LAUNCHER = """
import sys
from triton.runtime.build import _build
from pathlib import Path
folder, *libraries = sys.argv[1:]
source = Path(folder, "launcher.c")
source.write_text('#include <Python.h>\\nint launch(void) { return 0; }\\n')
_build("launcher", str(source), folder, [], [], libraries, [])
"""


def triton_without(lacking: str, folder: Path) -> KernelTrial:
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "CC"}
    if lacking == "compiler":
        environment["PATH"] = ""
    if lacking == "headers":
        environment["CC"] = str(wrapper(folder, "gcc"))
    command = [sys.executable, "-c", LAUNCHER, str(folder), *(["no_such_cuda"] if lacking == "libcuda" else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == (lacking == "nothing"), done.stderr
    *log, last = done.stderr.strip().splitlines() or [""]
    line, cure = fault_of(last, "\n".join(log))
    return KernelTrial("", "", error=line, cure=cure)


@pytest.mark.parametrize(
    ("lacking", "line", "cure"),
    [
        ("nothing", "", ""),
        ("compiler", "Failed to find C compiler", "install gcc and g++"),
        ("headers", "fatal error: Python.h: No such file", "install the headers of Ray's Python"),
        ("libcuda", "cannot find -lno_such_cuda", "the compiler failed"),
    ],
)
def test_what_tritons_launcher_lacks_is_named(lacking: str, line: str, cure: str, tmp_path: Path) -> None:
    trial = triton_without(lacking, tmp_path)
    assert line in trial.error
    assert cure in trial.cure


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
            "update the node's NVIDIA",
        ),
        (
            "RuntimeError: Triton Error [CUDA]: the provided PTX was compiled with an unsupported toolchain.",
            "update the",
        ),
        (
            "AcceleratorError: CUDA error: no kernel image is available for execution on the device",
            "built for this GPU",
        ),
        ("RuntimeError: No CUDA GPUs are available", "nvidia-smi"),
        ("CalledProcessError: ...\n/usr/bin/ld: cannot find -lcuda: No such file or directory", "libcuda.so"),
        ("this GPU has no bfloat16", "train.bf16=false"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB.", "free the GPU's memory"),
        ("ImportError: /tmp/x.so: failed to map segment from shared object", "not mounted noexec"),
        ("OSError: [Errno 28] No space left on device", "free space"),
        ("RuntimeError: something else", "train.attention=varlen"),
    ],
)
def test_messages_that_need_a_gpu_have_their_remedies(text: str, cure: str) -> None:
    """Quoted from torch, Triton, ld and the loader; none was caused here."""
    assert cure in fault_of(text).cure


def test_the_line_says_what_went_wrong() -> None:
    found = fault_of("InductorError: backend='inductor' raised:\n\nRuntimeError: no\nmore", "cc: fatal error: gone\n")
    assert found.line == "RuntimeError: no (cc: fatal error: gone)"
    assert len(fault_of("x" * 10_000).line) < 400
    assert fault_of("").line == "an error without a message"
