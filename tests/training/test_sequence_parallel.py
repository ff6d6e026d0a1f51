"""Two ranks that share the tokens of every row compute and learn what one rank does."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

from mapl_ray.data.records import Message
from mapl_ray.errors import UserError
from mapl_ray.models.sequence_parallel import SequenceGroup, share_sequences
from mapl_ray.training.deepspeed_engine import ensure_process_group
from tests.training.compare import NOISE, typical_difference, weights
from tests.training.conftest import write_groups
from tests.training.first_step import read_first_step

CONFIG = {
    "learning_rate": 1e-3,
    "max_sequence_tokens": 256,
    "micro_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "weight_decay": 0.1,
}
SHARED = {**CONFIG, "num_workers": 2, "sequence_parallel_size": 2}
LONG = {"micro_batch_size": 1, "max_sequence_tokens": 512}
# First steps: the method, and what is added to both configs.
FIRST = {
    "rm ZeRO-3, Mistral": ("rm", {"zero_stage": 3}),
    "dpo ZeRO-3": ("dpo", {"zero_stage": 3}),
    "dpo ZeRO-2, rows, checkpointing": (
        "dpo",
        {"zero_stage": 2, "gradient_checkpointing": True, "row_tokens": 300, "attention": "dense"},
    ),
    "rm ZeRO-3, long prompts": ("rm", {"zero_stage": 3, **LONG}),
    "dpo ZeRO-3, long prompts": ("dpo", {"zero_stage": 3, **LONG}),
    "dpo adapters, frozen reference": ("dpo", {"zero_stage": 2, "lora": {"r": 4}, "reference": "frozen"}),
}
WHOLE_RUN = {"epochs": 1, "eval_every_steps": 1, "checkpoint_every_steps": 2, "zero_stage": 3}


@pytest.fixture(scope="module")
def mistral(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads of queries for each of keys and values, and a window that is shorter than the sequences."""
    folder = tmp_path_factory.mktemp("models") / "mistral"
    shutil.copytree(tiny_model, folder)
    values = json.loads((folder / "config.json").read_text())
    sizes = {name: values[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")}
    config = MistralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, sliding_window=16)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def long_prompts(grid_groups: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of which the first of two ranks has tokens of prompts alone: nothing to predict, and no last token."""
    groups = []
    for group in grid_groups(3):
        prompts = tuple((Message("user", f"{'do so ' * 60}{prompt[0].content}"),) for prompt in group.prompts)
        groups.append(replace(group, prompts=prompts))
    return write_groups(tmp_path_factory.mktemp("data") / "long", groups)


@pytest.fixture(scope="module")
def runs(launch: Any, mistral: Path, long_prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """First steps and whole runs of one rank and of two that share."""
    folder = tmp_path_factory.mktemp("shared")
    for ranks, config in ((1, CONFIG), (2, SHARED)):
        specs: list[dict[str, Any]] = [
            {"first_step": True, "method": method, "config": {**config, **more}, "output": f"{folder / name} {ranks}"}
            for name, (method, more) in FIRST.items()
        ]
        specs[0]["model"] = str(mistral)
        for spec in specs:
            if "long prompts" in spec["output"]:
                spec["train"] = str(long_prompts)
        specs.append({"method": "rm", "config": {**config, **WHOLE_RUN}, "output": str(folder / f"whole {ranks}")})
        if ranks == 2:  # begun by two ranks that share rows, and ended by two that do not
            common = {"method": "rm", "output": str(folder / "changed")}
            alone = {**CONFIG, **WHOLE_RUN, "num_workers": 2, "gradient_accumulation_steps": 1}
            specs += [{**common, "config": {**SHARED, **WHOLE_RUN}, "stop_after": 2}, {**common, "config": alone}]
        launch(ranks, *specs)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", FIRST)
def test_losses_and_gradients_are_those_of_one_rank(runs: Path, name: str) -> None:
    one, *shared = (read_first_step(runs / f"{name} {ranks}", rank) for ranks, rank in ((1, 0), (2, 0), (2, 1)))
    for both in shared:
        assert both["columns"] == [width // 2 for width in both["width"]]
        assert all(mine < 0.6 * whole for mine, whole in zip(both["kept"], one["kept"], strict=True))
        for kind in ("outputs", "losses"):
            for mine, whole in zip(both[kind], one[kind], strict=True):
                torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-5)
        assert both["gradients"].keys() == one["gradients"].keys()
        for parameter, gradient in one["gradients"].items():
            tolerance = 1e-5 * gradient.abs().max().item()
            torch.testing.assert_close(both["gradients"][parameter], gradient, rtol=0, atol=tolerance)
    assert any(gradient.abs().max() > 1e-4 for gradient in one["gradients"].values())
    first, second = shared  # bit for bit: the ranks of a group have one loss
    assert all(torch.equal(a, b) for a, b in zip(first["outputs"], second["outputs"], strict=True))


@pytest.mark.long
@pytest.mark.parametrize("method", ["rm", "dpo"])
def test_a_rank_may_have_nothing_to_predict(runs: Path, method: str) -> None:
    first, second = (read_first_step(runs / f"{method} ZeRO-3, long prompts 2", rank)["edges"] for rank in (0, 1))
    assert first == [0] * len(second)
    assert min(second) > 0


@pytest.mark.long
def test_a_whole_run_learns_and_measures_the_same(runs: Path) -> None:
    one, both = (runs / f"whole {ranks}" for ranks in (1, 2))
    assert typical_difference(weights(one), weights(both)) < NOISE
    results = [json.loads((run / "result.json").read_text()) for run in (one, both)]
    assert [result["num_workers"] for result in results] == [1, 2]
    assert results[0]["tokens"] == results[1]["tokens"]  # of groups, none counted for every rank that shares it
    assert results[0]["counts"] == results[1]["counts"]
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, both)]
    for a, b in zip(*rows, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"tokens_per_second", "groups_per_second", "peak_memory_gib", "padding_share"}:
            assert a[name] == pytest.approx(b[name], rel=1e-3, abs=2e-4), name


@pytest.mark.long
def test_a_run_goes_on_with_another_size(runs: Path) -> None:
    result = json.loads((runs / "changed" / "result.json").read_text())
    assert (result["resumed_step"], result["steps"]) == (2, 3)
    assert typical_difference(weights(runs / "whole 1"), weights(runs / "changed")) < NOISE


def test_attention_that_can_not_be_shared() -> None:
    ensure_process_group()
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    model = AutoModelForCausalLM.from_config(Gemma2Config(**sizes, num_attention_heads=2, num_key_value_heads=2))
    model.set_attn_implementation("eager")  # a soft cap on a CPU
    with pytest.raises(UserError, match="attention 'eager' of gemma2 can't be shared by ranks"):
        share_sequences(model, SequenceGroup(dist.group.WORLD, lambda local, *heads: local(*heads)))
