"""Overhead of a real training step: the share of time outside forward pass, backward pass and optimizer.

    python benchmarks/training_overhead.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --model-size tiny
    python benchmarks/training_overhead.py --data ... --model-size 0.5b --steps 3 --micro-batch 1 \\
        --max-sequence-tokens 256

The step is that of `mapl train`: DeepSpeed in a Ray Train worker (`--no-ray`: in this process), with data, metrics and
loggers. The model has random weights, in float32 unless `--bf16`. For DPO the groups have `ref_logps`, as after
scoring. A step lasts from the end of one step's logging to the end of the next one's. The first step is not counted;
all numbers are medians over the others. Evaluations and checkpoints are excluded.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from training import SIZES, load_groups
from training_clock import AROUND, INSIDE, MODEL, clocked_worker, watch

from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.config import Method, RunConfig, parse_config
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.data.shards import commit, write_json, write_part
from mapl_ray.models import build_tiny, load_tokenizer

Steps = list[dict[str, float]]


def prepare(folder: Path, args: argparse.Namespace) -> tuple[RunConfig, Path]:
    """Write model and data of a run. Groups that are too long are left out, so that all steps are comparable."""
    wanted = args.micro_batch * args.accumulation * args.workers * (args.steps + 1)
    records = load_groups(args.data, 8 * wanted + 200)
    texts = [text for group in records for text in group.responses]
    model = build_tiny(folder / "model", texts, SIZES[args.model_size], seed=0)
    tokenizer = load_tokenizer(model)
    fitting: list[RelationGroup] = []
    for record in records:
        if isinstance(encode_group(record, tokenizer, args.max_sequence_tokens), EncodedGroup):
            fitting.append(replace(record, ref_logps=(-100.0,) * len(record.sequences)))
    for split, rows in (("train", fitting[:wanted]), ("eval", fitting[:1])):
        part = write_part(folder / "run/groups" / split, 0, [g.to_row() for g in rows], [], GROUP_SCHEMA, "f")
        commit(folder / "run/groups" / split, "synthesize", "f", [part])
    train = {
        "learning_rate": 1e-5,
        "epochs": 99,
        "max_steps": args.steps + 1,  # the last one is evaluated, and not counted
        "micro_batch_size": args.micro_batch,
        "gradient_accumulation_steps": args.accumulation,
        "num_workers": args.workers,
        "gpus_per_worker": float(torch.cuda.is_available()),
        "max_sequence_tokens": args.max_sequence_tokens,
        "zero_stage": args.zero_stage,
        "bf16": args.bf16,
        "prefetch": args.prefetch,
        "eval_every_steps": 10**6,
        "checkpoint_every_steps": 10**6,
        "best_by": None,
    }
    values = {"name": "run", "output_dir": str(folder), "model": {"name_or_path": str(model)}, "train": train}
    return parse_config(values, "benchmark"), model


def under_ray(config: RunConfig, method: Method, model: Path) -> tuple[Steps, float]:
    """Train in a Ray Train worker; return the times of the steps, and the seconds of the whole run."""
    from mapl_ray.distributed.runtime import ray_session
    from mapl_ray.distributed.train import make_trainer
    from mapl_ray.distributed.training_job import TrainingJob

    train, output = config.training(method), config.run_dir / method
    output.mkdir(parents=True)
    with ray_session(config.cluster):
        job = replace(TrainingJob.of(config, method, train, str(model), output, "f"), export=False)
        began = time.perf_counter()
        make_trainer(partial(clocked_worker, job), train, storage=config.run_dir / "ray", name="run").fit()
        seconds = time.perf_counter() - began
    steps: Steps = json.loads((output / "clock.json").read_text())
    return steps, seconds


def in_this_process(config: RunConfig, method: Method, model: Path) -> tuple[Steps, float]:
    """Train in this process without Ray; returns the same as `under_ray`."""
    from mapl_ray.training.loop import train

    clock, began = watch(), time.perf_counter()
    train(
        config.training(method),
        method,
        model_path=str(model),
        model_config=config.model,
        train_dir=config.run_dir / "groups/train",
        eval_dir=config.run_dir / "groups/eval",
        output_dir=config.run_dir / method,
        fingerprint="f",
        export=False,
    )
    return clock.steps, time.perf_counter() - began


def table(steps: Steps, ahead: bool) -> str:
    """A Markdown table with one row per part; shares are of the whole step, medians over steps."""

    def row(name: str, seconds: list[float]) -> str:
        shares = [100 * part / step["step"] for part, step in zip(seconds, steps, strict=True)]
        return f"| {name} | {1000 * statistics.median(seconds):.2f} | {statistics.median(shares):.2f} |"

    def of(parts: tuple[str, ...]) -> list[float]:
        return [sum(step.get(part, 0.0) for part in parts) for step in steps]

    known = [a + b for a, b in zip(of(MODEL), of(AROUND), strict=True)]
    rest = [step["step"] - seconds for step, seconds in zip(steps, known, strict=True)]
    around = [step["step"] - seconds for step, seconds in zip(steps, of(MODEL), strict=True)]
    inside = "made ahead by a thread" if ahead else "of these"
    lines = ["| part | ms | % of a step |", "|---|---|---|"]
    lines += [row(part, of((part,))) for part in MODEL]
    for part in AROUND:
        lines.append(row(part, of((part,))))
        if part == "micro-batches":
            lines += [row(f"{inside}: {name}", of((name,))) for name in INSIDE]
    lines += [row("the rest of the loop", rest), row("**around forward, backward and optimizer**", around)]
    return "\n".join([*lines, row("a step", [step["step"] for step in steps])])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--method", choices=["rm", "dpo"], default="rm")
    parser.add_argument("--model-size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--steps", type=int, default=30, help="number of steps; the first one is not counted")
    parser.add_argument("--micro-batch", type=int, default=4, help="groups per micro-batch")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-sequence-tokens", type=int, default=512, help="longer groups are left out")
    parser.add_argument("--zero-stage", type=int, default=0)
    parser.add_argument("--prefetch", type=int, help="train.prefetch")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--output", type=Path, help="a .json file for the numbers")
    return parser.parse_args()


def main() -> None:
    """Train, print the table, write the numbers."""
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        config, model = prepare(Path(folder), args)
        steps, seconds = (in_this_process if args.no_ray else under_ray)(config, args.method, model)
        lines = (config.run_dir / args.method / "metrics.jsonl").read_text().splitlines()
        weights = (model / "model.safetensors").stat().st_size / 4e6  # saved in float32
    logged: list[dict[str, Any]] = [json.loads(line) for line in lines]
    tokens = [row["tokens_per_second"] / row["groups_per_second"] for row in logged]
    groups = args.micro_batch * args.accumulation * args.workers
    steps = steps[:-1]  # the clock starts after the first step, and the last one is evaluated
    dtype = "bfloat16" if args.bf16 else "float32"
    print(f"{args.method}, {args.model_size}: {weights:.0f} million weights, {dtype}, ZeRO-{args.zero_stage}, ", end="")
    print(f"{args.workers} worker(s), {'one process' if args.no_ray else 'Ray Train'}, {date.today()};")
    print(f"{groups} groups per step, {statistics.mean(tokens):.0f} tokens each; medians of {len(steps)} steps;")
    print(f"peak memory {max(row['peak_memory_gib'] for row in logged):.2f} GiB; all of it, start included, ", end="")
    print(f"{seconds:.0f} s\n\n{table(steps, bool(args.prefetch))}")
    if args.output:
        machine = {"machine": platform.platform(), "torch": torch.__version__, "date": str(date.today())}
        options = {name: str(value) for name, value in vars(args).items()}
        write_json(args.output, {**machine, "options": options, "steps": steps, "logged": logged})


if __name__ == "__main__":
    main()
