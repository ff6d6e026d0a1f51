"""The longest group that fits into a memory budget in a training step: as a tree, as six sequences, and as pairs.

    python benchmarks/training_memory.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --budget-gib 2

The group has random tokens: half of a sequence is x and an instruction of 32 tokens, half is the response. Its length
is doubled until a step exceeds the budget, then bisected to within a sixteenth. Memory is the growth of the process in
one step (on CUDA: of torch's allocations), without weights and optimizer states.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

from training import SIZES, load_groups, pairwise
from training_steps import Learner, Peak

from mapl_ray.batches import EncodedGroup
from mapl_ray.data.records import Sequence
from mapl_ray.models import build_tiny, load_tokenizer
from mapl_ray.synthesis.layouts import GRID_CELLS, GRID_RELATIONS

INSTRUCTION = 32


def group_of(length: int) -> EncodedGroup:
    """A grid group whose sequences with instructions have `length` tokens."""
    rng = random.Random(length)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(rng.randrange(256) for _ in range(number))

    x, answers = ids(length // 2 - INSTRUCTION), (ids(length // 2), ids(length // 2))
    return EncodedGroup(
        pair_id="made-up",
        prompt_ids=(x, x + ids(INSTRUCTION), x + ids(INSTRUCTION)),
        response_ids=answers,
        sequences=tuple(Sequence(prompt, response, ()) for prompt, response in GRID_CELLS),
        relations=GRID_RELATIONS,
        ref_logps=(-100.0,) * len(GRID_CELLS),
    )


def largest(mib_of: Callable[[int], float], budget_mib: float, start: int) -> tuple[int, float]:
    """The largest length that fits and its MiB; length 0 if `start` does not fit."""
    low, high, taken = 0, start, 0.0
    while (mib := mib_of(high)) <= budget_mib:
        low, high, taken = high, 2 * high, mib
    while low and high - low > low // 16:
        middle = (low + high) // 2
        if (mib := mib_of(middle)) <= budget_mib:
            low, taken = middle, mib
        else:
            high = middle
    return low, taken


def growth(learner: Learner, batching: str, of: Callable[[int], EncodedGroup]) -> Callable[[int], float]:
    """A function from the group's length to the MiB of a step."""

    def mib_of(length: int) -> float:
        with Peak(learner.device) as peak:
            learner.step([of(length)], batching)
        return peak.mib

    return mib_of


def main() -> None:
    """Measure every way and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="for the tokenizer")
    parser.add_argument("--model-size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--budget-gib", type=float, default=2.0)
    parser.add_argument("--methods", nargs="+", choices=["rm", "dpo"], default=["rm", "dpo"])
    args = parser.parse_args()
    print(f"{args.model_size}, {args.dtype}, {args.device}, {date.today()}; {args.budget_gib} GiB per step\n")
    print("| method, way | longest sequence | tokens | with padding | MiB |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        size = SIZES[args.model_size].model_copy(update={"max_position_embeddings": 2**17})
        texts = [text for group in load_groups(args.data, 200) for text in group.responses]
        directory = build_tiny(Path(folder) / "model", texts, size, seed=0)
        pad = load_tokenizer(directory).pad_token_id
        for method in args.methods:
            learner = Learner(method, directory, args.device, args.dtype, pad)
            for name, batching, of in (
                ("tree", "tree", group_of),
                ("padded, six cells once", "padded", group_of),
                ("padded, pairwise", "padded", lambda length: pairwise(group_of(length))),
            ):
                mib_of = growth(learner, batching, of)
                mib_of(256)  # the first step makes permanent allocations
                length, mib = largest(mib_of, 1024 * args.budget_gib, 256)
                if length == 0:
                    print(f"| {method}, {name} | below 256 | | | |", flush=True)
                    continue
                way, _ = learner.measured(name, [of(length)], batching)
                print(f"| {method}, {name} | {length} | {way.tokens} | {way.padded_tokens} | {mib:.0f} |", flush=True)


if __name__ == "__main__":
    main()
