"""Data sets and a launcher of several ranks."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, Qwen2MoeConfig

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.data.shards import commit, write_part
from mapl_ray.models import PolicyLogps, load_policy
from tests.schedule import shared
from tests.training.warm_ranks import WarmRanks

Outcome = dict[str, Any]
Launch = Callable[..., list[Outcome]]


def write_groups(directory: Path, groups: list[RelationGroup]) -> Path:
    """Groups as a finished data set of one part."""
    commit(directory, "score", "f", [write_part(directory, 0, [g.to_row() for g in groups], [], GROUP_SCHEMA, "f")])
    return directory


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, grid_groups: Any, tiny_model: Path, tokenizer: Any) -> Path:
    """13 groups to train on (no multiple of any batch here), 5 held out; both unscored; one with a poisoned group."""
    folder, policy = tmp_path_factory.mktemp("data"), PolicyLogps(load_policy(tiny_model, "float32"))
    groups = []
    for group in grid_groups(18):
        encoded = encode_group(group, tokenizer, 256)
        assert isinstance(encoded, EncodedGroup)
        with torch.no_grad():
            ref_logps = policy(collate([encoded], "padded", tokenizer.pad_token_id))
        groups.append(replace(group, ref_logps=tuple(ref_logps.tolist()), margin=0.5 if len(groups) % 2 else None))
    write_groups(folder / "train", groups[:13])
    write_groups(folder / "eval", groups[13:])
    unscored = [replace(group, ref_logps=None) for group in groups]
    write_groups(folder / "train unscored", unscored[:13])
    write_groups(folder / "eval unscored", unscored[13:])
    poisoned = replace(groups[2], ref_logps=(float("nan"),) * 6)
    write_groups(folder / "poisoned", [*groups[:2], poisoned, *groups[3:6]])
    return folder


@pytest.fixture(scope="session")
def dropout_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with dropout in its attention, so that every step draws random numbers."""
    folder = tmp_path_factory.mktemp("models") / "dropout"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    return folder


@pytest.fixture(scope="session")
def moe_models(tiny_model: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Mixtures of experts with random weights and the tokenizer of the tiny model, by their model type."""
    folder, sizes = tmp_path_factory.mktemp("moe"), json.loads((tiny_model / "config.json").read_text())
    common = {
        name: sizes[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")
    }
    common |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_experts_per_tok": 2}
    configs = {
        "mixtral": MixtralConfig(**common, intermediate_size=64, num_local_experts=4),
        "qwen2_moe": Qwen2MoeConfig(
            **common, moe_intermediate_size=32, shared_expert_intermediate_size=32, num_experts=4
        ),
    }
    torch.manual_seed(0)
    for kind, config in configs.items():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
    return {kind: folder / kind for kind in configs}


@pytest.fixture(scope="session")
def warm_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], WarmRanks]]:
    """`warm_ranks(n)`: n ranks that are up, the same ones for every caller."""
    started: dict[int, WarmRanks] = {}

    def of(ranks: int) -> WarmRanks:
        if ranks not in started or not started[ranks].alive:
            started[ranks] = WarmRanks(ranks, tmp_path_factory.mktemp("ranks"))
            shared.append(stop)
        return started[ranks]

    def stop() -> None:
        while started:
            started.popitem()[1].stop()

    yield of
    stop()


@pytest.fixture(scope="session")
def launch(data: Path, tiny_model: Path, warm_ranks: Callable[[int], WarmRanks]) -> Launch:
    """`launch(ranks, spec, ...)` runs specs one after another in the same processes, as torchrun does on a machine."""

    def run(ranks: int, *specs: dict[str, Any]) -> list[Outcome]:
        filled = [
            {"model": str(tiny_model), "train": str(data / "train"), "eval": str(data / "eval"), **s} for s in specs
        ]
        warm_ranks(ranks).run(filled)
        return [json.loads((Path(spec["output"]) / "outcome.json").read_text()) for spec in filled]

    return run
