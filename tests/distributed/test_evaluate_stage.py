"""`mapl evaluate` of named models on held-out groups and public sets, with the real Ray and vLLM."""

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mapl_ray.cli import main
from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.data.records import GROUP_SCHEMA, PreferencePair, RelationGroup
from mapl_ray.data.shards import commit, write_part
from mapl_ray.models import load_reward_model
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import synthesize
from mapl_ray.training.export import export_model

PAIRS = [{"prompt": f"Why {n}?", "chosen": f"river stone {n}", "rejected": "bread", "subset": "a"} for n in range(6)]
STYLES = {"prompt": "Why?", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": "chat"}
FOLLOW = {"prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def reward_model(policy: Path, tokenizer: Any, folder: Path, seed: int) -> Path:
    model = load_reward_model(policy, "float32", seed=seed)
    with torch.no_grad():
        model.score.weight.mul_(20.0)
    export_model(model, tokenizer, None, folder / "model", "A test's model.")
    return folder / "model"


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with held-out groups of the shortest shipped pairs, without scores."""
    folder = tmp_path_factory.mktemp("evaluated") / "runs" / "given"
    config = SynthesisConfig(held_out_phrasings=True)
    pairs = [pair for pair in read_pairs(DataConfig()) if isinstance(pair, PreferencePair)]
    short = sorted(pairs, key=lambda pair: len(pair.prompt[0].content) + len(pair.chosen) + len(pair.rejected))[:8]
    made = [synthesize(pair, config, 0) for pair in short]
    rows = [group.to_row() for group in made if isinstance(group, RelationGroup)]
    for split in ("train", "eval"):
        directory = folder / "groups" / split
        commit(directory, "synthesize", "f", [write_part(directory, 0, rows, [], GROUP_SCHEMA, "f")])
    return folder


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.vllm
def test_models_side_by_side_on_groups_and_sets(
    run: Path,
    local_ray: None,
    checkers: ModuleType,
    tiny_model: Path,
    tokenizer: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = [str(reward_model(tiny_model, tokenizer, tmp_path / f"rm{n}", n)) for n in range(2)]
    words = ["evaluate", "name=given", f"output_dir={run.parent}", "--models", *models, str(tiny_model)]
    words += ["train.max_sequence_tokens=2048", "evaluation.concurrency=[1,1]", f"evaluation.reference={tiny_model}"]
    words += ["evaluation.invariance=true", "synthesis.held_out_phrasings=true", "evaluation.bootstrap_samples=20"]
    words += ["scoring.max_model_len=64", "evaluation.max_new_tokens=4"]
    words += ["--set", f"pairs={lines(tmp_path / 'pairs.jsonl', [*PAIRS, '{', PAIRS[0] | {'chosen': 'a b ' * 2000}])}"]
    words += ["--set", f"styles={lines(tmp_path / 'styles.jsonl', [STYLES])}"]
    words += ["--set", f"follow={lines(tmp_path / 'follow.jsonl', [FOLLOW | {'key': n} for n in range(3)])}"]
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    results = json.loads((run / "evaluation.json").read_text())
    names = ["rm0", "rm1", tiny_model.name]
    assert list(results["models"]) == names
    assert [(c["model"], c["baseline"]) for c in results["comparisons"]] == [(names[1], "rm0"), (names[2], "rm0")]
    counts = results["provenance"]["counts"]
    assert counts["held-out groups"] == results["counts"]["groups"] > 0
    # A policy against itself: every implicit reward is 0, whatever computed the reference's logps.
    policy = results["models"][tiny_model.name]
    assert policy["levels"]["intra"]["mean_margin"] == pytest.approx(0.0, abs=1e-5)
    assert set(policy["invariance"]) == {"order", "phrasing", "unseen phrasing"}
    assert policy["invariance"]["order"]["reward_change"] == pytest.approx(0.0, abs=1e-5)
    assert results["models"]["rm0"]["invariance"]["order"]["reward_change"] > 0.0
    assert set(results["models"]["rm0"]["by_phrasing"]["intra"]) == {"seen", "unseen"}
    sets = results["sets"]
    assert sets["pairs"]["counts"] == {"rows": 8, "used": 6, "rejected": 1, "too long": 1}
    assert set(sets["pairs"]["preference"]) == set(names)
    assert sets["styles"]["format"] == "rm-bench"
    assert "pairs (rewardbench), 8 rows: 6 used, 1 rejected, 1 too long" in printed
    rejected = (run / "evaluation" / "pairs-rejected.jsonl").read_text()
    assert "pairs.jsonl" in rejected
    assert "not JSON" in rejected
    # Responses are those that the verdicts are of.
    assert list(sets["follow"]["following"]) == [tiny_model.name]
    written = (run / "evaluation" / f"follow-{tiny_model.name}.jsonl").read_text().splitlines()
    responses = [json.loads(line)["response"] for line in written]
    share = sum(bool(r.strip()) and "," not in r for r in responses) / 3
    assert sets["follow"]["following"][tiny_model.name]["prompt_strict"]["value"] == pytest.approx(share)
    assert {"set pairs", "set styles", "set follow", "held-out"} <= set(results["provenance"]["data"])
    assert all(len(digest) == 64 for digest in results["provenance"]["data"].values())
    assert all(math.isfinite(m["calibration"]["pref"]["ece"]) for m in results["models"].values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "rewardbench"), "--set 'rewardbench': expected NAME=PATH"),
        (("--set", "bench=gone.jsonl"), "evaluation.sets.bench.path='gone.jsonl': no such file"),
        (("--models", "./gone"), "gone: no such model directory"),
        (("evaluation.sets={'../x': y}",), "name '../x': expected letters"),
        (("evaluation.models=[a, a]",), "expected non-empty names, each listed once"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words, f"output_dir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
