"""Memory of training's tables: per rank for a million groups, and bytes per stored token id.

    python benchmarks/training_tables.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --groups 1000000 --ranks 2

Ranks are processes that open groups with short texts (only the number of groups matters), their token ids and sizes,
and the order of two epochs: once with a copy per rank, and once memory-mapped. `own` is the growth of a rank's own
memory (anonymous pages), `shared` are the files below TMPDIR, one copy per machine. The bytes of ids are from real
groups with SmolLM2's tokenizer. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import re
import tempfile
import time
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
from training import load_groups

from mapl_ray.batches import TokenIds
from mapl_ray.config import TrainConfig
from mapl_ray.data.kept_tokens import KeptTokens
from mapl_ray.data.records import GROUP_SCHEMA, TOKEN_SCHEMA, RelationGroup
from mapl_ray.data.shards import commit, part_name, read_manifest, write_part
from mapl_ray.models import load_tokenizer, smollm2_directory
from mapl_ray.training.group_table import GroupTable
from mapl_ray.training.plan import StepPlan

PART = 50_000  # groups
NEVER = 2**62  # bytes of Parquet
_OWN = re.compile(r"^Anonymous:\s+(\d+) kB", re.MULTILINE)


def own_mib() -> float:
    """Anonymous pages of this process (pages without a file), in MiB."""
    return sum(map(int, _OWN.findall(Path("/proc/self/smaps_rollup").read_text()))) / 2**10


def write_copies(folder: Path, row: dict[str, object], schema: pa.Schema, number: int, fingerprint: str) -> int:
    """Write a data set of `number` rows that only differ in their ids; return its bytes in memory."""
    one, parts, size = pa.Table.from_pylist([row], schema).take(pa.array([0] * PART)), [], 0
    for index, start in enumerate(range(0, number, PART)):
        ids = pa.array([f"pair-{n:09d}" for n in range(start, min(start + PART, number))])
        table = one.slice(0, len(ids)).set_column(schema.get_field_index("pair_id"), "pair_id", ids)
        parts.append(write_part(folder, index, table, [], schema, fingerprint))
        size += table.nbytes
    commit(folder, "made up", fingerprint, parts)
    return size


def rank(groups: Path, kept: KeptTokens, mapped_from: int, pipe: Connection) -> None:
    """Open everything and report MiB and seconds; wait until the other ranks have done so."""
    gc.collect()
    before, began, config = own_mib(), time.monotonic(), TrainConfig(epochs=2)
    table = GroupTable(groups, tokens=kept, mapped_from=mapped_from)
    opened = own_mib() - before
    plan = StepPlan.of(config, table.sizes(config), 1, mapped=table.is_large)
    plan.groups_of_step(0)
    plan.groups_of_step(plan.steps_per_epoch)
    assert table.token_ids(len(table) - 1) is not None
    pipe.send((opened, own_mib() - before - opened, time.monotonic() - began))
    pipe.recv()


def measure(groups: Path, kept: KeptTokens, mapped_from: int, ranks: int) -> tuple[list[float], float]:
    """Means over ranks (MiB of groups and ids, MiB of sizes and order, seconds), and MiB of the shared files."""
    spawn, running = multiprocessing.get_context("spawn"), []
    for _ in range(ranks):
        here, there = spawn.Pipe()
        process = spawn.Process(target=rank, args=(groups, kept, mapped_from, there))
        process.start()
        running.append((process, here))
    found = [pipe.recv() for _, pipe in running]
    files = Path(os.environ["TMPDIR"]).glob("mapl-groups-*/*")
    shared = sum(file.stat().st_size for file in files) / 2**20
    for process, pipe in running:
        pipe.send("leave")
        process.join()
    return [sum(values) / ranks for values in zip(*found, strict=True)], shared


def bytes_of_ids(data: str, number: int, folder: Path) -> None:
    """Print the size of stored token ids of real groups."""
    tokenizer, groups = load_tokenizer(smollm2_directory()), load_groups(data, number)
    began = time.process_time()
    found = [TokenIds.of(group, tokenizer) for group in groups]
    seconds = time.process_time() - began
    table = pa.Table.from_pylist(
        [ids.to_row(group.pair_id) for ids, group in zip(found, groups, strict=True)], TOKEN_SCHEMA
    )
    write_part(folder, 0, table, [], TOKEN_SCHEMA, "f")
    ids = sum(len(one) for group in found for one in (*group.prompt_ids, *group.response_ids))
    size = (folder / part_name(0)).stat().st_size
    print(f"kept ids of {len(groups)} groups, SmolLM2's tokenizer: {ids / len(groups):.0f} ids per group,")
    print(f"{size / ids:.2f} bytes of Parquet per id, {size / len(groups):.0f} per group, {table.nbytes / ids:.2f} in")
    print(f"memory per id; {1000 * seconds / len(groups):.2f} ms of a core per group to make\n")


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="preference pairs, to measure the bytes per id")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--groups", type=int, default=1_000_000)
    parser.add_argument("--ranks", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TMPDIR"] = name
        bytes_of_ids(args.data, args.pairs, folder / "ids")
        (group, *_) = load_groups(args.data, 1)
        row = shortened(group).to_row()
        groups, kept = folder / "groups", KeptTokens(folder / "tokens", "made up")
        size = write_copies(groups, row, GROUP_SCHEMA, args.groups, "made up")
        ids = {"pair_id": "", "prompt_ids": [[1] * 4] * len(group.prompts), "response_ids": [[1] * 4] * 2}
        size += write_copies(kept.folder, ids, TOKEN_SCHEMA, args.groups, kept.fingerprint(read_manifest(groups)))
        print(f"{args.groups} groups, {size / 2**20:.0f} MiB with their ids, {args.ranks} ranks, {date.today()}\n")
        print("| way | own, groups and ids | own, sizes and two orders | shared | seconds |\n|---|---|---|---|---|")
        for way, mapped_from in (("a copy per rank", NEVER), ("mapped", 0)):
            (opened, planned, seconds), shared = measure(groups, kept, mapped_from, args.ranks)
            print(f"| {way} | {opened:.0f} MiB | {planned:.1f} MiB | {shared:.0f} MiB | {seconds:.1f} |", flush=True)


def shortened(group: RelationGroup) -> RelationGroup:
    """The group with very short texts."""
    prompts = tuple((type(prompt[0])("user", f"x {index}"),) for index, prompt in enumerate(group.prompts))
    return RelationGroup(
        group.pair_id,
        prompts,
        tuple(() for _ in prompts),
        ("yes", "no"),
        group.sequences,
        group.relations,
        "made up",
    )


if __name__ == "__main__":
    main()
