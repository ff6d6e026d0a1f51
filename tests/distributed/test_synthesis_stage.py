"""Real pairs through Ray Data: the same bytes whatever the workers, shards and order; accounting; takeover."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.config import RunConfig, parse_config
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import Manifest, iter_rows, read_manifest
from mapl_ray.distributed.prepare import prepare_pairs
from mapl_ray.distributed.shard_tasks import Stage
from mapl_ray.distributed.synthesis_stage import recipe_of, run_synthesis, split_configs
from mapl_ray.distributed.synthesize_actor import SynthesizeShard
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY
from mapl_ray.synthesis import verify_group

pytestmark = pytest.mark.ray
ROWS = 240


@pytest.fixture(scope="module")
def real_rows(shared_data: Path) -> list[dict[str, Any]]:
    """The first real pairs, one doubled and one broken."""
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(ROWS), strict=False)]
    return [*rows, rows[0], {**rows[1], "id": "broken", "chosen": ""}]


def config_of(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> RunConfig:
    folder.mkdir(parents=True)
    source = folder / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {
        "name": "run",
        "output_dir": str(folder / "runs"),
        "data": {"path": str(source), "eval_fraction": 0.2},
        "synthesis": {"rows_per_shard": 60},
        "cluster": {"synthesis_workers": 2},  # the shared cluster has room for eight: each costs seconds to start
    }
    return parse_config({**values, **changes}, "test")


def contents(config: RunConfig) -> dict[str, str]:
    return {split: read_manifest(config.run_dir / "groups" / split).content_hash for split in ("train", "eval")}


def test_same_bytes_for_any_order_and_number_of_workers(
    local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    shuffled = random.Random(3).sample(real_rows, len(real_rows))
    orders = {1: real_rows, 2: list(reversed(real_rows)), 4: shuffled}
    configs = [
        config_of(tmp_path / str(n), rows, cluster={"synthesis_workers": n}, synthesis={"rows_per_shard": 20})
        for n, rows in orders.items()
    ]
    manifests = [run_synthesis(config) for config in configs]
    assert len(manifests[0]["train"].parts) >= 8  # two for each of four
    assert contents(configs[0]) == contents(configs[1]) == contents(configs[2])


@pytest.mark.long
def test_same_rows_in_the_same_order_for_any_shards(
    local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    sizes = (10_000, 80, 7)
    configs = [config_of(tmp_path / str(n), real_rows, synthesis={"rows_per_shard": n}) for n in sizes]
    parts = [len(run_synthesis(config)["train"].parts) for config in configs]
    assert parts[:2] == [1, 3]
    assert parts[2] > 20
    first, *others = (list(iter_rows(config.run_dir / "groups" / "train")) for config in configs)
    assert all(rows == first for rows in others)


def assert_rows_are_named(rejected: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Each by the file and the number of the row that its pair was read from."""
    assert {item["source"] for item in rejected} <= {"pairs.jsonl"}
    for item in rejected:
        assert rows[item["row"]]["id"] == item["pair_id"].partition("#")[0], item
        assert item["row"] >= 0


def test_accounting_split_and_skipping(
    local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path / "run", real_rows)
    manifests = run_synthesis(config)
    pairs = {split: read_manifest(config.run_dir / "pairs" / split) for split in ("train", "eval")}
    assert sum(manifest.input_rows for manifest in pairs.values()) == len(real_rows)
    for split, manifest in manifests.items():
        assert manifest.input_rows == pairs[split].rows
        assert manifest.rows > 0.9 * manifest.input_rows
    (file,) = (config.run_dir / "pairs" / "train").glob("rejected-*.jsonl")
    reasons = file.read_text(encoding="utf-8")
    assert_rows_are_named([json.loads(line) for line in reasons.splitlines()], real_rows)
    assert "more than once" in reasons
    assert "chosen" in reasons
    prompts = [
        {json.dumps(row["prompts"][0]) for row in iter_rows(config.run_dir / "groups" / split)}
        for split in ("train", "eval")
    ]
    assert not prompts[0] & prompts[1]
    before = {path: path.stat().st_mtime_ns for path in config.run_dir.rglob("part-*")}
    capsys.readouterr()
    assert run_synthesis(config) == manifests
    assert "already there, skipped" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in config.run_dir.rglob("part-*")} == before


def test_unfinished_and_damaged_parts_are_made_again(
    local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """What a killed run leaves: no manifest, a part without its entry, a part cut short."""
    config = config_of(tmp_path / "run", real_rows)
    run_synthesis(config)
    expected, groups = contents(config), config.run_dir / "groups" / "train"
    (groups / "manifest.json").unlink()
    (groups / "part-00000.json").unlink()
    damaged = groups / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    kept = (groups / "part-00002.parquet").stat().st_mtime_ns
    run_synthesis(config)
    assert contents(config) == expected
    assert (groups / "part-00002.parquet").stat().st_mtime_ns == kept


def test_a_changed_config_makes_new_groups(local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", real_rows[:40])
    first = run_synthesis(config)["train"].content_hash
    changed = config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"max_instructions": 1})})
    assert run_synthesis(changed)["train"].content_hash != first
    assert all(len(row["instructions"][1]) == 1 for row in iter_rows(config.run_dir / "groups" / "train"))


