"""Make the data sets of an evaluation, one task per part: held-out groups with their variants, and public sets.

scored/eval or groups/eval               -> evaluation/groups/held-out
rows of a public set, in the driver      -> evaluation/rows/NAME -> evaluation/groups/NAME
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from mapl_ray.batches import ENCODING
from mapl_ray.config import RunConfig
from mapl_ray.data.group_columns import groups_to_table
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.data.shards import (
    Manifest,
    commit,
    fingerprint_of,
    read_manifest,
    read_notes,
    read_table,
    write_part,
)
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, errors_as_rows, rows_of_part, run_stages, write_rows
from mapl_ray.distributed.synthesis_stage import recipe_of, split_configs
from mapl_ray.errors import RunError
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.column_table import COLUMN_SCHEMA
from mapl_ray.evaluation.evaluated import EVALUATED_SCHEMA, ITSELF, Encoders, evaluated_part
from mapl_ray.evaluation.items import IntArray
from mapl_ray.evaluation.public_sets import PublicSet
from mapl_ray.evaluation.variants import variant_kinds
from mapl_ray.synthesis import load_modules

HELD_OUT = "held-out"  # name of the data set; a public set can't have it: see `set_folder`
_MEASURED = ("pair_id", *COLUMN_SCHEMA.names)  # the columns of `GroupColumns`
_WORKER_ROWS = 1000  # starting a process takes about as long as tokenizing this many
_SET_PART = 256  # groups of a public set in one part


@dataclass(frozen=True, slots=True)
class EvaluationGroups:
    """A finished data set in `EVALUATED_SCHEMA`."""

    name: str  # of its folder
    folder: Path
    manifest: Manifest
    kinds: tuple[str, ...]  # of variants
    counts: dict[str, int] = field(default_factory=dict)  # `EvaluatedPart.notes`, summed over all parts
    first_rejection: str = ""

    def tables(self, kind: str = ITSELF, columns: Sequence[str] = _MEASURED) -> Iterator[pa.Table]:
        """Rows of one kind of variant, or of the groups themselves: the given columns, part by part."""
        for part in self.manifest.parts:
            table = read_table(self.folder, part, [*columns, "variant"])
            yield table.filter(pc.equal(table.column("variant"), kind))

    def masks(self, kind: str) -> list[pa.ChunkedArray]:
        """Boolean masks of the rows of one kind, per part."""
        return [
            pc.equal(read_table(self.folder, part, ["variant"]).column("variant"), kind) for part in self.manifest.parts
        ]

    def sizes(self) -> IntArray:
        """Number of sequences of every group, without variants."""
        tables = self.tables(columns=["cell_prompts"])
        found = [pc.list_value_length(table.column("cell_prompts")).to_numpy() for table in tables]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def places(self) -> IntArray:
        """Index of every group among all groups of the source, without variants."""
        found, first = list[IntArray](), 0
        for part, table in zip(self.manifest.parts, self.tables(columns=["of"]), strict=True):
            found.append(table.column("of").to_numpy() + first)
            first += (part.rows + part.rejected) // (1 + len(self.kinds))
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def originals(self, kind: str) -> IntArray:
        """For every variant of one kind, the index of its original group."""
        found, number = list[IntArray](), 0
        for own, of in zip(self.tables(columns=["of"]), self.tables(kind, ["of"]), strict=True):
            places = own.column("of").to_numpy()
            found.append(np.searchsorted(places, of.column("of").to_numpy()) + number)
            number += len(places)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def row(self, index: int) -> dict[str, Any]:
        """The row of a group, in `GROUP_SCHEMA`; `index` counts the groups themselves, without variants."""
        return self.rows([index])[0]

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Rows of several groups, in the given order; every part is read once."""
        found, first = dict[int, dict[str, Any]](), 0
        for part, mask in zip(self.manifest.parts, self.masks(ITSELF), strict=True):
            size = pc.sum(mask).as_py() or 0
            wanted = sorted(index for index in {*indices} if first <= index < first + size)
            if wanted:  # the groups themselves come first in a part
                some = read_table(self.folder, part).take([index - first for index in wanted]).to_pylist()
                found |= {index: RelationGroup.from_row(row).to_row() for index, row in zip(wanted, some, strict=True)}
            first += size
        if missing := {*indices} - found.keys():
            raise IndexError(min(missing))
        return [found[index] for index in indices]


@dataclass(frozen=True, slots=True)
class _Work:
    """Arguments of a task in addition to its part."""

    models: tuple[Checkpoint, ...]
    max_tokens: int
    modules: tuple[str, ...]
    seed: int
    kinds: dict[str, tuple[str, ...]]  # of variants, by the name of the data set


