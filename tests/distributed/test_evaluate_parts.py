"""Parts of an evaluation on Ray: values, the same bytes whoever made them, damage, leases, groups without a reward."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.cli import main
from mapl_ray.config import RunConfig, parse_config
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.data.shards import commit, iter_rows, read_manifest, write_part
from mapl_ray.distributed.evaluate import run_evaluation
from mapl_ray.distributed.evaluation_groups import evaluation_groups
from mapl_ray.distributed.evaluation_scores import EvaluationScores
from mapl_ray.distributed.score_actor import ScoreShard
from mapl_ray.distributed.shard_tasks import Stage
from mapl_ray.evaluation import Results
from mapl_ray.evaluation.checkpoints import named_checkpoints
from mapl_ray.evaluation.evaluated import Encoders
from mapl_ray.lease import lease, lease_path
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model
from mapl_ray.scoring import ColumnScorer, TreeOptions
from mapl_ray.training.export import export_model

PARTS, GROUPS = 3, 4  # of the held-out split, and in each of its parts
ROWS = [{"prompt": f"Why {n}?", "chosen": f"river stone {n}", "rejected": "bread"} for n in range(3)]


def config_of(folder: Path, models: Sequence[Path], reference: Path, **evaluation: Any) -> RunConfig:
    values = {
        "name": "run",
        "output_dir": str(folder),
        "train": {"max_sequence_tokens": 256},
        "evaluation": {
            "models": [str(model) for model in models],
            "reference": str(reference),
            "sets": {"mine": str(folder / "rows.jsonl")},
            "invariance": True,
            "bootstrap_samples": 20,
            **evaluation,
        },
    }
    return parse_config(values, "test")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A run that two actors evaluated."""

    folder: Path
    models: list[Path]  # a reward model, a policy
    reference: Path
    groups: list[RelationGroup]
    results: Results

    @property
    def evaluation(self) -> Path:
        return self.folder / "run" / "evaluation"


@pytest.fixture(scope="module")
def evaluated(
    local_ray: None,
    tiny_model: Path,
    tiny_reward_model: Path,
    tokenizer: Any,
    grid_groups: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Evaluated:
    """Every third group has ref_logps, one is too long; the reference is another model than the policy."""
    folder = tmp_path_factory.mktemp("parts")
    model = load_policy(tiny_model, "float32")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.5)
    export_model(model, tokenizer, None, folder / "policy", "A test's model.")
    groups: list[RelationGroup] = [
        replace(group, ref_logps=group.ref_logps if n % 3 == 0 else None)
        for n, group in enumerate(grid_groups(PARTS * GROUPS))
    ]
    groups[5] = replace(groups[5], responses=("river " * 300, "stone"))
    for split, some in (("train", groups[:1]), ("eval", groups)):
        directory = folder / "run" / "groups" / split
        pieces = [some[start : start + GROUPS] for start in range(0, len(some), GROUPS)]
        parts = [
            write_part(directory, n, [group.to_row() for group in piece], [], GROUP_SCHEMA, str(n))
            for n, piece in enumerate(pieces)
        ]
        commit(directory, "synthesize", "made for the test", parts)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    models = [tiny_reward_model, folder / "policy"]
    results = run_evaluation(config_of(folder, models, tiny_model, concurrency=[2, 2]))
    return Evaluated(folder, models, tiny_model, groups, results)


def scores(folder: Path) -> dict[tuple[str, int], list[float]]:
    """By the group's id and its place among those with the same id: the group, then its variants."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in iter_rows(folder):
        place = sum(key[0] == row["pair_id"] for key in found)
        found[row["pair_id"], place] = row["scores"]
    return found


def padded(module: torch.nn.Module, groups: list[RelationGroup], tokenizer: Any) -> list[list[float]]:
    """Group by group, one padded row per sequence."""
    found = []
    for group in groups:
        encoded = encode_group(group, tokenizer, 256)
        assert isinstance(encoded, EncodedGroup)
        with torch.no_grad():
            found.append(module.eval()(collate([encoded], "padded", tokenizer.pad_token_id)).tolist())
    return found


@pytest.mark.ray
@pytest.mark.long
def test_scores_are_those_of_padded_rows(evaluated: Evaluated, tokenizer: Any) -> None:
    kept = [group for n, group in enumerate(evaluated.groups) if n != 5]
    rm, policy = evaluated.models
    modules = {
        f"scores/{rm.name}": RewardScores(load_reward_model(rm, "float32")),
        f"scores/{policy.name}": PolicyLogps(load_policy(policy, "float32")),
        "ref_logps": PolicyLogps(load_policy(evaluated.reference, "float32")),
    }
    for name, module in modules.items():
        found = scores(evaluated.evaluation / name / "held-out")
        expected = padded(module, kept, tokenizer)
        if name == "ref_logps":  # a group that has them keeps them
            expected = [
                list(group.ref_logps) if group.ref_logps is not None else of_group
                for group, of_group in zip(kept, expected, strict=True)
            ]
        values = [found[group.pair_id, 0] for group in kept]
        atol = 1e-5 if "rm" in name else 1e-4  # of sums over up to 30 tokens
        np.testing.assert_allclose(np.array(values), np.array(expected), rtol=0, atol=atol)
    provenance = evaluated.results["provenance"]
    assert provenance is not None
    counts = provenance["counts"]
    assert counts["held-out groups"] == len(kept)
    assert counts["held-out groups left out as too long"] == 1
    assert evaluated.results["counts"]["groups"] == len(kept)
    assert evaluated.results["sets"]["mine"]["counts"] == {"rows": 3, "used": 3, "rejected": 0, "too long": 0}


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("part-*.parquet")}


def hashes(folder: Path) -> dict[Path, str]:
    return {path: read_manifest(path.parent).content_hash for path in folder.rglob("manifest.json")}


@pytest.mark.ray
@pytest.mark.long
def test_another_run_makes_what_is_missing_or_damaged_and_nothing_else(
    evaluated: Evaluated, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a killed run leaves it: one model without a manifest and with one part of three, the other one damaged."""
    before, content = files(evaluated.evaluation), hashes(evaluated.evaluation)
    rm, policy = (evaluated.evaluation / "scores" / model.name / "held-out" for model in evaluated.models)
    (policy / "manifest.json").unlink()
    for index in (0, 2):
        (policy / f"part-{index:05d}.json").unlink()
    damaged = rm / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    again = {policy / "part-00000.parquet", policy / "part-00002.parquet", damaged}
    capsys.readouterr()
    results = run_evaluation(config_of(evaluated.folder, evaluated.models, evaluated.reference, concurrency=[1, 1]))
    printed = capsys.readouterr().out
    after = files(evaluated.evaluation)
    assert {path for path in after if after[path] != before[path]} - again == {
        path for path in after if path.parent.parent.name == "rows"
    }
    assert all(after[path] != before[path] for path in again)
    assert hashes(evaluated.evaluation) == content  # by one actor, what two had made
    assert "1 parts made" in printed
    assert "2 parts made" in printed
    first, second = ({**one, "provenance": None, "config": None} for one in (evaluated.results, results))
    assert first == second


