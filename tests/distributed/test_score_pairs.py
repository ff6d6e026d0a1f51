"""Pairs -> scores of a judge and a reward model -> groups with soft instructions, with real engines."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.config import RunConfig, parse_config
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import iter_rows, read_manifest
from mapl_ray.distributed.preflight import check_inputs
from mapl_ray.distributed.resources import Node, Resources, check_stage
from mapl_ray.distributed.score_pairs import run_pair_scoring
from mapl_ray.distributed.synthesis_stage import run_synthesis
from mapl_ray.errors import UserError
from mapl_ray.models import RewardScores, load_reward_model, load_tokenizer
from mapl_ray.report import build_data_report
from mapl_ray.synthesis import verify_group
from mapl_ray.training.export import export_model

SOFT = ("formal_tone", "gives_a_reason", "step_by_step")
SCORES = ("pair-judgements", "pair-rewards")
WORDS = ["river", "stone", "bread", "lamp", "garden", "winter", "paper", "music", "copper", "window", "seven", "forest"]


def config_of(folder: Path, model: Path, **scoring: Any) -> RunConfig:
    values = {
        "name": "run",
        "output_dir": str(folder / "runs"),
        "data": {"path": str(folder / "pairs.jsonl"), "eval_fraction": 0.25},
        "synthesis": {"rows_per_shard": 10, "soft_confidence": 0.5001, "family_weights": {"soft_tone": 9.0}},
        "model": {"name_or_path": str(model)},
        "scoring": {"max_model_len": 1024, "batch_groups": 8, **scoring},
        "cluster": {"synthesis_workers": 2},  # the shared cluster has room for eight: each costs seconds to start
    }
    return parse_config(values, "test")


@dataclass(frozen=True)
class Scored:
    """A run whose pairs were judged and rewarded, none dropped."""

    folder: Path
    model: Path
    options: dict[str, Any]
    config: RunConfig


@pytest.fixture(scope="module")
def scored(local_ray: None, judge_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    folder, rng = tmp_path_factory.mktemp("pairs"), random.Random(1)
    texts = [[" ".join(rng.choices(WORDS, k=k)).capitalize() + "." for k in (6, 14, 9)] for _ in range(30)]
    texts[4][1] = "river " * 300  # no engine of 1024 tokens takes it
    rows = [{"prompt": x, "chosen": chosen, "rejected": rejected, "margin": 5.0} for x, chosen, rejected in texts]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = RewardScores(load_reward_model(judge_model, "float32", seed=5))
    with torch.no_grad():  # a fresh head is close to zero; margins should differ
        reward.model.score.weight.mul_(20.0)
    export_model(reward.model, load_tokenizer(judge_model), None, folder / "rm", "A test's model.")
    options = {
        "judge": {"model": "policy", "functions": list(SOFT)},
        "pair_reward_model": str(folder / "rm"),
    }
    config = config_of(folder, judge_model, **options, pair_margin={"fill_margin": True})
    run_synthesis(config)
    return Scored(folder, judge_model, options, config)


def rows_of(config: RunConfig, name: str) -> dict[str, dict[str, Any]]:
    return {row["pair_id"]: row for split in ("train", "eval") for row in iter_rows(config.data_dir / name / split)}


def files_of(config: RunConfig, *names: str) -> dict[Path, int]:
    parts = [path for name in names for path in (config.data_dir / name).rglob("part-*")]
    return {path: path.stat().st_mtime_ns for path in parts}


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.long
def test_pairs_are_judged_and_soft_instructions_enter(scored: Scored) -> None:
    config = scored.config
    for split in ("train", "eval"):
        pairs = read_manifest(config.data_dir / "pairs" / split)
        for name in (*SCORES, "pairs-scored"):
            assert read_manifest(config.data_dir / name / split).input_rows == pairs.rows
    judged, rewards = rows_of(config, "pair-judgements"), rows_of(config, "pair-rewards")
    pairs = rows_of(config, "pairs-scored")
    assert len(pairs) == 30
    assert pairs.keys() - judged.keys() == pairs.keys() - rewards.keys()
    assert len(judged) == 29  # the long one goes on without scores
    for pair_id, pair in pairs.items():
        if pair_id not in judged:
            assert (pair["judgements"], pair["margin"]) == ([], None)
            continue
        assert tuple(judgement["name"] for judgement in pair["judgements"]) == SOFT
        assert all(0.0 <= p <= 1.0 for j in pair["judgements"] for p in (j["chosen"], j["rejected"]))
        assert pair["margin"] == rewards[pair_id]["chosen"] - rewards[pair_id]["rejected"]
    groups = [RelationGroup.from_row(row) for row in rows_of(config, "groups").values()]
    used = [record.name for group in groups for record in group.instructions[1]]
    assert set(used) & set(SOFT)
    assert all(verify_group(group) == [] for group in groups)
    assert all(group.margin == pairs[group.pair_id]["margin"] for group in groups)


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.long
def test_a_rerun_skips_and_another_bound_scores_nothing_again(
    scored: Scored, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(scored.config, *SCORES, "pairs-scored", "groups")
    run_synthesis(scored.config)
    assert capsys.readouterr().out.count("already there, skipped") == 8
    assert files_of(scored.config, *SCORES, "pairs-scored", "groups") == before

    rewards = rows_of(scored.config, "pair-rewards")
    margins = {pair_id: row["chosen"] - row["rejected"] for pair_id, row in rewards.items()}
    bound = sorted(margins.values())[10]
    narrow = config_of(scored.folder, scored.model, **scored.options, pair_margin={"min_margin": bound})
    engines = files_of(scored.config, *SCORES)
    run_synthesis(narrow)
    assert files_of(narrow, *SCORES) == engines
    kept = rows_of(narrow, "pairs-scored")
    assert kept.keys() == {pair_id for pair_id, margin in margins.items() if margin >= bound}
    assert {row["margin"] for row in kept.values()} == {5.0}  # the annotator's
    rejected = [
        json.loads(line)
        for file in (narrow.data_dir / "pairs-scored").rglob("rejected-*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert len(rejected) == 10 + 1
    assert {item["stage"] for item in rejected} == {"score"}
    assert len({item["row"] for item in rejected} & {*range(30)}) == len(rejected)  # rows of pairs.jsonl
    assert [item["row"] for item in rejected if item["pair_id"] not in margins] == [4]
    for item in rejected:
        assert f"{margins[item['pair_id']]:+.4f}" in item["reason"] if item["pair_id"] in margins else "no reward"
    assert rows_of(narrow, "groups").keys() <= kept.keys()
    page = build_data_report(narrow.data_dir).read_text()
    assert "under the reward model is below" in page
    assert "pairs-scored/train" in page
    run_synthesis(config_of(scored.folder, scored.model))
    assert "pairs-scored" not in build_data_report(narrow.data_dir).read_text()
    assert not any(row["judgements"] for row in rows_of(narrow, "pairs").values())
    none_left = config_of(scored.folder, scored.model, **scored.options, pair_margin={"min_margin": 1e9})
    with pytest.raises(UserError, match=r"min_margin=1000000000.0: none of .* is left"):
        run_pair_scoring(none_left)


def test_what_can_be_known_before_is_told_before(tmp_path: Path, judge_model: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "Why?", "chosen": "So.", "rejected": "No."}\n')
    for scoring, message in (
        ({"judge": {"model": "policy", "functions": ["word_count"]}}, "'word_count' is not a soft function"),
        ({"judge": {"model": "./not/here"}}, "./not/here: no such model directory"),
        ({"pair_reward_model": "./not/here"}, "./not/here: no such model directory"),
    ):
        with pytest.raises(UserError, match=message):
            check_inputs(config_of(tmp_path, judge_model, **scoring), ("synthesize",))
    wide = config_of(tmp_path, judge_model, judge={"model": "policy"}, cpus_per_engine=4)
    check_inputs(wide, ("synthesize",))
    with pytest.raises(UserError, match=r"score pairs needs 1 x \(4 CPU"):
        check_stage("score pairs", wide, Resources((Node(2, 0), Node(2, 0))))
