"""The memory that `mapl plan` reports, beside the peak of real training processes on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import RunConfig, TinyModelConfig, TrainConfig
from mapl_ray.data.records import GROUP_SCHEMA
from mapl_ray.data.shards import commit, write_part
from mapl_ray.models import build_tiny, load_tokenizer
from mapl_ray.planning.memory import training_memory
from mapl_ray.planning.shape import model_shape

FACTOR = 1.5
RANKS = 2
CASES: list[tuple[Any, Any]] = [("rm", 0), ("rm", 2), ("dpo", 3)]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are set back through Linux's /proc")
def test_the_estimate_is_near_the_peak_of_real_ranks(tmp_path: Path, grid_groups: Any) -> None:
    groups = grid_groups(32)
    texts = [response for group in groups for response in group.responses]
    sizes = {"big": {"hidden_size": 512, "num_layers": 4, "num_heads": 4},
             "small": {"hidden_size": 32, "num_layers": 1, "num_heads": 1}}  # fmt: skip
    models = {
        name: build_tiny(tmp_path / name, texts, TinyModelConfig(vocab_size=400, **size), seed=1)
        for name, size in sizes.items()
    }
    part = write_part(tmp_path / "train", 0, [group.to_row() for group in groups], [], GROUP_SCHEMA, "f")
    commit(tmp_path / "train", "score", "f", [part])
    common = {"micro_batch_size": 16, "max_steps": 2, "max_sequence_tokens": 512, "best_by": None, "loggers": []}
    # A small one first: what libraries take when they are first used is no part of a run's own.
    specs = [
        {
            "model": str(models["small" if number == 0 else "big"]),
            "method": method,
            "config": {**common, "zero_stage": stage, **({"reference": "frozen"} if method == "dpo" else {})},
            "train": str(tmp_path / "train"),
            "output": str(tmp_path / f"run{number}"),
        }
        for number, (method, stage) in enumerate([("rm", 2), *CASES])
    ]
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(specs))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"),
            *(str(Path(__file__).with_name("measure_memory.py")), str(file)),
        ],
        env={**os.environ, "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[:6000]
    peaks = [json.loads(Path(f"{file}.{rank}").read_text())[1:] for rank in range(RANKS)]

    tokenizer = load_tokenizer(models["big"])
    encoded = [one for group in groups if isinstance(one := encode_group(group, tokenizer, 512), EncodedGroup)]
    batch = collate(encoded[:16], "tree", tokenizer.pad_token_id)
    shape = model_shape(RunConfig.model_validate({"model": {"name_or_path": str(models["big"])}}))
    reported = {}
    for spec, (method, stage), measured in zip(specs[1:], CASES, zip(*peaks, strict=True), strict=True):
        config = TrainConfig.model_validate(spec["config"])
        estimate = training_memory(
            shape, config, method, RANKS, tokens=batch.num_tokens, edges=batch.source_E.numel(), zero_stage=stage
        )
        reported[method, stage] = (
            f"{[round(peak / 2**20) for peak in measured]} MiB, reported {estimate.total / 2**20:.0f}"
        )
        print(method, stage, reported[method, stage])
        assert all(estimate.total / FACTOR < peak < estimate.total * FACTOR for peak in measured), reported
