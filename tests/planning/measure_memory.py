"""One rank of training runs whose peak of memory is measured, started by torchrun: `measure_memory.py SPEC.json`."""

import ctypes
import gc
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from mapl_ray.config import ModelConfig, TrainConfig
from mapl_ray.models import model_identity
from mapl_ray.training.loop import train


def status(key: str) -> float:
    """Bytes that the kernel has for this process: VmRSS now, VmHWM at most since it was set back."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024.0 * float(found[1])


def growth(spec: dict[str, Any]) -> float:
    """Bytes by which a run's peak lies above what the process held before."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier runs gave back is not kept for this one
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = status("VmRSS")
    train(
        TrainConfig.model_validate(spec["config"]),
        spec["method"],
        model_path=spec["model"],
        model_config=ModelConfig(),
        train_dir=Path(spec["train"]),
        eval_dir=None,
        output_dir=Path(spec["output"]),
        fingerprint="run",
        model_id=model_identity(spec["model"]),
    )
    return status("VmHWM") - before


if __name__ == "__main__":
    specs = json.loads(Path(sys.argv[1]).read_text())
    found = [growth(spec) for spec in specs]
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(json.dumps(found))
    # Both leave together: without this a rank once ended with SIGABRT, its work done, and its peer may have been gone.
    dist.barrier()
    dist.destroy_process_group()
