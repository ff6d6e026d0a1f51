"""Export plain rows to a folder of Parquet files, one per part of the groups' data set.

    part-00000.parquet     rows of the groups in part 0

The folder holds nothing else, so that pandas and `datasets` can open it. Each file is written atomically, and its
metadata has a fingerprint of everything that determines its content. So a killed export continues with the missing
parts, and other files are never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mapl_ray.awaited import awaited
from mapl_ray.data.records import SCHEMA_VERSION, RelationGroup
from mapl_ray.data.shards import Manifest, Part, fingerprint_of, read_batches, read_manifest, verify_part
from mapl_ray.errors import RunError, UserError
from mapl_ray.lease import lease_path
from mapl_ray.synthesis.export_files import Exported, exported_before, write_export
from mapl_ray.synthesis.plain_rows import ExportFormat, Prompts, check_format
from mapl_ray.unfinished import becomes

_NAMED = 3  # files listed in a message


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """An export into a folder."""

    source: Path  # data set of groups
    folder: Path  # absolute: tasks start in other folders than the driver
    format: ExportFormat
    prompts: Prompts

    @property
    def lease(self) -> Path:
        """Path of the lease to hold while writing parts."""
        return lease_path(self.folder, "export")

    def manifest(self) -> Manifest:
        """Manifest of the groups; each part is checked against its digest when it is read.

        Raises `UserError`, before anything is written, if there are no finished groups, the format or prompts are
        unknown, or the folder holds other files.
        """
        check_format(self.format, self.prompts)
        manifest = read_manifest(self.source, verify=False)
        self._check_names(manifest)
        return manifest

    def missing(self, manifest: Manifest) -> list[Part]:
        """Parts that are not exported yet; removes unfinished files of killed exports.

        Raises `UserError` for a file that has the name of a part but is not from this export.
        """
        missing = []
        for part in manifest.parts:
            if not self._file(part).exists():
                missing.append(part)
            elif self._exported(part) is None:
                raise UserError(
                    f"{self._file(part)} is from another export (other groups or format) or another program. "
                    "Nothing is overwritten: name another folder, or remove the files in this one."
                )
        for name in self._check_names(manifest):
            (self.folder / name).unlink(missing_ok=True)
        return missing

    def write_part(self, part: Part) -> None:
        """Write the rows of one part, with one batch of groups in memory.

        Raises as `write_export` does, and `UserError` for a damaged part.
        """
        verify_part(self.source, part)
        write_export(self._groups(part), self.format, self._file(part), self.prompts, self._fingerprint(part))

    def exported(self, manifest: Manifest) -> Exported:
        """Total counts of all files. Raises `RunError` if one is missing after the export."""
        total = awaited(lambda: self._total(manifest), self.folder)
        if total is None:
            names = self.unwritten(manifest.parts)
            raise RunError(
                f"{self.folder}: {names} not there after the export. On a cluster, --output must be on storage that "
                "all nodes share."
            )
        return total

    def unwritten(self, parts: Sequence[Part]) -> str:
        """Names of the missing files: the first few and the number of others."""
        missing = [part.file for part in parts if not self._file(part).is_file()]
        return ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")

    def _total(self, manifest: Manifest) -> Exported | None:
        total = Exported()
        for part in manifest.parts:
            found = self._exported(part)
            if found is None:
                return None
            total.add(found)
        return total

    def _exported(self, part: Part) -> Exported | None:
        return exported_before(self._file(part), self._fingerprint(part))

    def _groups(self, part: Part) -> Iterator[RelationGroup]:
        for batch in read_batches(self.source, part):
            yield from map(RelationGroup.from_row, batch.to_pylist())

    def _file(self, part: Part) -> Path:
        return self.folder / part.file

    def _fingerprint(self, part: Part) -> str:
        return fingerprint_of([SCHEMA_VERSION, self.format, self.prompts, part.index, part.sha256])

    def _check_names(self, manifest: Manifest) -> list[str]:
        """Names of unfinished files. Raises `UserError` for files that are not from this export."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(
                f"--output {self.folder}: is a file, but --parts and a path that ends with / write a folder. "
                "Name a folder."
            )
        ours, half_written = {part.file for part in manifest.parts}, []
        for name in sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else ():
            if becomes(name) in ours:
                half_written.append(name)
            elif name not in ours and name != self.lease.parent.name:
                raise UserError(
                    f"--output {self.folder}: it holds {name}, which is not from this export. Nothing is overwritten "
                    "or deleted: name a new or an empty folder."
                )
        return half_written
