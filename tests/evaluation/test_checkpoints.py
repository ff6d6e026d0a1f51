"""Which models are named, and what they are."""

import json
import shutil
from pathlib import Path

import pytest

from mapl_ray.errors import UserError
from mapl_ray.evaluation.checkpoints import named_checkpoints, split_revision


def copy(model: Path, to: Path, **changes: object) -> str:
    """The model's small files, its config with other values."""
    shutil.copytree(model, to, ignore=shutil.ignore_patterns("*.safetensors"))
    values = json.loads((to / "config.json").read_text()) | changes
    (to / "config.json").write_text(json.dumps(values))
    return str(to)


def test_models_go_by_what_tells_them_apart(tiny_model: Path, tmp_path: Path) -> None:
    head = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "reward"}}
    given = [
        copy(tiny_model, tmp_path / "a" / "rm" / "model", **head),
        copy(tiny_model, tmp_path / "b" / "rm" / "model", **head),
        copy(tiny_model, tmp_path / "b" / "dpo" / "model"),
    ]
    found = named_checkpoints(given)
    assert [(one.name, one.method) for one in found] == [("a/rm", "rm"), ("b/rm", "rm"), ("dpo", "dpo")]
    assert [one.path for one in found] == given
    assert split_revision("owner/name@main") == ("owner/name", "main")
    assert split_revision("owner/name") == ("owner/name", None)


def test_what_is_neither_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"num_labels=2 \(0: LABEL_0, 1: LABEL_1\): a classifier"):
        named_checkpoints([copy(tiny_model, tmp_path / "two", architectures=["LlamaForSequenceClassification"])])
    with pytest.raises(UserError, match=r"expected a reward model .* but found LlamaModel"):
        named_checkpoints([copy(tiny_model, tmp_path / "bare", architectures=["LlamaModel"])])
    with pytest.raises(UserError, match="no such model directory"):
        named_checkpoints([str(tmp_path / "gone")])
