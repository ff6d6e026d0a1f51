"""Folders on a machine that others use too."""

import os
import stat
from pathlib import Path

import pytest

from mapl_ray.private_files import private_folder


def test_it_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    os.umask(before := os.umask(0))
    folder = private_folder("mapl-x", tmp_path)
    assert folder == tmp_path / f"mapl-x-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 & ~before
    assert private_folder("mapl-x", tmp_path) == folder


@pytest.mark.parametrize("kind", ["open", "group", "link", "file"])
def test_what_someone_else_put_there_is_not_used(kind: str, tmp_path: Path) -> None:
    there, elsewhere = tmp_path / f"mapl-x-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if kind == "link":
        there.symlink_to(elsewhere)
    elif kind == "file":
        there.touch(mode=0o600)
    else:
        there.mkdir()
        there.chmod(0o777 if kind == "open" else 0o770)
    with pytest.raises(PermissionError, match="expected a folder that only this user can access"):
        private_folder("mapl-x", tmp_path)
