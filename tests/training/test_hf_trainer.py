"""`MaplTrainer` computes what `mapl train` computes, and trains, evaluates, saves and loads as any `Trainer` does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainingArguments

from mapl_ray.batches import collate
from mapl_ray.config import LevelWeights, Method, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model, load_tokenizer
from mapl_ray.objective import Objective
from mapl_ray.training.hf_groups import from_row, groups_dataset
from mapl_ray.training.hf_trainer import MaplTrainer
from tests.training.compare import NOISE, typical_difference, weights

CONFIG = TrainConfig(
    weights=LevelWeights(lambda_intra=0.7, lambda_inter=0.4),
    learning_rate=1e-3,
    max_sequence_tokens=256,
    micro_batch_size=13,
    max_steps=3,
    epochs=3,
    schedule="constant",
    warmup_ratio=0.0,
    zero_stage=0,
)
METHODS: tuple[Method, ...] = ("rm", "dpo")
Make = Callable[..., MaplTrainer]


def parquet(folder: Path) -> Dataset:
    """The groups of a finished data set, as anybody reads Parquet."""
    files = [str(path) for path in folder.rglob("*.parquet")]
    return load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder.parent / "cache"))


def losses(trainer: MaplTrainer) -> dict[int, float]:
    """By step."""
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}


@pytest.fixture
def make(tiny_model: Path, data: Path, tmp_path: Path) -> Make:
    """`make(method, **arguments)`: a trainer whose micro-batches of 5 groups make steps of all 13."""

    def of(method: Method, output: Path = tmp_path / "run", **changes: Any) -> MaplTrainer:
        arguments: dict[str, Any] = {
            "per_device_train_batch_size": 5, "gradient_accumulation_steps": 3, "max_steps": 3, "learning_rate": 1e-3,
            "lr_scheduler_type": "constant", "adam_beta2": 0.95, "logging_steps": 1, "report_to": "none",
            "use_cpu": True, "disable_tqdm": True, "seed": 0,
        }  # fmt: skip
        given = {"train_dataset": None, "max_sequence_tokens": 256}
        names = (*given, "eval_dataset", "batching", "processing_class")
        given |= {name: changes.pop(name) for name in names if name in changes}
        if given["train_dataset"] is None:
            given["train_dataset"] = parquet(data / "train")
        model = changes.pop("model", str(tiny_model))
        return MaplTrainer(
            model, TrainingArguments(str(output), **arguments | changes), Objective.of(CONFIG, method), **given
        )

    return of


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_steps_are_those_of_mapl_train(method: Method, make: Make, launch: Any, tmp_path: Path) -> None:
    """Loss, norm of the gradient and metrics of every step, and the weights after three steps of AdamW."""
    run = tmp_path / "mapl"
    (outcome,) = launch(1, {"method": method, "config": CONFIG.model_dump(), "output": str(run)})
    assert outcome["error"] is None
    ours = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trainer = make(method)
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs, strict=True):
        names = {name for name in one if name in other} - {"epoch", "step", "learning_rate"}
        assert {"loss", "grad_norm", "rewards/accuracies/intra", "rewards/margins/inter", "loss/pref"} <= names
        assert {name: other[name] for name in names} == pytest.approx({n: one[n] for n in names}, rel=1e-5, abs=1e-5)
    trained = {name: tensor.detach() for name, tensor in trainer.model.state_dict().items()}
    expected = weights(run)
    assert typical_difference({name: trained[name] for name in expected}, expected) < NOISE


@pytest.mark.parametrize("batching", ["tree", "padded"])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_is_that_of_the_objective(method: Method, batching: str, make: Make, tiny_model: Path) -> None:
    """Accumulated over three micro-batches, against one backward pass over all groups in one batch."""
    trainer = make(method, batching=batching)
    batches = list(trainer.get_train_dataloader())
    counts = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
    trainer.create_optimizer()
    losses = [trainer.training_step(trainer.model, batch, counts).item() for batch in batches]
    model = load_reward_model(tiny_model, "float32", seed=0) if method == "rm" else load_policy(tiny_model, "float32")
    module = RewardScores(model) if method == "rm" else PolicyLogps(model)
    rows = [from_row(row) for row in trainer.train_dataset]
    whole = collate(rows, "padded", load_tokenizer(tiny_model).pad_token_id)
    result = Objective.of(CONFIG, method)(module(whole), whole)
    result.loss.backward()
    assert sum(losses) == pytest.approx(result.loss.item(), abs=1e-5)
    gradients = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=0, atol=1e-5)
    assert max(gradient.abs().max() for gradient in gradients.values() if gradient is not None) > 0.01


def test_policy_saves_resumes_and_loads(make: Make, data: Path, tmp_path: Path, tiny_model: Path) -> None:
    """Without ref_logps they are the policy's own before the first step, also after a resume."""
    unscored, held_out = parquet(data / "train unscored"), parquet(data / "eval unscored")
    trainer = make(
        "dpo", train_dataset=unscored, eval_dataset=held_out, save_steps=2, eval_strategy="steps", eval_steps=1
    )
    scored = parquet(data / "train")
    for row, original in zip(trainer.train_dataset, scored, strict=True):
        assert row["ref_logps"] == pytest.approx(original["ref_logps"], abs=1e-3)
    before = trainer.evaluate()
    assert before["eval_rewards/margins/pref"] == pytest.approx(0.0, abs=1e-5)
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_rewards/margins/pref"] > 0.0
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert saved.config.architectures == ["LlamaForCausalLM"]
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(saved.state_dict()[name], tensor)
    assert load_tokenizer(tmp_path / "saved").chat_template == load_tokenizer(tiny_model).chat_template
    resumed = make("dpo", train_dataset=unscored, save_steps=99)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert losses(resumed)[3] == pytest.approx(losses(trainer)[3], abs=1e-6)


