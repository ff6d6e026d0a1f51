"""DeepSpeed's configuration: what a user's file may say, and what it may not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mapl_ray.config import TrainConfig, load_config
from mapl_ray.errors import UserError
from mapl_ray.training.engine_config import check_sizes, engine_config, inlined, parameter_groups

CONFIG = TrainConfig(micro_batch_size=2, gradient_accumulation_steps=3, zero_stage=3, bf16=True)


def with_file(values: dict[str, Any]) -> dict[str, Any]:
    return engine_config(CONFIG.model_copy(update={"deepspeed_config": values}), world_size=4)


def test_made_from_ours() -> None:
    made = engine_config(CONFIG, world_size=4)
    assert made["train_batch_size"] == 2 * 3 * 4
    assert made["zero_optimization"]["stage"] == 3
    # bfloat16 weights, float32 sums over micro-batches and ranks
    assert made["communication_data_type"] == made["data_types"]["grad_accum_dtype"] == "fp32"
    assert "offload_optimizer" not in made["zero_optimization"]
    offloaded = engine_config(CONFIG.model_copy(update={"offload": "optimizer+parameters"}), world_size=4)
    for part in ("offload_optimizer", "offload_param"):
        assert offloaded["zero_optimization"][part]["device"] == "cpu"


@pytest.mark.parametrize(
    ("stage", "asked", "expected"),
    [(3, None, True), (2, None, False), (1, None, False), (0, None, False), (2, True, True), (3, False, False)],
)
def test_gradients_are_reduced_during_the_backward_pass(stage: Any, asked: bool | None, expected: bool) -> None:
    config = TrainConfig(zero_stage=stage, overlap_comm=asked)
    assert engine_config(config, world_size=2)["zero_optimization"]["overlap_comm"] is expected
    # A file decides where the config leaves it open, and may repeat it elsewhere.
    for there in (True, False):
        filed = config.model_copy(update={"deepspeed_config": {"zero_optimization": {"overlap_comm": there}}})
        if asked in (None, there):
            assert engine_config(filed, world_size=2)["zero_optimization"]["overlap_comm"] is there
        else:
            with pytest.raises(UserError, match=rf"overlap_comm={there}, but {asked} follows from train.overlap_comm"):
                engine_config(filed, world_size=2)


def test_hpz_is_passed_on() -> None:
    config = TrainConfig(zero_stage=3, num_workers=4, zero_hpz_partition_size=2)
    assert engine_config(config, world_size=4)["zero_optimization"]["zero_hpz_partition_size"] == 2
    assert engine_config(CONFIG, world_size=4)["zero_optimization"]["zero_hpz_partition_size"] == 1
    for there in (1, "auto"):
        assert with_file({"zero_optimization": {"zero_hpz_partition_size": there}})


def test_a_file_is_laid_over_ours() -> None:
    agreeing = {"train_batch_size": 24, "bf16": {"enabled": True}, "fp16": {"enabled": False}, "gradient_clipping": 1.0}
    auto = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto"}
    zero = {"stage": "auto", "reduce_bucket_size": 1e6, "overlap_comm": True, "offload_param": {"device": "none"}}
    made = with_file({**agreeing, **auto, "zero_optimization": zero, "wall_clock_breakdown": True})
    assert made["train_micro_batch_size_per_gpu"] == 2
    assert made["wall_clock_breakdown"] is True
    of_zero = made["zero_optimization"]
    assert (of_zero["stage"], of_zero["reduce_bucket_size"], of_zero["allgather_bucket_size"]) == (3, 1e6, 5e7)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train_batch_size": 16}, ("train_batch_size=16", "24 follows", "train.micro_batch_size")),
        ({"train_micro_batch_size_per_gpu": 1}, ("train_micro_batch_size_per_gpu=1", "train.micro_batch_size")),
        ({"gradient_accumulation_steps": 1}, ("gradient_accumulation_steps=1", "3 follows")),
        ({"gradient_clipping": 0.5}, ("gradient_clipping=0.5", "train.max_grad_norm")),
        ({"zero_optimization": {"stage": 2}}, ("zero_optimization.stage=2", "train.zero_stage")),
        ({"zero_optimization": {"offload_param": {"device": "cpu"}}}, ("offload_param.device='cpu'", "train.offload")),
        (
            {"zero_optimization": {"zero_hpz_partition_size": 2}},
            ("zero_hpz_partition_size=2, but 1 follows", "train.zero_hpz_partition_size"),
        ),
        ({"bf16": {"enabled": False}}, ("bf16.enabled=False", "train.bf16")),
        ({"fp16": {"enabled": True}}, ("fp16.enabled=True", "train.bf16")),
        ({"optimizer": {"type": "Adam"}}, ("optimizer is made from train.learning_rate",)),
        ({"scheduler": {"type": "WarmupLR"}}, ("scheduler is made from train.schedule",)),
        ({"gradient_clipping": 9, "optimizer": {"type": "Adam"}}, ("gradient_clipping", "optimizer")),
    ],
)
def test_contradictions_are_named(values: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        with_file(values)
    for word in ("train.deepspeed_config", *words):
        assert word in str(caught.value)


def test_a_file_must_hold_for_every_number_of_workers_of_an_elastic_run() -> None:
    elastic = TrainConfig(num_workers=4, min_workers=2, micro_batch_size=2)  # 8 groups per step

    def check(**values: Any) -> None:
        check_sizes(elastic.model_copy(update={"deepspeed_config": values}))

    check(train_batch_size="auto", train_micro_batch_size_per_gpu=2, zero_optimization={"overlap_comm": True})
    with pytest.raises(UserError, match=r"min_workers=2: with 3 worker\(s\): .*train_batch_size=8, but 12 follows"):
        check(train_batch_size=8)  # what DeepSpeed makes of two micro-batches on three workers, one of them short
    with pytest.raises(UserError, match=r"with 2 worker\(s\): .*gradient_accumulation_steps=1, but 2 follows"):
        check(gradient_accumulation_steps=1)
    check_sizes(CONFIG.model_copy(update={"deepspeed_config": {"train_batch_size": 7}}))  # a fixed run: told by its own


def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"wall_clock_breakdown": True}))
    config = TrainConfig(deepspeed_config=str(path))
    assert inlined(config).deepspeed_config == {"wall_clock_breakdown": True}
    for content in ("[1]", "{"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"ds\.json"):
            inlined(config)
    with pytest.raises(UserError, match="not a readable JSON file"):
        inlined(TrainConfig(deepspeed_config=str(tmp_path / "none.json")))


@pytest.mark.parametrize(("offload", "stage"), [("optimizer", 0), ("optimizer+parameters", 2)])
def test_offload_needs_its_stage(offload: str, stage: int) -> None:
    with pytest.raises(UserError, match="needs zero_stage"):
        load_config(None, [f"train.offload={offload}", f"train.zero_stage={stage}"])


def test_biases_and_norms_do_not_decay() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 1, bias=False))
    module[0].weight.requires_grad_(False)
    decayed, rest = parameter_groups(module, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(module[1].weight), id(module[3].weight)]
    assert [id(p) for p in rest["params"]] == [id(module[1].bias), id(module[2].weight), id(module[2].bias)]
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert len(parameter_groups(module, 0.0)) == 1
    torch.optim.AdamW(parameter_groups(module, 0.1))
