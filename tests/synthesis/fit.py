"""Draw prompts and look for contradictions among their instructions, with the search of `witness.py`.

    python -m tests.synthesis.fit --data ../shared/data --prompts 40000 --output fit.jsonl

Prompts are drawn and checked in chunks; each finished chunk is a line of the output file. A second run of the same
command goes on after the last finished chunk. Exits with 1 where a contradiction was found.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.data.records import PreferencePair, RelationGroup
from mapl_ray.instructions import Features, Instruction
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import synthesize
from tests.synthesis.witness import Pool, Unfit

FILES = ("alpaca_eval_pairs.jsonl.gz", "hh_harmless_base_test.jsonl.gz", "pandalm_human.jsonl.gz")
CHUNK = 500  # prompts


class Drawn(NamedTuple):
    """A prompt's instructions, and texts to start from: the pair's own responses first."""

    instructions: list[Instruction]
    starts: list[Features]


@lru_cache(maxsize=1)
def all_pairs(data: Path) -> list[PreferencePair]:
    """The pairs of the three data sets."""
    return [
        pair
        for file in FILES
        for pair in read_pairs(DataConfig(path=str(data / file)))
        if isinstance(pair, PreferencePair)
    ]


def drawn_prompts(data: Path, number: int, seed: int) -> Iterator[Drawn]:
    """As many prompts, of both conditions and all three data sets, with two to five instructions each."""
    pairs = all_pairs(data)
    rng = random.Random(seed)
    others = [Features(text) for pair in rng.sample(pairs, 30) for text in (pair.chosen[:2000], pair.rejected[:400])]
    made = 0
    while True:
        pair, condition = rng.choice(pairs), rng.choice(("all", "any"))
        config = SynthesisConfig.model_validate({"condition": condition, "min_instructions": 2, "max_instructions": 5})
        group = synthesize(pair, config, rng.getrandbits(32))
        if not isinstance(group, RelationGroup):
            continue
        own = [Features(pair.chosen), Features(pair.rejected)]
        for records in group.instructions[1:]:
            if made == number:
                return
            made += 1
            yield Drawn([Instruction.from_record(record) for record in records], [*own, *rng.sample(others, 40)])


def unfit_prompts(data: Path, number: int, seed: int) -> list[Unfit]:
    """What is wrong with that many prompts: none that can't be met, and none with an instruction that says nothing."""
    pool = Pool()
    prompts = drawn_prompts(data, number, seed)
    return [one for i, drawn in enumerate(prompts) for one in pool.unfit(drawn.instructions, drawn.starts, i)]


def main() -> int:
    """Check the chunks that the output file lacks; print what each found and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the three data sets")
    parser.add_argument("--prompts", type=int, default=40_000)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    lines = args.output.read_text().splitlines() if args.output.exists() else []
    done = [json.loads(line) for line in lines]
    for chunk in range(len(done), -(-args.prompts // CHUNK)):
        started = time.process_time()
        unfit = unfit_prompts(args.data, CHUNK, chunk + 1)
        done.append({"seed": chunk + 1, "seconds": round(time.process_time() - started, 1), "unfit": unfit})
        with args.output.open("a", encoding="utf-8") as output:
            output.write(json.dumps(done[-1]) + "\n")
        print(f"{len(done) * CHUNK} prompts", *unfit, sep="\n  ", flush=True)
    found = [one for chunk in done for one in chunk["unfit"]]
    print(f"{len(done) * CHUNK} prompts, {len(found)} unfit, {sum(one['seconds'] for one in done):.0f} CPU seconds")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
