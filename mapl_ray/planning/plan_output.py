"""Output of a plan, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mapl_ray.model_states import state_bytes
from mapl_ray.planning.run_plan import MemoryRow, RunPlan, RunSize


def plan_text(plan: RunPlan) -> str:
    """Format a plan as text: times, memory, and rates with their sources."""
    shape, group = plan.shape, plan.group
    lines = [
        f"plan of `mapl pipeline`, run {plan.config.name}",
        f"model   {plan.config.model.name_or_path}: {_count(shape.parameters)} parameters ({shape.source})",
        f"data    {group.source}; {group.groups_per_pair:.2f} groups per pair",
        "",
        *_columns(
            ["pairs", "GPUs", "prepare", "synthesis", "score", "train", "tune", "evaluate", "in all", "GPU hours",
             "storage", "bottleneck"],
            [_size_row(size) for size in plan.sizes],
        ),
        "",
        *_stages(plan),
        "",
        *_memory(plan),
        "",
        "rates (--rates FILE overrides them)",
        *_columns(
            ["", "value", "", "", "from"],
            [[name, f"{rate.value:.4g}", rate.unit, rate.kind, rate.source] for name, rate in plan.rates.items()],
        ),
    ]  # fmt: skip
    assumed = sum(rate.kind == "assumed" for rate in plan.rates.values())
    lines += ["", f"{assumed} of {len(plan.rates)} rates are assumed, not measured: so are times on GPUs."]
    return "\n".join(lines)


def to_json(plan: RunPlan) -> str:
    """Format a plan as JSON; times in seconds, sizes in bytes."""
    return json.dumps(
        {
            "run": plan.config.name,
            "model": {"name": plan.config.model.name_or_path, **asdict(plan.shape)},
            "groups": asdict(plan.group),
            "rates": {name: asdict(rate) for name, rate in plan.rates.items()},
            "memory": [_memory_values(row) for row in plan.memory],
            "plans": [_size_values(size) for size in plan.sizes],
        },
        indent=2,
    )


def _memory_values(row: MemoryRow) -> dict[str, Any]:
    values = asdict(row)
    return {**values, "memory": {**values["memory"], "total": row.memory.total}}


def _size_values(size: RunSize) -> dict[str, Any]:
    return {
        "pairs": size.pairs,
        "gpus": size.gpus,
        "seconds": size.seconds,
        "gpu_hours": size.gpu_hours,
        "busy_gpu_hours": size.busy_gpu_hours,
        "storage_bytes": {**size.storage, "total": sum(size.storage.values())},
        "host_memory_bytes": size.host_memory,
        "node_disk_bytes": size.node_disk,
        "fits": size.fits,
        "bottleneck": size.bottleneck,
        "stages": {
            stage.name: {
                "seconds": stage.seconds,
                "gpus": stage.gpus,
                "bound": stage.bound,
                "parts": stage.parts,
                "assumed": stage.assumed,
            }
            for stage in size.stages
        },
    }


def _size_row(size: RunSize) -> list[str]:
    def of(*beginnings: str) -> str:
        return _time(sum(stage.seconds for stage in size.stages if stage.name.startswith(beginnings)))

    return [
        _round(size.pairs),
        str(size.gpus),
        of("prepare"),
        of("synthesize"),
        of("score"),
        of("train"),
        of("tune"),
        of("evaluate"),
        _time(size.seconds),
        f"{size.gpu_hours:,.1f}" if size.gpu_hours < 1000 else f"{size.gpu_hours:,.0f}",
        _bytes(sum(size.storage.values())),
        size.bottleneck if size.fits else f"{size.bottleneck}; does not fit in memory",
    ]


def _stages(plan: RunPlan) -> Iterator[str]:
    """Format the time of every stage for the largest number of pairs, on each number of GPUs."""
    largest = max(size.pairs for size in plan.sizes)
    sizes = [size for size in plan.sizes if size.pairs == largest]
    yield f"{_round(largest)} pairs by stage: time, and what most of it is spent on; x marks the longest stage"
    rows = []
    for stages in zip(*(size.stages for size in sizes), strict=True):
        cells = [
            f"{_time(stage.seconds)}, {stage.bound}" + (" x" if stage.name == size.longest.name else "")
            for stage, size in zip(stages, sizes, strict=True)
        ]
        assumed = sorted({name for stage in stages for name in stage.assumed})
        rows.append([stages[0].name, *cells, ", ".join(assumed) or "none"])
    yield from _columns(["", *(_gpus(size.gpus) for size in sizes), "assumed rates"], rows)


def _memory(plan: RunPlan) -> Iterator[str]:
    yield "memory of a training worker, GiB, of which states; * the config's stage, ! more than the GPU has"
    for method in dict.fromkeys(row.method for row in plan.memory):
        train = plan.config.training(method)
        dtype, each = ("bfloat16", 2) if train.in_bf16 else ("float32", 4)
        states = state_bytes(1.0, train.zero_stage, 1, bf16=train.in_bf16)
        yield (
            f"{method} trains in {dtype} (train.bf16): states of {states:g} bytes per trained parameter before ZeRO "
            f"divides them, activations of {each} bytes per value"
        )
        if (size := train.zero_hpz_partition_size) > 1:
            where = "main memory" if train.offload == "optimizer+parameters" else "the GPUs"
            yield f"{method} under ZeRO-3: every {size} workers hold a second copy of the weights in {where} (hpZ)"
    counts = list(dict.fromkeys(row.gpus for row in plan.memory))
    rows: dict[tuple[str, int], list[str]] = {}
    for row in plan.memory:
        mark = ("*" if row.chosen else "") + ("" if row.fits else "!")
        text = f"{row.memory.total / 2**30:.1f} ({row.memory.states / 2**30:.1f}){mark}"
        rows.setdefault((row.method, row.zero_stage), []).append(text)
    head = ["", "ZeRO", *map(_gpus, counts)]
    yield from _columns(head, [[method, str(stage), *cells] for (method, stage), cells in rows.items()])
    yield ""
    yield "network of a training worker, GB sent in a step of its micro-batches, of which in collectives between nodes"
    sent: dict[tuple[str, int], list[str]] = {}
    for row in plan.memory:
        text = f"{row.sent / 1e9:.4g} ({row.sent_between_nodes / 1e9:.4g})" + ("*" if row.chosen else "")
        sent.setdefault((row.method, row.zero_stage), []).append(text)
    yield from _columns(head, [[method, str(stage), *cells] for (method, stage), cells in sent.items()])
    yield ""
    yield "main memory of a node for groups and token ids, and its disk (TMPDIR) where workers map them: " + ", ".join(
        f"{_round(size.pairs)} on {size.gpus}: {_bytes(size.host_memory)} and {_bytes(size.node_disk)}"
        for size in plan.sizes
        if size.gpus == max(counts)
    )


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' if count > 1 else ''}"


def _time(seconds: float) -> str:
    for unit, size in (("y", 365 * 86400.0), ("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _bytes(count: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e6:.0f} MB"


def _round(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size and count % (size // 10) == 0:
            return f"{count / size:g}{unit}"
    return str(count)


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:.2f} billion" if parameters >= 1e8 else f"{parameters / 1e6:.2f} million"
