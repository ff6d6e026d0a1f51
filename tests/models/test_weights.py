"""Weights that are missing, extra, misnamed or of another shape, and models of another kind: refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from mapl_ray.config import LoraConfig, RunConfig, parse_config
from mapl_ray.distributed.preflight import check_inputs
from mapl_ray.doctor import diagnose
from mapl_ray.errors import RunError, UserError
from mapl_ray.models import (
    check_same_model,
    load_policy,
    load_reward_model,
    model_identity,
    verify_adapter,
    verify_base,
    verify_model,
    with_saved_adapter,
)
from mapl_ray.training.module import merged_model, save_adapter, with_adapter

Weights = dict[str, torch.Tensor]


def renamed(old: str, new: str) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        weights[new] = weights.pop(old)

    return change


def without(name: str) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        del weights[name]

    return change


def changed(model: Path, to: Path, change: Callable[[Weights], None] | None = None, **config: Any) -> Path:
    """A copy with other weights and other values of config.json."""
    shutil.copytree(model, to)
    if change is not None:
        weights = load_file(to / "model.safetensors")
        change(weights)
        save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((to / "config.json").read_text()) | config
    (to / "config.json").write_text(json.dumps(values))
    return to


NORM = "model.norm.weight"
BROKEN: list[tuple[Callable[[Weights], None], str]] = [
    (without(NORM), rf"missing: {NORM}"),
    (renamed(NORM, "model.final_norm.weight"), rf"missing: {NORM}; not part of the model: model.final_norm.weight"),
    (lambda weights: weights.update({"value_head.weight": torch.ones(1, 64)}), "not part of the model: value_head"),
    (lambda weights: weights.update({NORM: torch.ones(32)}), rf"of another shape: {NORM} \[32\], expected \[64\]"),
]


@pytest.mark.parametrize(("change", "words"), BROKEN)
def test_a_policy_loads_whole_or_not_at_all(
    change: Callable[[Weights], None], words: str, tiny_model: Path, tmp_path: Path
) -> None:
    broken = changed(tiny_model, tmp_path / "model", change)
    for load in (lambda: load_policy(broken, "float32"), lambda: verify_model(broken, "policy")):
        with pytest.raises(UserError, match=words) as told:
            load()
        assert str(broken) in str(told.value)
        assert "save_pretrained" in str(told.value)  # the cure
    with pytest.raises(UserError, match=words):  # training begins with nothing else that is drawn
        load_reward_model(broken, "float32", seed=0)


@pytest.mark.parametrize(("change", "words"), [*BROKEN, (without("score.weight"), "missing: score.weight")])
def test_a_reward_model_loads_whole_or_not_at_all(
    change: Callable[[Weights], None], words: str, tiny_reward_model: Path, tmp_path: Path
) -> None:
    broken = changed(tiny_reward_model, tmp_path / "model", change)
    for load in (lambda: load_reward_model(broken, "float32"), lambda: verify_model(broken, "reward model")):
        with pytest.raises(UserError, match=words):
            load()


def test_a_head_is_drawn_in_training_alone_and_known(tiny_model: Path, tiny_reward_model: Path, tmp_path: Path) -> None:
    fresh = load_reward_model(tiny_model, "float32", seed=3)
    assert fresh.fresh_head is True
    assert torch.equal(fresh.score.weight, load_reward_model(tiny_model, "float32", seed=3).score.weight)
    assert load_reward_model(tiny_reward_model, "float32", seed=3).fresh_head is False
    with pytest.raises(UserError, match=r"missing: score\.weight; not part of the model: lm_head\.weight"):
        load_reward_model(tiny_model, "float32")
    headless = changed(tiny_reward_model, tmp_path / "headless", without("score.weight"))
    assert load_reward_model(headless, "float32", seed=3).fresh_head is True
    misnamed = changed(tiny_reward_model, tmp_path / "misnamed", renamed("score.weight", "v_head.weight"))
    with pytest.raises(UserError, match=r"not part of the model: v_head\.weight"):
        load_reward_model(misnamed, "float32", seed=3)


def test_a_policy_without_its_output_layer_is_refused(tiny_reward_model: Path, tmp_path: Path) -> None:
    claims = changed(tiny_reward_model, tmp_path / "claims", architectures=["LlamaForCausalLM"])
    with pytest.raises(UserError, match=r"missing: lm_head\.weight; not part of the model: score\.weight"):
        load_policy(claims, "float32")


def test_an_adapter_fits_its_model_or_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    wrapped = with_adapter(load_policy(tiny_model, "float32"), LoraConfig(r=4), "dpo", seed=0)
    save_adapter(wrapped, wrapped.get_base_model().state_dict(), tmp_path / "sound")
    verify_adapter(tmp_path / "sound", str(tiny_model))
    again = with_saved_adapter(load_policy(tiny_model, "float32"), tmp_path / "sound")
    for name, tensor in peft.get_peft_model_state_dict(wrapped).items():
        assert torch.equal(peft.get_peft_model_state_dict(again)[name], tensor)
    weights = load_file(tmp_path / "sound" / "adapter_model.safetensors")
    one = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    cases: list[tuple[Callable[[Weights], None], str]] = [
        (without(one), "missing: base_model.*up_proj"),
        (
            renamed(one, "base_model.model.model.layers.9.mlp.up_proj.lora_B.weight"),
            "not part of the model: .*layers.9",
        ),
        (lambda some: some.update({one: torch.ones(1, 4)}), r"of another shape: .*\[1, 4\], expected \[256, 4\]"),
    ]
    for number, (change, words) in enumerate(cases):
        folder = shutil.copytree(tmp_path / "sound", tmp_path / str(number))
        broken = dict(weights)
        change(broken)
        save_file(broken, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=words):
            verify_adapter(folder, str(tiny_model))
        with pytest.raises(UserError, match=words):
            merged_model(load_policy(tiny_model, "float32"), folder)


def run_config(**sections: Any) -> RunConfig:
    return parse_config({"scoring": {"max_model_len": 256}, **sections}, "test")


def named_rewards(model: Path) -> list[tuple[RunConfig, str]]:
    """Every place where a reward model is named, with the stage that uses it."""
    return [
        (run_config(scoring={"reward_model": str(model), "ref_logps": False, "max_model_len": 256}), "score"),
        (run_config(scoring={"pair_reward_model": str(model), "max_model_len": 256}), "synthesize"),
    ]


def test_two_labels_are_no_reward(tiny_reward_model: Path, tmp_path: Path) -> None:
    labels = {"0": "bad", "1": "good"}
    two = changed(
        tiny_reward_model,
        tmp_path / "two",
        lambda weights: weights.update({"score.weight": torch.ones(2, 64)}),
        id2label=labels,
        label2id={"bad": 0, "good": 1},
    )
    evaluated = (run_config(evaluation={"models": [str(two)]}), "evaluate")
    trained = (run_config(model={"name_or_path": str(two)}), "train rm")
    for config, stage in (*named_rewards(two), evaluated, trained):
        with pytest.raises(UserError, match=r"num_labels=2 \(0: bad, 1: good\): a classifier.*expected num_labels=1"):
            check_inputs(config, (stage,))
    for load in (lambda: load_reward_model(two, "float32"), lambda: load_reward_model(two, "float32", seed=0)):
        with pytest.raises(UserError, match="num_labels=2"):
            load()
    found = [one for one in diagnose(named_rewards(two)[0][0]) if one.what == "rewards"]
    assert [one.level for one in found] == ["fail"]
    assert "num_labels=2" in found[0].detail


def test_a_policy_is_no_reward_model_nor_the_other_way(tiny_model: Path, tiny_reward_model: Path) -> None:
    for config, stage in named_rewards(tiny_model):
        with pytest.raises(
            UserError, match=r"scoring\.(pair_)?reward_model=.*architectures=LlamaForCausalLM; expected"
        ):
            check_inputs(config, (stage,))
    rewards = str(tiny_reward_model)
    policies: list[tuple[dict[str, Any], str]] = [
        ({"model": {"name_or_path": rewards}}, "score"),
        ({"model": {"name_or_path": rewards}}, "train dpo"),
        ({"scoring": {"ref_model": rewards, "max_model_len": 256}}, "score"),
        ({"scoring": {"judge": {"model": rewards}, "max_model_len": 256}}, "synthesize"),
        ({"evaluation": {"reference": rewards}}, "evaluate"),
    ]
    for values, stage in policies:
        with pytest.raises(UserError, match=r"not a policy: .*architectures=LlamaForSequenceClassification; expected"):
            check_inputs(run_config(**values), (stage,))
    verify_base(tiny_model, "rm")
    verify_base(tiny_reward_model, "rm")
    verify_base(tiny_model, "dpo")


def test_large_weights_are_known_by_their_content(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapl_ray.models.identity._READ_WHOLE", 0)  # as if every file were above 1 GiB
    identity = model_identity(tiny_model)
    copy = shutil.copytree(tiny_model, tmp_path / "copy", copy_function=shutil.copyfile)  # of today
    assert model_identity(copy) == identity
    check_same_model(copy, identity)
    (copy / "README.md").write_text("Another card.")
    assert model_identity(copy) == identity
    for number, name in enumerate(load_file(tiny_model / "model.safetensors")):
        other = changed(tiny_model, tmp_path / str(number), lambda weights, one=name: weights[one].add_(1e-3))
        assert model_identity(other) != identity, name
    renamed_one = changed(tiny_model, tmp_path / "renamed", renamed(NORM, "model.final_norm.weight"))
    assert model_identity(renamed_one) != identity
    with pytest.raises(RunError, match=r"renamed: on .* the model differs from the one on the machine that started"):
        check_same_model(renamed_one, identity)
    (copy / "weights.gguf").write_bytes(b"\xff" * 50_000)
    first = model_identity(copy)
    (copy / "weights.gguf").write_bytes(b"\xff" * 25_000 + b"\0" + b"\xff" * 24_999)
    assert model_identity(copy) != first


def test_another_models_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = changed(tiny_model, tmp_path / "other", vocab_size=2)
    with pytest.raises(UserError, match=r"eos_token '</s>' has id 2, but config.json has vocab_size=2"):
        verify_model(other, "policy")
