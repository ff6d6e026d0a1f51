"""What is trusted, and what is passed over."""

from pathlib import Path

import pytest

from mapl_ray.training.checkpoint import checkpoint_path, commit_checkpoint, latest_checkpoint, remove_old


def make(directory: Path, step: int, fingerprint: str = "run") -> Path:
    path = checkpoint_path(directory, step)
    (path / "state").mkdir(parents=True)
    (path / "state" / "shard.pt").write_bytes(b"weights of %d" % step)
    commit_checkpoint(path, step, fingerprint, world_size=2, zero_stage=3)
    return path


def test_newest_whole_one_is_taken(tmp_path: Path) -> None:
    make(tmp_path, 2)
    newest = make(tmp_path, 10)
    found = latest_checkpoint(tmp_path, "run")
    assert found is not None
    assert found[0] == newest
    assert (found[1].step, found[1].world_size) == (10, 2)


@pytest.mark.parametrize("damage", ["truncate", "delete", "no manifest", "half a manifest"])
def test_damaged_one_is_passed_over(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = make(tmp_path, 2), make(tmp_path, 4)
    shard, manifest = bad / "state" / "shard.pt", bad / "manifest.json"
    if damage == "truncate":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "delete":
        shard.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text()[:20])
    found = latest_checkpoint(tmp_path, "run")
    assert found is not None
    assert found[0] == good
    assert "step-00000004 passed over" in capsys.readouterr().out


def test_other_settings_are_not_resumed_from(tmp_path: Path) -> None:
    make(tmp_path, 2, fingerprint="other")
    assert latest_checkpoint(tmp_path, "run") is None


def test_old_ones_are_removed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make(tmp_path, step)
    remove_old(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
