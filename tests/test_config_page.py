"""docs/config.md holds every key of a run config with its meaning, and is current."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from mapl_ray.config import RunConfig

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_reference", DOCS / "config_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_current(generator: ModuleType) -> None:
    assert (DOCS / "config.md").read_text(encoding="utf-8") == generator.page(), "run python docs/config_reference.py"


def test_every_key_has_a_meaning(generator: ModuleType) -> None:
    rows = [line for line in generator.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert not [row for row in rows if row.replace("\\|", "").split("|")[4].strip() == ""]


def test_sections_are_those_of_the_models(generator: ModuleType) -> None:
    names = {name for name, _ in generator._sections(RunConfig, "")}
    assert {"data", "data.mix[]", "train.lora", "train.weights", "tune.space.NAME", "evaluation.sets.NAME"} <= names
    text = generator.page()
    assert all(f"\n## {name}\n" in text for name in names)


def test_a_comment_above_and_one_beside_a_field_are_read(generator: ModuleType) -> None:
    from mapl_ray.config import TrainConfig

    found = generator.meanings(TrainConfig)
    assert found["zero_stage"] == "DeepSpeed ZeRO stage."
    assert found["reference"].startswith("DPO: source of ref_logps. auto: ")
