"""vLLM on the CPU against transformers, on the same token ids."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import ModelConfig, ScoringConfig
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model
from mapl_ray.records import Rejection, RelationGroup
from mapl_ray.scoring import EngineOptions, score_groups
from mapl_ray.training.export import export_model

SCORE = """
import json, sys
from mapl_ray.records import RelationGroup
from mapl_ray.scoring import EngineOptions, score_groups
from mapl_ray.scoring.engine import LogprobScorer, RewardScorer
spec = json.load(open(sys.argv[1]))
scorer = {"ref_logps": LogprobScorer, "rewards": RewardScorer}[spec["column"]](EngineOptions(**spec["options"]))
groups = [RelationGroup.from_row(row) for row in spec["groups"]]
json.dump([g.to_row() for g in score_groups(groups, scorer, spec["column"])], open(sys.argv[2], "w"))
"""


def score_in_process(groups: list[RelationGroup], model: Path, column: str, folder: Path) -> list[dict[str, Any]]:
    """An engine keeps its threads and memory for as long as its process lives, so it gets one of its own."""
    import json
    from dataclasses import asdict

    options = EngineOptions.of(ScoringConfig(max_model_len=256), str(model), None, "float32", 0)
    spec, out = folder / "spec.json", folder / "out.json"
    spec.write_text(
        json.dumps({"column": column, "options": asdict(options), "groups": [group.to_row() for group in groups]})
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCORE, str(spec), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    rows: list[dict[str, Any]] = json.loads(out.read_text())
    return rows


def expected(groups: list[RelationGroup], module: torch.nn.Module, tokenizer: Any) -> list[list[float]]:
    values = []
    for group in groups:
        encoded = encode_group(group, tokenizer, 256)
        assert isinstance(encoded, EncodedGroup)
        with torch.no_grad():
            values.append(module(collate([encoded], "padded", tokenizer.pad_token_id)).tolist())
    return values


@pytest.mark.vllm
def test_ref_logps_agree_with_transformers(tiny_model: Path, tokenizer: Any, grid_groups: Any, tmp_path: Path) -> None:
    groups = grid_groups(5)
    # The fourth is too long for the engine: rejected, and the others keep their places.
    groups[3] = replace(groups[3], responses=("river " * 300, "stone"))
    rows = score_in_process(groups, tiny_model, "ref_logps", tmp_path)
    assert rows[3]["stage"] == "score"
    assert "255" in rows[3]["reason"]
    fitting = [group for index, group in enumerate(groups) if index != 3]
    module = PolicyLogps(load_policy(tiny_model, "float32"))
    found = torch.tensor([row["ref_logps"] for index, row in enumerate(rows) if index != 3])
    torch.testing.assert_close(found, torch.tensor(expected(fitting, module, tokenizer)), rtol=0, atol=2e-3)


@pytest.mark.vllm
def test_exported_reward_model_scores_the_same(
    tiny_model: Path, tokenizer: Any, grid_groups: Any, tmp_path: Path
) -> None:
    module = RewardScores(load_reward_model(tiny_model, ModelConfig().dtype, seed=5))
    with torch.no_grad():  # a fresh head is close to zero; rewards should differ
        module.model.score.weight.mul_(20.0)
    export_model(module.model, tokenizer, dict(module.state_dict()), tmp_path / "rm")
    groups = grid_groups(4)
    rows = score_in_process(groups, tmp_path / "rm", "rewards", tmp_path)
    found = torch.tensor([row["rewards"] for row in rows])
    assert found.std() > 0.1
    torch.testing.assert_close(found, torch.tensor(expected(groups, module, tokenizer)), rtol=0, atol=1e-3)
    reloaded = RewardScores(load_reward_model(tmp_path / "rm", "float32"))
    torch.testing.assert_close(
        torch.tensor(expected(groups, reloaded, tokenizer)), torch.tensor(expected(groups, module, tokenizer))
    )


class ConstantScorer:
    """Scores a sequence by its number of response tokens; a negative one is NaN."""

    max_tokens = 256

    def __init__(self, tokenizer: Any, bad: int = -1) -> None:
        self.tokenizer, self._bad = tokenizer, bad

    def score(self, token_ids: Any, starts: Any) -> list[float]:
        lengths = [float(len(ids) - start) for ids, start in zip(token_ids, starts, strict=True)]
        return [float("nan") if index == self._bad else value for index, value in enumerate(lengths)]


def test_every_sequence_gets_its_own_score(tokenizer: Any, grid_groups: Any) -> None:
    groups = grid_groups(3)
    for group, scored in zip(groups, score_groups(groups, ConstantScorer(tokenizer), "rewards"), strict=True):
        assert isinstance(scored, RelationGroup)
        lengths = [len(tokenizer.encode(text, add_special_tokens=False)) + 1.0 for text in group.responses]
        assert scored.rewards == tuple(lengths[s.response] for s in group.sequences)
        assert scored.ref_logps == group.ref_logps


def test_not_finite_is_rejected(tokenizer: Any, grid_groups: Any) -> None:
    first, second = score_groups(grid_groups(2), ConstantScorer(tokenizer, bad=7), "ref_logps")
    assert isinstance(first, RelationGroup)
    assert isinstance(second, Rejection)
    assert "finite" in second.reason
