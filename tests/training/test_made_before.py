"""Token ids that were made before training, and a checkpoint taken over from another run."""

from pathlib import Path
from typing import Any

import pytest

from mapl_ray.batches import TokenIds
from mapl_ray.config import TrainConfig
from mapl_ray.data.records import TOKEN_SCHEMA
from mapl_ray.data.shards import commit, read_groups, write_part
from mapl_ray.errors import RunError, UserError
from mapl_ray.training.checkpoint import (
    begin_checkpoint,
    commit_checkpoint,
    damage,
    read_checkpoint_manifest,
    written_files,
)
from mapl_ray.training.group_table import GroupTable, encode_all
from mapl_ray.training.resume import adopt_checkpoint, find_checkpoint, run_settings


def write_tokens(folder: Path, groups: Path, tokenizer: Any, number: int | None = None) -> Path:
    rows = [TokenIds.of(group, tokenizer).to_row(group.pair_id) for group in read_groups(groups)[:number]]
    commit(folder, "tokenize", "f", [write_part(folder, 0, rows, [], TOKEN_SCHEMA, "f")])
    return folder


@pytest.mark.parametrize("limit", [256, 40])
def test_nothing_is_tokenized_where_the_ids_are_there(tmp_path: Path, data: Path, tokenizer: Any, limit: int) -> None:
    config = TrainConfig(max_sequence_tokens=limit)
    indices = list(range(13))
    expected = encode_all(GroupTable(data / "train"), indices, tokenizer, config)
    table = GroupTable(data / "train", tokens=write_tokens(tmp_path, data / "train", tokenizer))
    found = encode_all(table, indices, None, config)  # no tokenizer that could be asked
    assert found == expected
    assert (found.counts["too_long"] > 0) == (limit == 40)


def test_tokens_of_other_groups_are_refused(tmp_path: Path, data: Path, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="not of the groups in"):
        GroupTable(data / "train", tokens=write_tokens(tmp_path, data / "train", tokenizer, 5))


def settings(config: TrainConfig) -> dict[str, Any]:
    return run_settings(config, "rm", model="m", data="d", world_size=2)


def test_a_checkpoint_taken_over_belongs_to_the_run_with_the_new_values(tmp_path: Path) -> None:
    theirs, ours = TrainConfig(learning_rate=1e-3), TrainConfig(learning_rate=2e-3)
    source, target = tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints"
    written = begin_checkpoint(source, 5)
    (written / "weights").write_bytes(b"w" * 100)
    files = [written_files(written, [written / "weights"])]
    path = commit_checkpoint(written, 5, files=files, world_size=2, zero_stage=2, settings=settings(theirs))
    with pytest.raises(RunError, match=r"step-00000006: can't be taken over: its manifest is missing"):
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
