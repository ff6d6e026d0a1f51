"""A disk that is really full: nothing half-written stays, and what is told is a sentence."""

import errno
from pathlib import Path

from mapl_ray.distributed.shard_tasks import errors_as_rows
from mapl_ray.errors import no_space


def test_what_others_say_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    told = no_space(OSError(errno.ENOSPC, "No space left on device", "/runs/part"))
    assert told is not None
    assert "no space is left for /runs/part" in told
    assert no_space(RuntimeError("[Errno 122] Disk quota exceeded")) is not None
    assert no_space(OSError(errno.EACCES, "Permission denied", "/runs/part")) is None
    assert no_space(RuntimeError("file write failed"), tmp_path) is None  # there is room here


def test_errors_of_a_part_come_back_as_rows(tmp_path: Path) -> None:
    @errors_as_rows
    def work(row: dict[str, str]) -> dict[str, str]:
        Path(row["path"]).read_text()
        return {"error": ""}

    assert work({"path": __file__}) == {"error": ""}
    assert (
        f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path / 'gone'}'"
        in (work({"path": str(tmp_path / "gone")})["error"])
    )
