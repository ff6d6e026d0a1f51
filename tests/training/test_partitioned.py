"""Models under ZeRO-3 are never whole on a rank. What they learn is compared in `test_ranks`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.batches import Batch, EncodedGroup, collate, encode_group
from mapl_ray.config import LoraConfig, Method, TrainConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.models import PolicyLogps, load_policy, load_reward_model, prepare_for_trees
from mapl_ray.training.deepspeed_engine import Engine, deepspeed
from mapl_ray.training.engine_config import parameter_groups
from mapl_ray.training.module import ModelSource, TrainingModule, loaded_in_parts, training_module
from mapl_ray.training.step import switched_off_reference


def test_zero_3_loads_in_parts(tiny_model: Path) -> None:
    with loaded_in_parts(TrainConfig(zero_stage=3)):
        models = load_policy(tiny_model, "float32"), load_reward_model(tiny_model, "float32", seed=1)
    whole = load_policy(tiny_model, "float32")
    for model in models:
        assert all(parameter.numel() == 0 for parameter in model.parameters())
        prepare_for_trees(model)  # tried by a short model: needs no whole weights
    expected, found = (
        [(group["weight_decay"], len(group["params"])) for group in parameter_groups(model, 0.1)]
        for model in (whole, models[0])
    )
    assert found == expected
    assert len(found) == 2
    assert sum(p.numel() for p in whole.parameters()) == sum(int(p.ds_numel) for p in models[0].parameters())


Coordinator = deepspeed.runtime.zero.partitioned_param_coordinator.PartitionedParameterCoordinator


class Order:
    """How often ZeRO-3 dropped the order in which it had seen modules run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.dropped = 0
        original = Coordinator._invalidate_trace

        def counted(coordinator: Any) -> None:
            self.dropped += 1
            original(coordinator)

        patch.setattr(Coordinator, "_invalidate_trace", counted)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Order:
    return Order(monkeypatch)


def batch_of(groups: list[RelationGroup], tokenizer: Any) -> Batch:
    encoded = [encode_group(group, tokenizer, 256) for group in groups]
    return collate([one for one in encoded if isinstance(one, EncodedGroup)], "tree", tokenizer.pad_token_id)


def engine_of(
    method: Method, model: Path, tokenizer: Any, order: Order, **train: Any
) -> tuple[TrainConfig, TrainingModule, Engine]:
    """ZeRO-3 on one rank; the order is counted from now on."""
    config = TrainConfig(zero_stage=3, micro_batch_size=2, max_sequence_tokens=256, learning_rate=1e-3, **train)
    trained = training_module(config, ModelSource(str(model), None, "float32", method, 0), tokenizer)
    engine = Engine(trained.module, config, total_steps=10)
    order.dropped = 0
    return config, trained, engine


def test_the_adapter_as_reference_keeps_the_order_of_modules(
    tiny_model: Path, tokenizer: Any, grid_groups: Any, order: Order
) -> None:
    config, trained, engine = engine_of("dpo", tiny_model, tokenizer, order, lora=LoraConfig(r=4))
    reference = switched_off_reference(engine, trained.wrapped, config.zero_stage)
    base, groups = PolicyLogps(load_policy(tiny_model, "float32")).eval(), grid_groups(8)
    prepare_for_trees(base.model)
    for step in range(4):
        engine.train_mode(True)
        batch = reference(batch_of(groups[2 * step : 2 * step + 2], tokenizer))
        with torch.no_grad():
            torch.testing.assert_close(batch.ref_logps_S, base(batch), rtol=0, atol=0)
        logps_S = engine(batch)
        assert torch.equal(logps_S, batch.ref_logps_S) is (step == 0)  # the adapter begins at 0, and is learned
        engine.backward(-logps_S.mean())
        engine.step()
    engine.train_mode(False)
    with torch.no_grad():  # an evaluation
        engine(reference(batch_of(groups, tokenizer)))
    assert order.dropped == 1  # by the reference itself, after its first pass


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
def test_mixtures_of_experts_keep_the_order_of_modules(
    kind: str, moe_models: dict[str, Path], tokenizer: Any, grid_groups: Any, order: Order
) -> None:
    """Which experts a token goes to differs from step to step; experts are one module, so its weights come together."""
    _, trained, engine = engine_of("dpo", moe_models[kind], tokenizer, order)
    experts = [module for name, module in trained.module.named_modules() if name.endswith(".experts")]
    assert experts
    assert not [module for expert in experts for module in expert.modules() if isinstance(module, torch.nn.ModuleList)]
    whole, groups = PolicyLogps(load_policy(moe_models[kind], "float32")).eval(), grid_groups(6)
    for step in range(3):
        engine.train_mode(True)
        batch = batch_of(groups[2 * step : 2 * step + 2], tokenizer)
        logps_S = engine(batch)
        if step == 0:
            with torch.no_grad():
                prepare_for_trees(whole.model)
                torch.testing.assert_close(logps_S, whole(batch), rtol=0, atol=1e-4)
        engine.backward(-logps_S.mean())
        engine.step()
    assert order.dropped == 0


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_rotary_frequencies_are_not_rounded(kind: str, tiny_model: Path, moe_models: dict[str, Path]) -> None:
    """DeepSpeed makes all that is built while it partitions in bfloat16, also what is no weight."""
    path = tiny_model if kind == "llama" else moe_models[kind]
    with loaded_in_parts(TrainConfig(zero_stage=3, bf16=True)):
        partitioned = dict(load_policy(path, "bfloat16").named_buffers())
    whole = dict(load_policy(path, "bfloat16").named_buffers())
    assert whole
    assert partitioned.keys() == whole.keys()
    for name, buffer in whole.items():
        assert buffer.dtype == torch.float32
        torch.testing.assert_close(partitioned[name], buffer, rtol=0, atol=0)


def test_other_stages_load_whole(tiny_model: Path) -> None:
    with loaded_in_parts(TrainConfig(zero_stage=2)):
        model = load_policy(tiny_model, "float32")
    assert all(isinstance(parameter, torch.Tensor) and parameter.numel() for parameter in model.parameters())
