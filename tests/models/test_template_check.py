"""Chat templates that refuse the data: rows rejected with row and reason, or the run refused with the cure."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.batches import RENDER
from mapl_ray.cli import main
from mapl_ray.config import RunConfig, TrainConfig, parse_config
from mapl_ray.data.records import GROUP_SCHEMA, Message, Rejection, RelationGroup
from mapl_ray.data.shards import commit, write_part
from mapl_ray.distributed.preflight import check_inputs
from mapl_ray.distributed.prepare import prepare_pairs
from mapl_ray.doctor import diagnose
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation.evaluated import usable_rows
from mapl_ray.evaluation.public_sets import PublicSet, SetRow
from mapl_ray.models import check_rendering
from mapl_ray.training.feed import Feed
from mapl_ray.training.group_table import GroupTable, encode_all

TEMPLATES = Path(__file__).resolve().parents[3] / "shared" / "inputs" / "templates"
SYSTEM = (TEMPLATES / "refuses_system.jinja").read_text()
PARTS = (TEMPLATES / "content_parts.jinja").read_text()
ROWS = [
    {"prompt": f"Why is stone {n} wet?", "chosen": f"The river ran over it {n} times.", "rejected": "It just is."}
    for n in range(4)
]
WITH_SYSTEM = {
    **ROWS[0],
    "id": "with-system",
    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
}
Model = Callable[[str], Path]


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Model:
    """`model(template)`: the tiny model with that chat template."""

    def make(template: str) -> Path:
        folder = shutil.copytree(tiny_model, tmp_path / f"model-{abs(hash(template))}", dirs_exist_ok=True)
        (folder / "chat_template.jinja").write_text(template)
        return folder

    return make


def config_of(tmp_path: Path, model: Path, rows: list[Any], **sections: Any) -> RunConfig:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "output_dir": str(tmp_path / "runs"),
        "data": {"path": str(data), "eval_fraction": 0.0},
        "model": {"name_or_path": str(model)},
        "scoring": {"max_model_len": 256},
        "train": {"max_sequence_tokens": 256},
    }
    return parse_config({**values, **sections}, "test")


def rejected(config: RunConfig) -> Iterator[dict[str, Any]]:
    for file in sorted((config.data_dir / "pairs" / "train").glob("rejected-*.jsonl")):
        yield from map(json.loads, file.read_text().splitlines())


def test_rows_that_a_template_refuses_are_rejected_with_row_and_reason(model: Model, tmp_path: Path) -> None:
    config = config_of(tmp_path, model(SYSTEM), [*ROWS[:2], WITH_SYSTEM, *ROWS[2:]])
    assert prepare_pairs(config)["train"].rows == 4
    (row,) = rejected(config)
    assert (row["row"], row["pair_id"], row["source"]) == (2, "with-system", "pairs.jsonl")
    assert "the chat template refuses system, user: System role not supported" in row["reason"]
    # Another template takes other rows: what was read by this one is not taken for its.
    other = config_of(tmp_path, model("{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"), [])
    shutil.copy(tmp_path / "pairs.jsonl", tmp_path / "again.jsonl")
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, WITH_SYSTEM]))
    assert prepare_pairs(other)["train"].rows == 5


@pytest.mark.parametrize(
    ("template", "rows", "words"),
    [
        (SYSTEM, [WITH_SYSTEM], "System role not supported"),
        (PARTS, ROWS, "the chat template leaves out the text of message 0 (user: 'Why is stone 0 wet?')"),
    ],
)
def test_a_template_that_takes_no_row_ends_the_run(
    template: str, rows: list[Any], words: str, model: Model, tmp_path: Path
) -> None:
    config = config_of(tmp_path, model(template), rows)
    with pytest.raises(UserError, match=r"none of its \d+ rows could be used") as told:
        prepare_pairs(config)
    assert f"row 0: {words}" in str(told.value).replace("the chat template refuses system, user: ", "")
    assert "edit the template (chat_template.jinja)" in str(told.value)
    levels = {finding.level for finding in diagnose(config) if finding.what == "chat template"}
    assert levels == {"fail"}


def test_the_doctor_names_a_pair(model: Model, tmp_path: Path) -> None:
    config = config_of(tmp_path, model(SYSTEM), [*ROWS, WITH_SYSTEM])
    (found,) = (finding for finding in diagnose(config) if finding.what == "chat template")
    assert found.level == "warn"
    assert "refuses 1 of the first 5 pairs; with-system: the chat template refuses system, user: System" in found.detail
    (fine,) = (one for one in diagnose(config_of(tmp_path, model(SYSTEM), ROWS)) if one.what == "chat template")
    assert fine.level == "ok"
    assert "accepts the first 4 pairs of the data" in fine.detail


def with_system(group: RelationGroup) -> RelationGroup:
    return replace(group, prompts=tuple((Message("system", "Be brief."), *prompt) for prompt in group.prompts))


def write(config: RunConfig, groups: list[RelationGroup]) -> None:
    for split in ("train", "eval"):
        folder = config.data_dir / "groups" / split
        commit(folder, "synthesize", "f", [write_part(folder, 0, [g.to_row() for g in groups], [], GROUP_SCHEMA, "f")])


@pytest.mark.parametrize("stage", ["score", "train rm", "train dpo", "tune"])
def test_groups_that_a_template_refuses_end_a_stage_before_it_starts(
    stage: str, model: Model, grid_groups: Any, tmp_path: Path
) -> None:
    config = config_of(tmp_path, model(SYSTEM), ROWS)
    groups = grid_groups(3)
    write(config, [with_system(group) for group in groups])
    with pytest.raises(
        UserError, match=r"model\.name_or_path=.*none of 3 groups tried: pair 'pair-0000' of made-up: the chat template"
    ):
        check_inputs(config, (stage,))
    write(config, [with_system(groups[0]), *groups[1:]])
    check_inputs(config, (stage,))  # in part: rejected one by one


def test_other_models_are_tried_too(
    model: Model, tiny_model: Path, tiny_reward_model: Path, grid_groups: Any, tmp_path: Path
) -> None:
    rewards = shutil.copytree(tiny_reward_model, tmp_path / "rewards")
    (rewards / "chat_template.jinja").write_text(PARTS)
    scoring = {"reward_model": str(rewards), "max_model_len": 256}
    config = config_of(tmp_path, tiny_model, ROWS, scoring=scoring, evaluation={"models": [str(rewards)]})
    write(config, grid_groups(2))
    for stage, key in (("score", r"scoring\.reward_model="), ("evaluate", r"evaluation\.models: ")):
        with pytest.raises(
            UserError, match=rf"{key}.*none of 2 groups tried: pair 'pair-0000' of made-up: .* leaves out the text"
        ):
            check_inputs(config, (stage,))
    check_rendering(grid_groups(2), tiny_model)


def test_one_message_and_exit_code_2(
    model: Model, grid_groups: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(SYSTEM)
    write(config_of(tmp_path, folder, ROWS), [with_system(group) for group in grid_groups(2)])
    words = [f"output_dir={tmp_path / 'runs'}", f"model.name_or_path={folder}", "train.max_sequence_tokens=256"]
    for command in (["train", "rm"], ["train", "dpo"], ["score", "scoring.max_model_len=256"]):
        assert main([*command, *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("mapl: error: model.name_or_path=")
        assert error.count("\n") == 1
        assert "System role not supported. Use a model whose chat template supports such conversations" in error


def test_training_leaves_out_what_a_template_refuses_and_counts_it(
    tokenizer: Any, grid_groups: Any, tmp_path: Path
) -> None:
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = SYSTEM
    groups = grid_groups(4)
    folder = tmp_path / "groups"
    rows = [group.to_row() for group in (with_system(groups[0]), *groups[1:])]
    commit(folder, "synthesize", "f", [write_part(folder, 0, rows, [], GROUP_SCHEMA, "f")])
    config, table = TrainConfig(max_sequence_tokens=256), GroupTable(folder)
    found = encode_all(table, [0, 1, 2, 3], changed, config)
    assert [group.pair_id for group in found.groups] == [group.pair_id for group in groups[1:]]
    assert found.counts == {"refused_by_template": 1}
    rows = [with_system(group).to_row() for group in groups]
    commit(folder, "synthesize", "f", [write_part(folder, 0, rows, [], GROUP_SCHEMA, "f")])
    feed = Feed.of(
        GroupTable(folder),
        changed,
        config,
        replica=0,
        replicas=1,
        takes_ref_logps=False,
        row_tokens=None,
        pad_to_multiple_of=1,
        on_gpu=False,
    )
    with pytest.raises(
        RunError, match=r"no group can be trained on\. pair 'pair-0000' of made-up: the chat template refuses system"
    ):
        feed._filler(0)


class Refusing:
    """Encoders whose chat template refuses some groups."""

    def __init__(self, refused: list[str]) -> None:
        self._refused = refused

    def response_tokens(self, group: RelationGroup) -> list[list[int]] | Rejection:
        if group.pair_id in self._refused:
            return Rejection("set", -1, group.pair_id, RENDER, "no system role")
        return [[1, 1]]


def test_rows_of_a_set_become_rejections_of_the_set(grid_groups: Any) -> None:
    groups = grid_groups(3)
    found = PublicSet("mine", "pairs", "", rows=[SetRow((group,), "", n) for n, group in enumerate(groups, 5)])
    encoders: Any = Refusing([groups[0].pair_id])
    usable = usable_rows(found, {2: 0}, encoders)  # the second one is too long
    assert [row.row for row in usable.rows] == [7]
    assert usable.places == [[0]]
    assert [row.row for row in found.rows] == [6, 7]
    assert [(one.pair_id, one.row, one.stage, one.reason) for one in found.rejected] == [
        (groups[0].pair_id, 5, "evaluate", "no system role")
    ]
    assert found.input_rows == 3
    all_refused: Any = Refusing([group.pair_id for group in groups])
    with pytest.raises(UserError, match=r"evaluation\.sets\.mine: no row can be used\. set, row 6: no system role"):
        usable_rows(found, {}, all_refused)
