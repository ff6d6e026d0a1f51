"""Models under ZeRO-3 are never whole on a rank. What they learn is compared in `test_ranks`."""

from pathlib import Path

import torch

from mapl_ray.config import TrainConfig
from mapl_ray.models import load_policy, load_reward_model, prepare_for_trees
from mapl_ray.training.engine_config import parameter_groups
from mapl_ray.training.module import loaded_in_parts


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


def test_other_stages_load_whole(tiny_model: Path) -> None:
    with loaded_in_parts(TrainConfig(zero_stage=2)):
        model = load_policy(tiny_model, "float32")
    assert all(isinstance(parameter, torch.Tensor) and parameter.numel() for parameter in model.parameters())
