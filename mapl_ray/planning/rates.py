"""Unit rates of a plan, each with its source: measured, a data sheet, or assumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from mapl_ray.config.json_file import read_json_object
from mapl_ray.errors import UserError
from mapl_ray.training.throughput import peak_of

Kind = Literal["measured", "data sheet", "assumed"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A unit rate."""

    value: float
    unit: str
    kind: Kind
    source: str  # command and date of the measurement, or the reason for an assumption


Rates = Mapping[str, Rate]

_DATA = "--data ../shared/data/alpaca_eval_pairs.jsonl.gz"
_SYNTHESIS = (
    f"benchmarks/README.md, 2 CPU cores: python benchmarks/synthesis.py {_DATA} --pairs 24000, 2026-11-24, times 0.71 "
    f"for today's label code: python benchmarks/synthesis_revisions.py {_DATA} --against 38a2e67, 2026-11-29"
)
_RUN = f"benchmarks/README.md, 2026-11-24, 2 CPU cores: python benchmarks/memory.py {_DATA} --pairs 1000000"
_TABLES = f"benchmarks/README.md, 2026-11-30: python benchmarks/training_tables.py {_DATA}, SmolLM2's tokenizer"
_UNMEASURED = "not measured on a GPU"

_RATES = {
    # 1341 pairs/s with 3159 characters of responses each, through Ray Data with one worker, with an older label code.
    "synthesis": Rate(0.71 * 1341 * 3159.0, "characters of responses/s per core", "measured", _SYNTHESIS),
    # A million pairs took 899 s with two workers that synthesized 1825 pairs/s then. The rest was reading and sorting,
    # in one process.
    "prepare": Rate(1e6 / (899 - 1e6 / 1825), "pairs/s per core", "measured", f"{_RUN}, less its synthesis"),
    "training_utilisation": Rate(0.35, "of the GPU's peak", "assumed", _UNMEASURED),
    "scoring_utilisation": Rate(0.40, "of the GPU's peak", "assumed", _UNMEASURED),
    "evaluation_utilisation": Rate(0.25, "of the GPU's peak", "assumed", _UNMEASURED),
    "link_in_node": Rate(200e9, "bytes/s per GPU", "assumed", "NVLink in a node of 8; its data sheet has 450e9"),
    "link_between_nodes": Rate(25e9, "bytes/s per GPU", "assumed", "half of one 400 Gbit/s adapter per node"),
    "shared_storage": Rate(2e9, "bytes/s, all writers together", "assumed", "a small parallel file system"),
    "start": Rate(60.0, "s per stage", "assumed", "engines took 11 to 30 s to start on a CPU; models are larger"),
    "characters_per_token": Rate(4.0, "characters", "assumed", "English with a vocabulary of 32,000 or more"),
    "token_id": Rate(1.59, "bytes of Parquet per kept token id", "measured", _TABLES),
    "cpus_per_gpu": Rate(8.0, "cores", "assumed", "what clouds sell with a GPU, or more"),
    "gpus_per_node": Rate(8.0, "GPUs", "assumed", "the usual node"),
    "gpu_memory": Rate(80 * 2.0**30, "bytes per GPU", "data sheet", "80 GB cards"),
    "node_memory": Rate(1e12, "bytes per node", "assumed", "the usual node of eight GPUs"),
}  # fmt: skip


def load_rates(path: str | Path | None = None, gpu: str = "H100", gpu_memory_gib: float | None = None) -> Rates:
    """Return the default rates and the GPU's peak (`gpu_peak`), overridden by those in a JSON file.

    The file maps names to `{"value": ..., "source": ..., "kind": "measured"}`. Raises `UserError` for an unknown GPU,
    name or kind, and for values that are not finite and above 0.
    """
    peak = peak_of(gpu)
    if peak is None:
        raise UserError(f"--gpu {gpu!r}: not in the table of training/throughput.py. Use one listed there (H100).")
    rates = {"gpu_peak": Rate(peak, "FLOP/s, dense bfloat16", "data sheet", f"{gpu}, training/throughput.py"), **_RATES}
    if gpu_memory_gib is not None:
        rates["gpu_memory"] = Rate(gpu_memory_gib * 2.0**30, "bytes per GPU", "data sheet", "--gpu-memory-gib")
    given = {} if path is None else read_json_object(path, f"--rates {path}")
    for name, entry in given.items():
        if name not in rates or not isinstance(entry, dict):
            raise UserError(f"{path}: {name!r}: expected an object under one of {', '.join(rates)}.")
        value, kind, source = entry.get("value"), entry.get("kind", "measured"), entry.get("source")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise UserError(f"{path}: {name}.value={value!r}: expected a number above 0, in {rates[name].unit}.")
        if kind not in get_args(Kind) or not isinstance(source, str) or not source:
            raise UserError(f"{path}: {name}: expected kind ({', '.join(get_args(Kind))}) and source, a string.")
        rates[name] = replace(rates[name], value=float(value), kind=kind, source=source)
    return rates
