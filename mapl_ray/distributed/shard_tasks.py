"""Part-by-part work on Ray Data: every part is written once and whole, whoever computes it and however often.

Ray retries tasks and actors; a part's bytes follow from its input alone and are renamed into place, so a retry writes
the same file again and nothing is lost or doubled. The manifest is committed last, by the driver.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.data
from tqdm import tqdm

from mapl_ray.errors import RunError
from mapl_ray.shards import Manifest, Part, commit, fingerprint_of, finished, finished_part, read_manifest

# Ray's own default is for ever: a row that kills its worker would do so again and again.
MAX_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that turns every part of one data set into the same part of another."""

    name: str
    source: Path
    target: Path
    recipe: str  # fingerprint of everything but the source that decides the content

    @property
    def fingerprint(self) -> str:
        """Of the whole target."""
        return fingerprint_of([self.name, self.recipe, read_manifest(self.source).content_hash])

    def part_fingerprint(self, part: Part) -> str:
        """Of one part: unchanged parts survive when others change."""
        return fingerprint_of([self.name, self.recipe, part.index, part.sha256])


def run_stage(stage: Stage, compute: Callable[[ray.data.Dataset], ray.data.Dataset]) -> tuple[Manifest, int]:
    """Bring the target up to date; returns its manifest and the number of parts that had to be made.

    `compute` maps a data set of `{"index", "fingerprint"}` rows to one of `{"index", "error"}`, having written the
    parts. Raises `RunError` for a part that could not be made; the finished ones stay and are taken over next time.
    """
    if (manifest := finished(stage.target, stage.fingerprint)) is not None:
        return manifest, 0
    source = read_manifest(stage.source)
    (stage.target / "manifest.json").unlink(missing_ok=True)  # a stale target must not be taken for this one
    wanted = {part.index: stage.part_fingerprint(part) for part in source.parts}
    missing = {i: mark for i, mark in wanted.items() if finished_part(stage.target, i, mark) is None}
    if missing:
        items = [{"index": index, "fingerprint": mark} for index, mark in sorted(missing.items())]
        with warnings.catch_warnings():
            # Ray 2.60 offers no other way to bound retries, and says that this one goes in 2.64.
            warnings.simplefilter("ignore", DeprecationWarning)
            results = compute(ray.data.from_items(items, override_num_blocks=len(items)))
        rows = _watched(results, stage, len(items))
        if errors := [row["error"] for row in rows if row["error"]]:
            raise RunError(f"{stage.name}: {errors[0]}")
    parts = [finished_part(stage.target, index, mark) for index, mark in sorted(wanted.items())]
    if any(part is None for part in parts):
        lost = [index for index, part in zip(sorted(wanted), parts, strict=True) if part is None]
        raise RunError(
            f"{stage.target}: parts {lost} are not there after the stage. On a cluster, output_dir must be on storage "
            "that all nodes share."
        )
    return commit(stage.target, stage.name, stage.fingerprint, [part for part in parts if part is not None]), len(
        missing
    )


def _watched(results: ray.data.Dataset, stage: Stage, total: int) -> list[dict[str, Any]]:
    """Result rows as they come, with a bar of our own: Ray Data's shows blocks and resources, not work."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    label = f"  {stage.name} {stage.target.name}"
    return list(tqdm(results.iter_rows(), desc=label, total=total, unit="part", disable=total == 1))


def part_by_index(directory: Path, index: int) -> Part:
    """The entry of one part, without looking at the others' files."""
    return next(part for part in read_manifest(directory, verify=False).parts if part.index == index)


def plain(stage: Stage) -> dict[str, Any]:
    """A stage as task arguments."""
    return {name: str(value) for name, value in asdict(stage).items()}


def stage_of(values: dict[str, Any]) -> Stage:
    """The inverse of `plain`."""
    return Stage(values["name"], Path(values["source"]), Path(values["target"]), values["recipe"])


def column(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Result rows as the batch format of Ray Data."""
    return {"index": [row["index"] for row in rows], "error": [row["error"] for row in rows]}