def test_reward_model_from_records_saves_and_loads(make: Make, grid_groups: Any, tmp_path: Path) -> None:
    held_out = {"seen": groups_dataset(grid_groups(3)), "other": groups_dataset(grid_groups(8)[5:])}
    trainer = make("rm", train_dataset=groups_dataset(grid_groups(6)), eval_dataset=held_out)
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_seen_rewards/accuracies/pref"] == 1.0
    assert {"eval_other_loss", "eval_other_rewards/accuracies/intra", "eval_other_loss/inter"} <= set(metrics)
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(saved.score.weight, trainer.model.score.weight)


def test_adapter_is_trained_and_saved_alone(make: Make, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    wrapped = get_peft_model(
        load_policy(tiny_model, "float32"), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    )
    unscored = parquet(data / "train unscored")
    trainer = make("dpo", model=wrapped, train_dataset=unscored, processing_class=load_tokenizer(tiny_model))
    trainer.train()
    assert losses(trainer)[3] < losses(trainer)[1]
    trainer.save_model(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    assert isinstance(PeftModel.from_pretrained(load_policy(tiny_model, "float32"), tmp_path / "adapter"), PeftModel)


def test_mistakes_are_named(make: Make, data: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"train_dataset: no column prompts\. .*mapl_ray\.groups_dataset"):
        make("rm", train_dataset=parquet(data / "train").remove_columns("prompts"))
    with pytest.raises(UserError, match=r"LlamaForCausalLM: expected a sequence classifier with num_labels=1"):
        make("rm", model=load_policy(tiny_model, "float32"), processing_class=load_tokenizer(tiny_model))
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(UserError, match="pad token is not EOS"):
        make("dpo", processing_class=tokenizer)
    trainer = make("dpo")
    with pytest.raises(UserError, match="eval_dataset: no ref_logps"):
        trainer.evaluate(parquet(data / "eval unscored"))
    with pytest.raises(UserError, match="train_dataset: no groups"):
        make("rm", train_dataset=groups_dataset([]))
    capsys.readouterr()
    middle = sorted(len(row["prompt_ids"][1]) + len(row["response_ids"][0]) for row in trainer.train_dataset)[6]
    assert 0 < len(make("rm", max_sequence_tokens=middle).train_dataset) < 13
    assert "of 13 groups left out. First: pair-00" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"13 of 13 groups left out.*above max_sequence_tokens=16"):
        make("rm", max_sequence_tokens=16)


@pytest.mark.long
@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_learn_what_one_does(
    fsdp: bool, make: Make, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Accelerate's DDP and FSDP over gloo: the same losses, metrics and held-out metrics."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    words = [str(tiny_model), str(data), str(tmp_path / "two"), "fsdp" if fsdp else ""]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    two = json.loads((tmp_path / "two.json").read_text())
    trainer = make(
        "dpo",
        eval_dataset=parquet(data / "eval unscored"),
        train_dataset=parquet(data / "train unscored").select(range(12)),
    )
    trainer.train()
    trainer.evaluate()
    for one, other in zip(trainer.state.log_history, two, strict=True):
        names = [name for name in one if "loss" in name or "rewards" in name or "grad_norm" in name]
        assert {n: other[n] for n in names} == pytest.approx({n: one[n] for n in names}, rel=1e-4, abs=1e-5)


TWO = """
import json, sys
from pathlib import Path
from datasets import load_dataset
from transformers import TrainingArguments
from mapl_ray import LevelWeights, MaplTrainer, Objective, TrainConfig

model, data, output, fsdp = sys.argv[1:]
def parquet(name):
    files = [str(path) for path in (Path(data) / name).rglob("*.parquet")]
    return load_dataset("parquet", data_files=files, split="train", cache_dir=output + "-cache")
args = TrainingArguments(
    output, per_device_train_batch_size=2, gradient_accumulation_steps=3, max_steps=3, learning_rate=1e-3,
    lr_scheduler_type="constant", adam_beta2=0.95, logging_steps=1, report_to="none", use_cpu=True, seed=0,
    disable_tqdm=True, save_strategy="no", ddp_backend="gloo",
    **({"fsdp": "full_shard auto_wrap"} if fsdp else {}),
)
config = TrainConfig(weights=LevelWeights(lambda_intra=0.7, lambda_inter=0.4))
trainer = MaplTrainer(model, args, Objective.of(config, "dpo"), parquet("train unscored").select(range(12)),
                      parquet("eval unscored"), max_sequence_tokens=256)
trainer.train()
trainer.evaluate()
if trainer.is_world_process_zero():
    Path(output + ".json").write_text(json.dumps(trainer.state.log_history))
"""
