"""Process data sets part by part on Ray Data, with atomic and reproducible output.

Ray retries tasks and actors. A part's bytes depend only on its input, and its file is renamed into place, so a retry
writes the same file again and nothing is lost or duplicated. The driver commits the manifest last.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import pyarrow as pa
import ray
import ray.data

from mapl_ray.aside import set_parts_aside
from mapl_ray.awaited import await_files, awaited
from mapl_ray.data.group_columns import groups_to_table
from mapl_ray.data.records import GROUP_SCHEMA, PreferencePair, Rejection, RelationGroup
from mapl_ray.data.shards import (
    MANIFEST,
    Manifest,
    Part,
    commit,
    fingerprint_of,
    finished,
    finished_part,
    part_name,
    read_manifest,
    read_part,
    remove_strays,
    stage_fingerprint,
    write_part,
)
from mapl_ray.distributed.ray_notice import notice_given
from mapl_ray.distributed.row_numbers import with_source_rows
from mapl_ray.errors import RunError, UserError, first_line, no_space
from mapl_ray.progress import WAITING_SECONDS, tracked

# Ray's default is to retry forever, so a row that kills its worker would do so again and again.
MAX_RETRIES = 2
_NAMED = 3  # number of parts shown in a message
_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that turns every part of one data set into the same part of another."""

    name: str
    source: Path
    target: Path
    recipe: str  # fingerprint of everything but the source that decides the content
    pairs: Path | None = None  # pairs that the source was made from, part by part
    beside: tuple[Path, ...] = ()  # further inputs, made from the source part by part
    results_per_row: int = 1  # rows plus rejections of the target per row of the source
    cache: bool = False  # the target is only a cache: with other settings or data it is overwritten

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the whole target."""
        return stage_fingerprint(self.name, self.recipe, map(read_manifest, (self.source, *self.beside)))

    def wanted(self) -> dict[int, str]:
        """Fingerprint of every part of the target, so that unchanged parts are kept when others change."""
        beside = [{part.index: part.sha256 for part in read_manifest(path).parts} for path in self.beside]
        return {
            part.index: fingerprint_of(
                [self.name, self.recipe, part.index, part.sha256, *(of_part[part.index] for of_part in beside)]
            )
            for part in read_manifest(self.source).parts
        }


def run_stages(
    stages: Sequence[Stage],
    compute: Callable[[ray.data.Dataset], ray.data.Dataset],
) -> list[tuple[Manifest, int]]:
    """Update the targets of all stages in one pass; returns each manifest and its number of new parts.

    `compute` maps a data set of `{"stage", "index", "fingerprint"}` rows (`stage` is an index into `stages`) to one of
    `errors_as_rows` rows and writes the parts. All stages share its actors, which may take long to start. A user's
    mistake raises `UserError` at once, because every part would repeat it. After any other failure the remaining parts
    are made before `RunError` is raised. Finished parts are kept and reused next time.
    """
    whole = [finished(stage.target, stage.fingerprint) for stage in stages]
    wanted = [{} if there else stage.wanted() for stage, there in zip(stages, whole, strict=True)]
    for stage, there, marks in zip(stages, whole, wanted, strict=True):
        if there is None and not stage.cache:
            set_parts_aside(stage.target, stage.fingerprint, marks.values())
    items = [
        {"stage": number, "index": index, "fingerprint": mark}
        for number, (stage, marks) in enumerate(zip(stages, wanted, strict=True))
        for index, mark in sorted(marks.items())
        if finished_part(stage.target, index, mark) is None
    ]
    for stage, there in zip(stages, whole, strict=True):
        if there is None:  # a damaged target must not look complete
            (stage.target / "manifest.json").unlink(missing_ok=True)
        else:  # a run that was killed after its last part may have left a journal
            remove_strays(stage.target, there)
    if items:
        run_items(items, compute, stages[0].name, lambda: _not_made(stages, items))
    return [
        (_accounted(stage, there or _committed(stage, marks)), sum(item["stage"] == number for item in items))
        for number, (stage, there, marks) in enumerate(zip(stages, whole, wanted, strict=True))
    ]


def run_items(
    items: Sequence[Mapping[str, Any]],
    compute: Callable[[ray.data.Dataset], ray.data.Dataset],
    name: str,
    not_made: Callable[[], str],
) -> None:
    """Compute all items with Ray Data. `compute` is as for `run_stages`; `not_made` names missing parts.

    Raises `UserError` for a user's mistake as soon as its row arrives, and cancels work in progress. Raises `RunError`
    for the first other failure, once all parts have been tried, and in the cases of `computed`.
    """
    failure = None
    with closing(computed(name, items, compute, not_made)) as rows:
        for row in rows:
            if row["error"]:
                text = f"{name}: {row['error']}"
                if row.get("mistake"):
                    raise UserError(text)
                failure = failure or text
    if failure is not None:
        raise RunError(failure)


def computed(
    name: str,
    items: Sequence[Mapping[str, Any]],
    compute: Callable[[ray.data.Dataset], ray.data.Dataset],
    not_made: Callable[[], str],
) -> Generator[dict[str, Any], None, None]:
    """Yield the items' result rows as they arrive, one block per item, with progress. Closing it ends Ray Data's tasks.

    Raises `RunError` if workers die repeatedly; its message includes the missing parts from `not_made`.
    """
    notice_given()
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to limit retries, and warns that this one will be removed in 2.64.
        warnings.simplefilter("ignore", DeprecationWarning)
        results = compute(ray.data.from_items(list(items), override_num_blocks=len(items)))
    ray.data.DataContext.get_current().enable_progress_bars = False  # they show blocks and resources
    # Prefetching would hold a row back until the next one arrives, which may take an hour.
    blocks = results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        with closing(iter(blocks)) as tables:
            rows = (row for table in tables for row in table.to_pylist())
            yield from tracked(rows, name, "parts", len(items), WAITING_SECONDS)
    except ray.exceptions.RayError as error:
        # A process died too often. An error in a task (RayTaskError) has its own cause and is re-raised.
        if isinstance(error, ray.exceptions.RayTaskError):
            raise
        raise RunError(
            f"{name}: workers died again and again: {first_line(error)} Finished parts are kept; "
            f"not made: {not_made()}. A row that kills its worker is in one of them."
        ) from None


def _not_made(stages: Sequence[Stage], items: Sequence[Mapping[str, Any]]) -> str:
    """Text that names the first missing parts and their source data sets."""
    of_items = [(stages[item["stage"]], item["index"], item["fingerprint"]) for item in items]
    missing = [(stage, index) for stage, index, mark in of_items if finished_part(stage.target, index, mark) is None]
    named = ", ".join(f"part {index} of {stage.source}" for stage, index in missing[:_NAMED])
    return named + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")


def _committed(stage: Stage, wanted: dict[int, str]) -> Manifest:
    parts: dict[int, Part] = {}

    def look() -> list[Part] | None:
        for index, mark in wanted.items():
            if index not in parts and (part := finished_part(stage.target, index, mark)) is not None:
                parts[index] = part
        return None if len(parts) < len(wanted) else [*parts.values()]

    if (whole := awaited(look, stage.target)) is None:  # the workers have reported all of them
        raise RunError(
            f"{stage.target}: parts {sorted(wanted.keys() - parts.keys())} are missing after the stage. On a cluster, "
            "output_dir must be on storage that all nodes share (check with mapl doctor --config)."
        )
    return commit(stage.target, stage.name, stage.fingerprint, whole)


def _accounted(stage: Stage, manifest: Manifest) -> Manifest:
    """Return the manifest; raise `RunError` for a part whose number of results does not match its source rows."""
    made = {part.index: part for part in manifest.parts}
    for part in read_manifest(stage.source, verify=False).parts:
        found, expected = made.get(part.index), part.rows * stage.results_per_row
        if found is None or found.rows + found.rejected != expected:
            results = "no" if found is None else found.rows + found.rejected
            raise RunError(
                f"{stage.target}: {results} results of part {part.index} of {stage.source}; expected {expected}. "
                f"Delete {stage.target} and run the stage again."
            )
    return manifest


def errors_as_rows(work: Callable[_Arguments, dict[str, Any]]) -> Callable[_Arguments, dict[str, Any]]:
    """Decorator that returns `UserError`, `RunError` and `OSError` as a row; Ray would show exceptions as tracebacks.

    Rows have `error` ("" if there is none) and `mistake` (whether it is a user's mistake).
    """

    @wraps(work)
    def as_row(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> dict[str, Any]:
        try:
            return {**work(*args, **kwargs), "mistake": False}
        except (UserError, RunError) as error:
            return {"error": str(error), "mistake": isinstance(error, UserError)}
        except OSError as error:
            return {"error": no_space(error) or f"{type(error).__name__}: {error}", "mistake": False}

    return as_row


def rows_of_part(directory: Path, index: int) -> list[dict[str, Any]]:
    """All rows of one part of a data set that the driver has seen finished; other parts' files are not read."""
    await_files(directory, [MANIFEST, part_name(index)])
    part = next(part for part in read_manifest(directory, verify=False).parts if part.index == index)
    return read_part(directory, part)


def write_results(
    stage: Stage,
    row: Mapping[str, Any],
    results: Sequence[PreferencePair | Rejection] | Sequence[RelationGroup | Rejection],
    schema: pa.Schema,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the part of `stage.target` given by `row`, with separate records and rejections; returns the result row."""
    rejections = [result for result in results if isinstance(result, Rejection)]
    if schema is GROUP_SCHEMA:
        table = groups_to_table([result for result in results if isinstance(result, RelationGroup)])
    else:
        table = pa.Table.from_pylist([r.to_row() for r in results if isinstance(r, PreferencePair)], schema=schema)
    return write_rows(stage, row, table, rejections, schema, notes)


def write_rows(
    stage: Stage,
    row: Mapping[str, Any],
    rows: Sequence[dict[str, Any]] | pa.Table,
    rejections: Sequence[Rejection],
    schema: pa.Schema,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the part of `stage.target` given by `row`. Rejections name the source row if it is known."""
    index = int(row["index"])
    named = rejections if stage.pairs is None else with_source_rows(rejections, stage.pairs, index)
    write_part(stage.target, index, rows, named, schema, row["fingerprint"], notes)
    return {"error": ""}
