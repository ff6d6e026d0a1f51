"""A disk that is really full: nothing half-written stays, and what is told is a sentence."""

import errno
from pathlib import Path

import pytest

from benchmarks.reliability.disk import enlarge, no_mount, small_disk
from mapl_ray.data.records import PAIR_SCHEMA, Message, PreferencePair
from mapl_ray.data.shards import finished_part, write_part
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

    assert work({"path": __file__}) == {"error": "", "mistake": False}
    assert (
        f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path / 'gone'}'"
        in (work({"path": str(tmp_path / "gone")})["error"])
    )


@pytest.mark.skipif(bool(no_mount()), reason=no_mount() or "can be done")
def test_a_part_that_has_no_room_leaves_nothing_and_is_made_with_room(tmp_path: Path) -> None:
    texts = [bytes(range(33, 127)).decode() * 3 + str(index**9) for index in range(4000)]
    prompt = (Message("user", "Why?"),)
    rows = [PreferencePair(f"id-{n}", prompt, text, text[::-1], "made-up").to_row() for n, text in enumerate(texts)]
    disk = tmp_path / "disk"
    with small_disk(disk, 16):
        with pytest.raises(OSError, match="No space left on device") as caught:
            write_part(disk, 0, rows, [], PAIR_SCHEMA, "f")
        assert no_space(caught.value) is not None
        assert list(disk.iterdir()) == []
        assert finished_part(disk, 0, "f") is None
        enlarge(disk)
        made = write_part(disk, 0, rows, [], PAIR_SCHEMA, "f")
        assert finished_part(disk, 0, "f") == made
