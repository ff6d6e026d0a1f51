"""Adapters, references and offload on two ranks: what must be equal is equal, and what is exported opens elsewhere."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import TrainConfig, load_config, parse_config
from mapl_ray.errors import UserError
from mapl_ray.models import PolicyLogps, RewardScores, load_reward_model
from mapl_ray.scoring import TreeOptions, score_groups
from mapl_ray.scoring.trees import TreeScorer
from mapl_ray.training.engine_config import check_quantize
from tests.training.compare import NOISE, largest_difference, typical_difference, weights
from tests.training.conftest import write_groups

CONFIG = {
    "learning_rate": 1e-3,
    "max_sequence_tokens": 256,
    "micro_batch_size": 4,
    "max_steps": 3,
    "epochs": 9,
    "eval_every_steps": 1,
    "checkpoint_every_steps": 99,
}
LORA = {"lora": {"r": 4, "alpha": 8}}
FOUR_BIT = {"lora": {"r": 4, "alpha": 8, "quantize": "4bit"}, "zero_stage": 2}
# name -> method, changes to the config, whether the data has ref_logps
RUNS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "rm lora 2": ("rm", {**LORA, "zero_stage": 2}, True),
    "rm lora 3": ("rm", {**LORA, "zero_stage": 3}, True),
    "dpo lora scored": ("dpo", {**LORA, "zero_stage": 2}, True),
    "dpo lora adapter": ("dpo", {**LORA, "zero_stage": 2}, False),
    "dpo lora adapter 3": ("dpo", {**LORA, "zero_stage": 3}, False),
    "dpo lora frozen": ("dpo", {**LORA, "zero_stage": 2, "reference": "frozen"}, True),
    "rm 4bit": ("rm", FOUR_BIT, True),
    "rm 4bit padded": ("rm", {**FOUR_BIT, "batching": "padded"}, True),
    "dpo 4bit": ("dpo", FOUR_BIT, True),
    "dpo scored": ("dpo", {"zero_stage": 3}, True),
    "dpo frozen": ("dpo", {"zero_stage": 3}, False),
    "dpo offloaded": ("dpo", {"zero_stage": 3, "offload": "optimizer+parameters"}, True),
    "rm plain": ("rm", {"zero_stage": 2}, True),
    "rm bf16": ("rm", {"zero_stage": 2, "bf16": True}, True),
    "rm offloaded": ("rm", {"zero_stage": 2, "offload": "optimizer"}, True),
}
# Policy and reference are the same model in bfloat16: changes to the config, whether the data has the trainer's scores.
STARTS: dict[str, tuple[dict[str, Any], bool]] = {
    "scored 2": ({"zero_stage": 2}, True),
    "scored 3": ({"zero_stage": 3}, True),
    "frozen": ({"zero_stage": 2, "reference": "frozen"}, False),
}
DROPOUT = {"lora": {"r": 4, "dropout": 0.2}, "zero_stage": 3, "checkpoint_every_steps": 2}


@pytest.fixture(scope="module")
def runs(launch: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, specs = tmp_path_factory.mktemp("lora"), []
    for name, (method, changes, scored) in RUNS.items():
        suffix = "" if scored else " unscored"
        of = {"train": str(data / f"train{suffix}"), "eval": str(data / f"eval{suffix}")}
        specs.append({"method": method, "config": {**CONFIG, **changes}, "output": str(folder / name), **of})
    dropping = {"method": "rm", "config": {**CONFIG, **DROPOUT}}
    specs += [
        {**dropping, "output": str(folder / "whole")},
        {**dropping, "output": str(folder / "resumed"), "stop_after": 2},
        {**dropping, "output": str(folder / "resumed")},
    ]
    errors = [outcome["error"] for outcome in launch(2, *specs)]
    assert errors == [None] * len(specs)
    return folder


@pytest.fixture(scope="module")
def first_losses(
    launch: Any, data: Path, tiny_model: Path, grid_groups: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float]:
    """The loss of the first DPO step in bfloat16, by `STARTS`."""
    folder = tmp_path_factory.mktemp("starts")
    values = {"model": {"name_or_path": str(tiny_model)}, "train": {"bf16": True, "micro_batch_size": 3}}
    scorer = TreeScorer(TreeOptions.of(parse_config(values, "test"), str(tiny_model), None))
    write_groups(folder / "scored", score_groups(grid_groups(13), scorer, "ref_logps"))
    specs = []
    for name, (changes, scored) in STARTS.items():
        train = folder / "scored" if scored else data / "train unscored"
        config = {**CONFIG, "bf16": True, "max_steps": 1, **changes}
        spec = {"method": "dpo", "config": config, "output": str(folder / name), "train": str(train), "eval": None}
        specs.append(spec)
    assert [outcome["error"] for outcome in launch(2, *specs)] == [None] * len(specs)
    return {name: rows(folder / name)[0]["loss"] for name in STARTS}


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("start", STARTS)
def test_dpo_starts_exactly_at_its_reference(first_losses: dict[str, float], start: str) -> None:
    """Every margin is 0, so each of the three levels adds -log sigmoid(0) = log 2."""
    assert first_losses[start] == pytest.approx(3 * math.log(2), rel=1e-6)


def outputs(module: torch.nn.Module, groups: Any, tokenizer: Any, batching: Any) -> torch.Tensor:
    encoded = [encode_group(group, tokenizer, 256) for group in groups]
    batch = collate([g for g in encoded if isinstance(g, EncodedGroup)], batching, tokenizer.pad_token_id)
    with torch.no_grad():
        result: torch.Tensor = module.eval()(batch)
    return result


@pytest.mark.parametrize(
    "name", ["rm lora 2", "rm lora 3", "rm 4bit", "dpo lora scored", "dpo lora adapter 3", "dpo 4bit"]
)
def test_merged_model_and_adapter_are_the_same_model(
    runs: Path, name: str, tiny_model: Path, grid_groups: Any, tokenizer: Any
) -> None:
    run, groups = runs / name, grid_groups(4)
    if name.startswith("rm"):
        auto, wrap, labels = AutoModelForSequenceClassification, RewardScores, {"num_labels": 1}
    else:
        auto, wrap, labels = AutoModelForCausalLM, PolicyLogps, {}
    merged, info = auto.from_pretrained(str(run / "model"), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    base = auto.from_pretrained(str(tiny_model), **labels)
    adapted = PeftModel.from_pretrained(base, str(run / "adapter"))
    expected = outputs(wrap(merged), groups, tokenizer, "tree")
    for batching in ("tree", "padded"):  # through peft's layers too
        found = outputs(wrap(adapted.get_base_model()), groups, tokenizer, batching)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with adapted.disable_adapter():
        plain = outputs(wrap(adapted.get_base_model()), groups, tokenizer, "padded")
    assert (plain - expected).abs().max() > 1e-3


def test_stages_train_the_same_adapters_and_head(runs: Path, tiny_model: Path) -> None:
    a, b = (load_file(runs / f"rm lora {stage}" / "adapter" / "adapter_model.safetensors") for stage in (2, 3))
    assert typical_difference(a, b) < NOISE
    heads = [name for name in a if "score" in name]
    assert len(heads) == 1
    fresh = load_reward_model(tiny_model, "float32", seed=0).score.weight
    assert (a[heads[0]] - fresh).abs().max() > 1e-4
    # nothing else was changed: what is not adapted is in the merged model as it was in the base
    merged, base = weights(runs / "rm lora 2"), load_file(tiny_model / "model.safetensors")
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    assert not torch.equal(merged["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"])


def test_four_bit_weights_train_adapters_near_those_of_whole_weights(runs: Path, tiny_model: Path) -> None:
    """QLoRA: the same draws over a rounded base, trees and padded batches alike, and an export into the whole base."""
    whole, trees, padded = (rows(runs / name) for name in ("rm lora 2", "rm 4bit", "rm 4bit padded"))
    for a, b, c in zip(whole, trees, padded, strict=True):
        assert b["loss"] == pytest.approx(c["loss"], abs=1e-5)
        assert 0.0 < abs(a["loss"] - b["loss"]) < 0.1
    adapter = load_file(runs / "rm 4bit" / "adapter" / "adapter_model.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    merged, base = weights(runs / "rm 4bit"), load_file(tiny_model / "model.safetensors")
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"])


def test_bfloat16_learns_what_float32_learns(runs: Path) -> None:
    for whole, half in zip(rows(runs / "rm plain"), rows(runs / "rm bf16"), strict=True):
        assert 0.0 < abs(whole["loss"] - half["loss"]) < 0.1


def test_a_policy_of_four_bits_begins_at_its_reference(runs: Path) -> None:
    """`auto` takes the adapter switched off, though the data has `ref_logps`: those are of whole weights."""
    first = rows(runs / "dpo 4bit")[0]
    for level in ("pref", "intra", "inter"):
        assert first[f"rewards/margins/{level}"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dpo lora scored", "dpo lora adapter"),
        ("dpo lora scored", "dpo lora adapter 3"),
        ("dpo lora scored", "dpo lora frozen"),
        ("dpo scored", "dpo frozen"),
        ("dpo scored", "dpo offloaded"),
        ("rm plain", "rm offloaded"),
    ],
)
def test_references_and_offload_change_nothing(runs: Path, one: str, other: str) -> None:
    for a, b in zip(rows(runs / one), rows(runs / other), strict=True):
        assert a.keys() == b.keys()
        for name in ("loss", "eval/loss", "rewards/margins/pref", "eval/rewards/margins/inter", "grad_norm"):
            assert a[name] == pytest.approx(b[name], abs=1e-5), name
    assert typical_difference(weights(runs / one), weights(runs / other)) < NOISE


def test_adapters_resume_to_the_bit_with_dropout(runs: Path) -> None:
    assert json.loads((runs / "resumed" / "result.json").read_text())["resumed_step"] == 2
    assert largest_difference(weights(runs / "whole"), weights(runs / "resumed")) == 0.0
    files = list((runs / "resumed" / "checkpoints").rglob("*model_states.pt"))
    assert files
    base = (runs / "resumed" / "model" / "model.safetensors").stat().st_size
    assert sum(file.stat().st_size for file in files) < base / 2  # the frozen weights are not in it


def test_best_is_kept_beside_the_last(runs: Path) -> None:
    run = runs / "rm lora 2"
    best = json.loads((run / "best.json").read_text())
    accuracies = {row["step"]: (row["eval/rewards/accuracies/pref"], -row["eval/loss"]) for row in rows(run)}
    assert (best["by"], best["step"]) == ("pref_accuracy", max(accuracies, key=lambda step: accuracies[step]))
    for folder in ("best", "model"):
        model, info = AutoModelForSequenceClassification.from_pretrained(str(run / folder), output_loading_info=True)
        assert not info["missing_keys"]
        assert model.config.num_labels == 1
    assert (run / "best-adapter" / "adapter_model.safetensors").is_file()


def test_model_cards_tell_data_config_versions_and_metrics(runs: Path, data: Path) -> None:
    for run, folder, library in (("rm lora 2", "adapter", "peft"), ("dpo scored", "model", "transformers")):
        card = (runs / run / folder / "README.md").read_text()
        header = yaml.safe_load(card.split("---\n")[1])
        assert header["library_name"] == library
        assert header["base_model"] == "tiny"
        assert set(header["tags"]) >= {"mapl", "reward-model" if run.startswith("rm") else "dpo"}
        result = json.loads((runs / run / "result.json").read_text())
        value = result["metrics"]["eval/rewards/accuracies/pref"]
        for words in (f"| eval/rewards/accuracies/pref | {value:.4f} |", "13 relation groups", "learning_rate: 0.001"):
            assert words in card
        assert json.loads((data / "train" / "manifest.json").read_text())["parts"]
        assert f"| torch | {torch.__version__} |" in card
        assert "More Information Needed" not in card
        assert "from `tiny`" in card


def test_what_can_not_be_had_is_told() -> None:
    check_quantize(TrainConfig(lora={"quantize": "4bit"}))  # without bitsandbytes: tests/test_optional.py
    with pytest.raises(UserError, match="ZeRO-3 can't partition 4-bit weights"):
        load_config(None, ["rm.lora.quantize=4bit", "rm.zero_stage=3"])
    with pytest.raises(UserError, match="reference=adapter needs lora"):
        load_config(None, ["train.reference=adapter"])
