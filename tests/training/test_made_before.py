"""Token ids that were made before training, and a checkpoint taken over from another run."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.batches import TokenIds
from mapl_ray.config import TrainConfig
from mapl_ray.data.kept_tokens import KeptTokens
from mapl_ray.data.records import TOKEN_SCHEMA
from mapl_ray.data.shards import commit, read_groups, read_manifest, write_part
from mapl_ray.errors import RunError, UserError
from mapl_ray.training.checkpoint import (
    begin_checkpoint,
    commit_checkpoint,
    damage,
    read_checkpoint_manifest,
    written_files,
)
from mapl_ray.training.group_table import MAPPED_FROM, GroupTable, encode_all
from mapl_ray.training.resume import adopt_checkpoint, find_checkpoint, run_settings


def write_tokens(folder: Path, groups: Path, tokenizer: Any) -> KeptTokens:
    """As `run_tokenization` leaves them."""
    rows = [TokenIds.of(group, tokenizer).to_row(group.pair_id) for group in read_groups(groups)]
    kept = KeptTokens(folder, "recipe")
    part = write_part(folder, 0, rows, [], TOKEN_SCHEMA, "f")
    commit(folder, "tokenize", kept.fingerprint(read_manifest(groups)), [part])
    return kept


@pytest.mark.parametrize(("limit", "mapped_from"), [(256, MAPPED_FROM), (40, MAPPED_FROM), (256, 0)])
def test_nothing_is_tokenized_where_the_ids_are_there(
    tmp_path: Path, data: Path, tokenizer: Any, limit: int, mapped_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = TrainConfig(max_sequence_tokens=limit)
    indices = list(range(13))
    expected = encode_all(GroupTable(data / "train"), indices, tokenizer, config)
    kept = write_tokens(tmp_path / "tokens", data / "train", tokenizer)
    table = GroupTable(data / "train", tokens=kept, mapped_from=mapped_from)
    found = encode_all(table, indices, None, config)  # no tokenizer that could be asked
    assert found == expected
    assert (found.counts["too_long"] > 0) == (limit == 40)
    files = [path.name for path in tmp_path.glob("mapl-groups-*/*.arrow")]
    assert len(files) == (2 if mapped_from == 0 else 0)  # groups and ids


def damage_part(folder: Path) -> None:
    part = folder / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-8])


NOT_USED: dict[str, tuple[Callable[[Path], object], str, str]] = {  # what happens to them, groups they are of, message
    "of other groups": (lambda folder: None, "eval", "not of the groups in"),
    "of the same pairs with other texts": (lambda folder: None, "train unscored", "not of the groups in"),
    "by another model": (lambda folder: None, "train", "not of the groups in"),
    "damaged": (damage_part, "train", "part-00000.parquet: missing or damaged"),
    "gone": (shutil.rmtree, "train", "does not exist"),
}


@pytest.mark.parametrize("case", NOT_USED)
def test_wrong_or_stale_ids_are_not_used(
    tmp_path: Path, data: Path, tokenizer: Any, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, source, message = NOT_USED[case]
    kept = write_tokens(tmp_path / "tokens", data / source, tokenizer)
    spoil(kept.folder)
    if case == "by another model":
        kept = replace(kept, recipe="another")
    config, indices = TrainConfig(max_sequence_tokens=256), list(range(13))
    table = GroupTable(data / "train", tokens=kept)
    assert table.token_ids(0) is None
    expected = encode_all(GroupTable(data / "train"), indices, tokenizer, config)
    assert encode_all(table, indices, tokenizer, config) == expected
    printed = capsys.readouterr().out
    assert "kept token ids are not used, groups are tokenized during training" in printed
    assert message in printed


def settings(config: TrainConfig) -> dict[str, Any]:
    return run_settings(config, "rm", model="m", data="d", world_size=2)


def test_a_checkpoint_taken_over_belongs_to_the_run_with_the_new_values(tmp_path: Path) -> None:
    theirs, ours = TrainConfig(learning_rate=1e-3), TrainConfig(learning_rate=2e-3)
    source, target = tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints"
    written = begin_checkpoint(source, 5)
    (written / "weights").write_bytes(b"w" * 100)
    files = [written_files(written, [written / "weights"])]
    path = commit_checkpoint(written, 5, files=files, world_size=2, zero_stage=2, settings=settings(theirs))
    with pytest.raises(RunError, match=r"step-00000006: can't be copied: its manifest is missing"):
        adopt_checkpoint(source, target, 6, ours)
    copy = adopt_checkpoint(source, target, 5, ours)
    found = find_checkpoint(target, settings(ours))
    assert found is not None
    assert (found.step, found.world_size, found.path) == (5, 2, str(copy))
    with pytest.raises(UserError, match=r"train.learning_rate: 0.002 there, 0.001 now"):
        find_checkpoint(target, settings(theirs))
    before, after = read_checkpoint_manifest(path)[0], read_checkpoint_manifest(copy)[0]
    assert before is not None
    assert after is not None
    assert before.files == after.files
    assert damage(path, before) == ""  # the other run can go on from it as well
    adopt_checkpoint(source, target, 5, ours)  # once more, after a death in between
    (path / "weights").write_bytes(b"v" * 100)
    with pytest.raises(RunError, match="weights is damaged"):
        adopt_checkpoint(source, target, 5, ours)
