"""Balance of the micro-batches of a step, in random order and split by size. Uses real groups; nothing is trained.

    python benchmarks/training_balance.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz

Groups are split by the bytes of their texts, as in training, and counted in tokens. `fullest` is the largest
micro-batch over the mean. `waiting` is the loss of ranks that wait for each other after every micro-batch (ZeRO-2 and
3): the sum of the largest micro-batches over the sum of the means, minus one. Medians over the steps of an epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from training import SIZES, load_groups

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import TrainConfig
from mapl_ray.data.records import GROUP_SCHEMA, LEVEL_FAMILIES
from mapl_ray.models import build_tiny, load_tokenizer
from mapl_ray.training.plan import StepPlan, group_sizes

# (world_size, gradient_accumulation_steps, micro_batch_size)
CUTS = ((2, 4, 4), (8, 2, 4), (8, 8, 2), (32, 1, 4), (64, 1, 8))


def measure(plan: StepPlan, ranks: int, tokens: list[int], widths: list[int]) -> tuple[float, float, float]:
    """Medians over full steps of `fullest`, `waiting`, and padded slots over tokens."""
    found = []
    for step in range(len(tokens) // plan.groups_per_step):
        hands = [plan.micro_batches_of(step, rank, ranks) for rank in range(ranks)]
        loads = np.array([[sum(tokens[i] for i in hand) for hand in of_rank] for of_rank in hands])
        flat = [hand for of_rank in hands for hand in of_rank]
        slots = sum(6 * len(hand) * max(widths[i] for i in hand) for hand in flat)
        sequences = sum(6 * widths[i] for hand in flat for i in hand)
        waiting = loads.max(axis=0).sum() / loads.mean(axis=0).sum() - 1.0
        found.append((loads.max() / loads.mean(), waiting, slots / sequences))
    fullest, lost, padding = (statistics.median(values) for values in zip(*found, strict=True))
    return fullest, lost, padding


def main() -> None:
    """Split the steps of an epoch in both ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--groups", type=int, default=2000)
    args = parser.parse_args()
    groups = load_groups(args.data, args.groups)
    with tempfile.TemporaryDirectory() as folder:
        texts = [text for group in groups[:500] for text in group.responses]
        tokenizer = load_tokenizer(build_tiny(Path(folder) / "model", texts, SIZES["tiny"], seed=0))
    encoded = [e for g in groups if isinstance(e := encode_group(g, tokenizer, 10**6), EncodedGroup)]
    tokens = [collate([group], "tree", 0).num_tokens for group in encoded]
    widths = [max(len(group.token_ids(i)) for i in range(len(group.sequences))) for group in encoded]
    table = pa.Table.from_pylist([group.to_row() for group in groups], GROUP_SCHEMA)
    print(f"{len(groups)} groups of {min(tokens)} to {max(tokens)} tokens as trees, {date.today()}\n")
    print("| ranks x micro-batches x groups | fullest | by size | waiting | by size | padded, slots | by length |")
    print("|---|---|---|---|---|---|---|")
    for ranks, turns, most in CUTS:
        ways = []
        for batching in ("tree", "padded"):
            sizes = group_sizes(table, LEVEL_FAMILIES, batching)
            config = TrainConfig(micro_batch_size=most, gradient_accumulation_steps=turns, batching=batching)
            for some in ([1] * len(groups), sizes):
                ways.append(measure(StepPlan.of(config, some, ranks), ranks, tokens, widths))
        drawn, by_size, padded, by_length = ways
        columns = [f"{ranks} x {turns} x {most}", f"{drawn[0]:.2f}", f"{by_size[0]:.2f}"]
        columns += [f"{100 * drawn[1]:.0f} %", f"{100 * by_size[1]:.0f} %", f"{padded[2]:.2f}", f"{by_length[2]:.2f}"]
        print(f"| {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