def test_several_groups_a_pair_are_accounted_for(
    local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # With one function and one instruction, many further groups are the same again, and are rejected.
    values = {"groups_per_pair": 4, "functions": ["sentence_count"], "max_instructions": 1, "rows_per_shard": 30}
    config = config_of(tmp_path / "run", real_rows[:80], synthesis=values)
    manifests = run_synthesis(config)
    told = capsys.readouterr().out
    for split, manifest in manifests.items():
        folder, pairs = config.run_dir / "groups" / split, read_manifest(config.run_dir / "pairs" / split).rows
        rows = list(iter_rows(folder))
        rejected = [json.loads(line) for file in folder.glob("rejected-*.jsonl") for line in file.open()]
        assert manifest.input_rows == 4 * pairs == len(rows) + len(rejected)
        assert_rows_are_named(rejected, real_rows)
        ids = [item["pair_id"] for item in (*rows, *rejected)]
        assert len(set(ids)) == len(ids)
        assert {"", "#2", "#3", "#4"} == {i[i.index("#") :] if "#" in i else "" for i in ids}
        assert f"{split}: {pairs} pairs x 4 -> {manifest.rows} groups" in told
    assert manifests["train"].rejected > 0
    assert manifests["train"].rows > read_manifest(config.run_dir / "pairs" / "train").rows


def test_held_out_families_and_judgements(local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path) -> None:
    judgements = [{"name": "formal_tone", "chosen": 0.9, "rejected": 0.1}]
    rows = [{**row, "judgements": judgements} for row in real_rows]
    values = {"held_out_families": ["keywords", "soft_tone"], "rows_per_shard": 100, "max_instructions": 5}
    config = config_of(tmp_path / "run", rows, synthesis=values)
    run_synthesis(config)
    families = {
        split: {
            REGISTRY[record["name"]].family
            for row in iter_rows(config.run_dir / "groups" / split)
            for record in row["instructions"][1]
        }
        for split in ("train", "eval")
    }
    assert families["eval"] - families["train"] == {"keywords", "soft_tone"}
    groups = [RelationGroup.from_row(row) for row in iter_rows(config.run_dir / "groups" / "eval")]
    assert all(verify_group(group) == [] for group in groups)
    kept = {split: read_manifest(config.run_dir / "groups" / split).content_hash for split in ("train", "eval")}
    other = config.synthesis.model_copy(update={"held_out_families": ("soft_tone",)})
    run_synthesis(config.model_copy(update={"synthesis": other}))
    assert contents(config)["eval"] == kept["eval"]  # nothing about that split has changed
    assert contents(config)["train"] != kept["train"]


def test_functions_of_ones_own_reach_the_workers(
    local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from mapl_ray.instructions import instruction_function\n\n\n"
        "@instruction_function(family='topic', check=lambda text, args: (args['sign'] in text.text) == args['use'],\n"
        "    phrasings=lambda args: [('Use' if args['use'] else 'Avoid') + ' ' + args['sign'] + '.'])\n"
        "def stage_sign(case, rng):\n"
        "    sign = rng.choice(',:()-')\n"
        "    sides = {(sign in text.text) == flag for text, flag in case.flags}\n"
        "    return {'sign': sign, 'use': sides.pop()} if len(sides) == 1 else None\n"
    )
    config = config_of(
        tmp_path / "run",
        real_rows[:60],
        synthesis={"modules": ["stage_signs.py"], "functions": ["stage_sign"], "max_instructions": 1},
    )
    (tmp_path / "stage_signs.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # a relative path means the same to the workers, which run elsewhere
    manifest = run_synthesis(config)["train"]
    names = {r["name"] for row in iter_rows(config.run_dir / "groups" / "train") for r in row["instructions"][1]}
    assert names == {"stage_sign"}
    plain = split_configs(config.synthesis)["train"]
    assert recipe_of(plain, 0) != recipe_of(plain.model_copy(update={"modules": ()}), 0)
    part, stage = manifest.parts[0], tmp_path / "other"
    stages = [Stage("synthesize", config.run_dir / "pairs" / "train", stage, "r")]
    row = {"stage": 0, "index": part.index, "fingerprint": "f"}
    made = SynthesizeShard(stages, [plain], seed=0, digests=["of another version"])(row)
    assert "this node has another version" in made["error"]
    assert not stage.exists()


def test_no_usable_row_is_the_users_mistake(tmp_path: Path) -> None:
    row = {"prompt": "Say something.", "chosen": "same", "rejected": "same"}
    config = config_of(tmp_path / "run", [row, row])
    with pytest.raises(UserError, match="none of its 2 rows could be used"):
        prepare_pairs(config)
    assert not (config.run_dir / "pairs" / "train" / "manifest.json").exists()


def test_unknown_function_is_told_before_any_part(
    local_ray: None, real_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = config_of(tmp_path / "run", real_rows[:10], synthesis={"functions": ["word_cuont"]})
    with pytest.raises(UserError, match="word_cuont"):
        run_synthesis(config)


def test_manifest_type(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", [{"prompt": "Why?", "chosen": "Because it is.", "rejected": "No."}])
    manifests = prepare_pairs(config)
    assert all(isinstance(manifest, Manifest) for manifest in manifests.values())
    assert sum(manifest.rows for manifest in manifests.values()) == 1