def set_folder(name: str) -> str:
    """Name of the data set of a public set."""
    return f"set-{name}"


def evaluation_groups(
    config: RunConfig,
    models: Sequence[Checkpoint],
    encoders: Encoders,
    held_out: Path | None,
    sets: Sequence[PublicSet],
) -> dict[str, EvaluationGroups]:
    """Update all data sets in one pass; returns them by name: `HELD_OUT` if there are held-out groups, and the sets."""
    root = config.run_dir / "evaluation"
    synthesis = split_configs(config.synthesis)["eval"]
    kinds = {HELD_OUT: variant_kinds(config.synthesis.held_out_phrasings) if config.evaluation.invariance else ()}
    sources = {} if held_out is None else {HELD_OUT: held_out}
    sources |= {set_folder(one.name): _write_rows(root, one) for one in sets if one.rows}
    recipe = {**encoders.recipe, "encoding": ENCODING, "columns": EVALUATED_SCHEMA.names}
    stages = [
        Stage(
            "evaluation groups",
            source,
            root / "groups" / name,
            fingerprint_of({**recipe, "kinds": kinds.get(name, ()), "synthesis": recipe_of(synthesis, config.seed)}),
            results_per_row=1 + len(kinds.get(name, ())),
            cache=True,
        )
        for name, source in sources.items()
    ]
    work = _Work(tuple(models), encoders.max_tokens, tuple(synthesis.modules), config.seed, kinds)

    def compute(shards: ray.data.Dataset) -> ray.data.Dataset:
        rows = sum(read_manifest(stage.source, verify=False).rows for stage in stages)
        return shards.map(
            _make,
            fn_kwargs={"stages": stages, "work": work},
            # By default Ray Data would start one process per part at once, and each loads torch first.
            compute=ray.data.TaskPoolStrategy(size=max(1, rows // _WORKER_ROWS)),
            num_cpus=1,
            max_retries=MAX_RETRIES,
        )

    done = run_stages(stages, compute) if stages else []
    return {
        name: _described(name, stage, manifest, kinds.get(name, ()))
        for name, stage, (manifest, _) in zip(sources, stages, done, strict=True)
    }


def _described(name: str, stage: Stage, manifest: Manifest, kinds: tuple[str, ...]) -> EvaluationGroups:
    counts = {"groups": 0, "too long": 0, "refused": 0, "without ref_logps": 0}
    first = ""
    for part in manifest.parts:
        notes = read_notes(stage.target, part)
        if not isinstance(notes, dict) or not counts.keys() <= notes.keys():
            raise RunError(
                f"{stage.target}: the notes of part {part.index} are missing. Delete it and run the stage again."
            )
        counts = {key: number + int(notes[key]) for key, number in counts.items()}
        first = first or str(notes["first"])
    return EvaluationGroups(name, stage.target, manifest, kinds, counts, first)


def write_groups(folder: Path, groups: Sequence[RelationGroup], digest: str, part_size: int = _SET_PART) -> Manifest:
    """Write groups from the driver's memory as a data set. The same groups give the same bytes. `digest` identifies
    their source."""
    pieces = [groups[start : start + part_size] for start in range(0, len(groups), part_size)]
    parts = [
        write_part(folder, index, groups_to_table(piece), [], GROUP_SCHEMA, digest)
        for index, piece in enumerate(pieces)
    ]
    return commit(folder, "evaluate", digest, parts)


def _write_rows(root: Path, found: PublicSet) -> Path:
    """Write the groups of all rows of a public set; returns the folder."""
    folder = root / "rows" / set_folder(found.name)
    write_groups(folder, [group for row in found.rows for group in row.groups], found.digest)
    return folder


@errors_as_rows
def _make(row: dict[str, Any], *, stages: list[Stage], work: _Work) -> dict[str, Any]:
    stage, index = stages[int(row["stage"])], int(row["index"])
    load_modules(work.modules)
    groups = [RelationGroup.from_row(one) for one in rows_of_part(stage.source, index)]
    kinds, encoders = work.kinds.get(stage.target.name, ()), _encoders(work.models, work.max_tokens)
    made = evaluated_part(groups, encoders, kinds, work.seed)
    return write_rows(stage, row, made.table, made.rejections, EVALUATED_SCHEMA, made.notes)


@lru_cache(maxsize=1)
def _encoders(models: tuple[Checkpoint, ...], max_tokens: int) -> Encoders:
    return Encoders.of(models, max_tokens)
