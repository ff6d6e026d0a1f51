"""Training steps compared: trees, padded sequences, the sequences of a pairwise trainer, and TRL's trainers.

    python benchmarks/training.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz

A step is collation, forward and backward pass, gradient clipping and AdamW, on one micro-batch of real groups and a
model with random weights. Tokenization is done beforehand, and DeepSpeed is not used. The ways alternate step by step
because the machine's speed drifts; the table has medians and their ratios. Memory is the growth of the process in one
step that is not timed (on CUDA: of torch's allocations). On a busy machine, `--clock cpu` counts CPU seconds of this
process; set OMP_NUM_THREADS=1 as well, so that waiting threads do not count.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from training_steps import Learner, Measured, remembered, timed
from training_trl import TRL_LEVELS, against_trl, trl_rows

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import DataConfig, SynthesisConfig, TinyModelConfig
from mapl_ray.data.records import Level, PreferencePair, Relation, RelationGroup
from mapl_ray.data.shards import write_json
from mapl_ray.models import build_tiny, load_tokenizer
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import synthesize

SIZES = {
    "tiny": TinyModelConfig(vocab_size=2000, hidden_size=128, num_layers=4, num_heads=4),
    "160m": TinyModelConfig(vocab_size=32_000, hidden_size=768, num_layers=12, num_heads=12),
    "0.5b": TinyModelConfig(vocab_size=32_000, hidden_size=1024, num_layers=24, num_heads=16),
}


def load_groups(path: str, number: int) -> list[RelationGroup]:
    """`number` grid groups, of the first pairs that give a group."""
    groups: list[RelationGroup] = []
    for pair in read_pairs(DataConfig(path=path)):
        if isinstance(pair, PreferencePair):
            group = synthesize(pair, SynthesisConfig(), 0)
            groups += [group] if isinstance(group, RelationGroup) else []
        if len(groups) >= number:
            break
    return groups


def pairwise(group: EncodedGroup) -> EncodedGroup:
    """Give every relation its own copy of its sequences: pref 2, intra 2 each, inter 4 each."""
    sequences, relations, logps = [], [], []
    for relation in group.relations:
        indices = (*relation.preferred, *relation.dispreferred)
        first, middle, last = len(sequences), len(sequences) + len(relation.preferred), len(sequences) + len(indices)
        sequences += [group.sequences[i] for i in indices]
        logps += [(group.ref_logps or ())[i] for i in indices]
        relations.append(Relation(relation.level, tuple(range(first, middle)), tuple(range(middle, last))))
    return replace(group, sequences=tuple(sequences), relations=tuple(relations), ref_logps=tuple(logps))


def pref_only(group: EncodedGroup) -> EncodedGroup:
    """The group with only its original pair."""
    relation = next(r for r in group.relations if r.level is Level.PREF)
    indices = (*relation.preferred, *relation.dispreferred)
    return replace(
        group,
        sequences=tuple(group.sequences[i] for i in indices),
        relations=(Relation(Level.PREF, (0,), (1,)),),
        ref_logps=tuple((group.ref_logps or ())[i] for i in indices),
    )


def compare_batchings(learner: Learner, groups: list[EncodedGroup], repeats: int) -> list[Measured]:
    """Trees, padded sequences, and separate sequences per relation, in turn. The first step of each is not counted."""
    pairs = [pairwise(group) for group in groups]
    ways = [
        learner.measured("tree", groups, "tree"),
        learner.measured("padded, six cells once", groups, "padded"),
        learner.measured("padded, pairwise", pairs, "padded"),
    ]
    losses = [step() for _, step in ways]
    if learner.dtype == "float32" and max(losses) - min(losses) > 1e-4 * max(losses):
        raise SystemExit(f"the ways have different losses: {losses}")
    for measured, step in ways:
        with remembered(measured, learner.device):
            step()
    for _ in range(repeats):
        for measured, step in ways:
            with timed(measured, learner.device):
                step()
    return [measured for measured, _ in ways]


def table(measured: list[Measured], groups: int, against: int, clock: str) -> str:
    """The results as a Markdown table, with ratios to the way with index `against`."""
    base = measured[against]
    lines = [
        f"| way | tokens | with padding | groups/s | over {base.name} | tokens saved | with padding | memory, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in measured:
        rate = way.groups_per_second(groups, clock)
        ratios = (
            rate / base.groups_per_second(groups, clock),
            base.tokens / way.tokens,
            base.padded_tokens / way.padded_tokens,
        )
        columns = (way.name, way.tokens, way.padded_tokens, f"{rate:.2f}", *(f"{ratio:.2f}" for ratio in ratios))
        lines.append(f"| {' | '.join(map(str, columns))} | {way.memory_mib:.0f} |")
    return "\n".join(lines)


def around(records: list[RelationGroup], tokenizer: Any, limit: int) -> float:
    """CPU seconds of tokenization and collation for the groups of one step."""
    seconds = []
    for _ in range(5):
        started = time.process_time()
        encoded = [encode_group(record, tokenizer, limit) for record in records]
        collate([e for e in encoded if isinstance(e, EncodedGroup)], "tree", 0, row_tokens=sys.maxsize)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def compare_method(
    learner: Learner,
    records: list[RelationGroup],
    groups: list[EncodedGroup],
    directory: Path,
    args: argparse.Namespace,
) -> Iterator[tuple[str, list[Measured], int]]:
    """Yield (name of a table, its ways, index of the way to compare with)."""
    yield "batchings", compare_batchings(learner, groups, args.repeats), 2
    for name, levels in {} if args.no_trl else TRL_LEVELS.items():
        alone = levels == ("pref",)
        ours = [pref_only(group) for group in groups] if alone else groups
        names = ("tree, pref" if alone else "tree, all relations", name)
        rows = trl_rows(records, learner.method, levels)
        yield name, against_trl(learner, ours, rows, directory, args.dtype, args.repeats, names), 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model-size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--groups", type=int, default=4, help="groups per step")
    parser.add_argument("--max-sequence-tokens", type=int, default=512, help="longer groups are left out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=["rm", "dpo"], default=["rm", "dpo"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--no-trl", action="store_true")
    parser.add_argument("--output", type=Path, help="a .json file for the numbers")
    return parser.parse_args()


def main() -> None:
    """Measure, print the tables, write the numbers."""
    args = arguments()
    found: dict[str, Any] = {"date": str(date.today()), "machine": platform.platform(), "torch": torch.__version__}
    found["options"] = {name: str(value) for name, value in vars(args).items()}
    with tempfile.TemporaryDirectory() as folder:
        records = load_groups(args.data, 20 * args.groups + 200)
        texts = [text for group in records for text in group.responses]
        directory = build_tiny(Path(folder) / "model", texts, SIZES[args.model_size], seed=0)
        tokenizer = load_tokenizer(directory)
        fitting = [(r, encode_group(r, tokenizer, args.max_sequence_tokens)) for r in records]
        chosen = [(r, e) for r, e in fitting if isinstance(e, EncodedGroup)][: args.groups]
        records = [r for r, _ in chosen]
        groups = [replace(e, ref_logps=(-100.0,) * len(e.sequences)) for _, e in chosen]
        lengths = [len(g.token_ids(i)) for g in groups for i in range(2)]
        print(f"{args.model_size}, {args.dtype}, {args.device}, {torch.get_num_threads()} threads, {args.clock} clock;")
        print(f"{len(groups)} groups per step, x and a response of {min(lengths)} to {max(lengths)} tokens;")
        print(f"medians of {args.repeats}; tokenization and collation of a step ", end="")
        found["around_seconds"] = around(records, tokenizer, args.max_sequence_tokens)
        print(f"{1000 * found['around_seconds']:.1f} ms\n", flush=True)
        for method in args.methods:
            learner = Learner(method, directory, args.device, args.dtype, tokenizer.pad_token_id)
            for name, measured, against in compare_method(learner, records, groups, directory, args):
                found[f"{method}/{name}"] = [asdict(way) for way in measured]
                print(f"{method}, {name}:\n\n{table(measured, len(groups), against, args.clock)}\n", flush=True)
    if args.output:
        write_json(args.output, found)


if __name__ == "__main__":
    main()