@pytest.mark.ray
@pytest.mark.long
def test_a_finished_evaluation_computes_nothing(evaluated: Evaluated, tokenizer: Any) -> None:
    """Another beta is another reward of the same scores."""
    before = files(evaluated.evaluation / "scores")
    config = config_of(evaluated.folder, evaluated.models, evaluated.reference)
    beta = config.training("dpo").beta
    results = run_evaluation(config.model_copy(update={"dpo": {"beta": 2 * beta}}))
    assert files(evaluated.evaluation / "scores") == before
    name = evaluated.models[1].name
    # Divided by the tokens of the response, where training was.
    checkpoints = named_checkpoints([str(model) for model in evaluated.models])
    encoders = Encoders.of(checkpoints, 256)
    held_out = config.data_dir / "groups" / "eval"
    groups = evaluation_groups(config, checkpoints, encoders, held_out, [])["held-out"]
    normalised = config.model_copy(update={"dpo": {"objective": {"length_normalised": True}}})
    whole, per_token = (EvaluationScores(one, encoders).rewards(checkpoints[1], groups) for one in (config, normalised))
    tokens = [
        len(encoded.response_ids[cell.response])
        for n, group in enumerate(evaluated.groups)
        if n != 5 and isinstance(encoded := encode_group(group, tokenizer, 256), EncodedGroup)
        for cell in group.sequences
    ]
    np.testing.assert_allclose(per_token * np.array(tokens), whole, rtol=1e-5, atol=1e-6)
    margins = [one["models"][name]["levels"]["pref"]["mean_margin"] for one in (evaluated.results, results)]
    assert margins[1] == pytest.approx(2 * margins[0], rel=1e-4)


def test_a_second_evaluation_of_the_run_is_refused(
    tiny_reward_model: Path, grid_groups: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "eval"):
        directory = tmp_path / "run" / "groups" / split
        part = write_part(directory, 0, [group.to_row() for group in grid_groups(2)], [], GROUP_SCHEMA, "f")
        commit(directory, "synthesize", "f", [part])
    words = ["evaluate", f"output_dir={tmp_path}", "name=run", "--models", str(tiny_reward_model)]
    with lease(lease_path(tmp_path / "run", "evaluate")):
        assert main(words) == 2
    assert "another run of evaluate is at work there" in capsys.readouterr().err


def test_a_group_without_a_finite_reward_is_an_error_and_is_tried_again(
    tiny_reward_model: Path, tokenizer: Any, grid_groups: Any, tmp_path: Path
) -> None:
    """The actor's own code, in this process."""
    model = load_reward_model(tiny_reward_model, "float32")
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    export_model(model, tokenizer, None, tmp_path / "nan", "A test's model.")
    rows = [group.to_row() for group in grid_groups(2)]
    commit(tmp_path / "groups", "s", "f", [write_part(tmp_path / "groups", 0, rows, [], GROUP_SCHEMA, "f")])
    config = config_of(tmp_path, [], tiny_reward_model, sets={})
    stages, scorers = [], []
    for name, path in (("nan", tmp_path / "nan"), ("sound", tiny_reward_model)):
        options = TreeOptions.of_evaluation(config, str(path), None, "rm", max_tokens=256)
        stages.append(Stage("evaluate", tmp_path / "groups", tmp_path / name / "scores", "recipe"))
        scorers.append(ColumnScorer("rewards", options, f"evaluate {name}", whole=True))
    actor = ScoreShard(stages, scorers, 8, "run")
    found = [actor({"stage": n, "index": 0, "fingerprint": "f"}) for n in (0, 1)]
    assert not found[0]["mistake"]
    assert found[0]["error"].startswith("evaluate nan, group pair-0000 of made-up: scores [nan")
    assert list((tmp_path / "nan" / "scores").iterdir()) == []  # no journal either: another run computes it again
    assert found[1] == {"error": "", "mistake": False}
    assert (tmp_path / "sound" / "scores" / "part-00000.parquet").is_file()
