"""Export of the trained model as a Hugging Face directory with a model card, for transformers, PEFT and vLLM."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
import yaml

from mapl_ray.config import Method
from mapl_ray.data.shards import sync_folder, sync_tree
from mapl_ray.models import quiet_transformers
from mapl_ray.preferences import is_uri
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.module import ModelSource, TrainingModule, merged_model, save_adapter
from mapl_ray.unfinished import leftovers, unfinished
from mapl_ray.versions import package_versions

_WRAPPER = "model."  # RewardScores and PolicyLogps hold the model under this name


@dataclass(frozen=True, slots=True)
class Exporter:
    """Writes the current weights."""

    engine: Engine
    trained: TrainingModule
    source: ModelSource
    tokenizer: Any
    facts: CardFacts

    def write(self, directory: Path, adapter: Path, step: int, metrics: dict[str, float]) -> None:
        """Write the whole model (with LoRA: the merged one) to `directory`, and with LoRA the adapter to `adapter`.

        Every rank must call it. Directories are written atomically.
        """
        state_dict = self.engine.full_state_dict()
        if state_dict is not None:
            weights = {name.removeprefix(_WRAPPER): tensor for name, tensor in state_dict.items()}
            if self.trained.wrapped is None:
                export_model(self.trained.module.model, self.tokenizer, weights, directory, self._card(step, metrics))
            else:
                self._write_adapter(weights, adapter, self._card(step, metrics, adapter=True))
                base = merged_model(self.source.load("cpu"), adapter)
                export_model(base, self.tokenizer, None, directory, self._card(step, metrics))
        self.engine.barrier()

    def _write_adapter(self, weights: dict[str, torch.Tensor], directory: Path, card: str) -> None:
        with _at_once(directory) as aside:
            save_adapter(self.trained.wrapped, weights, aside)
            self.tokenizer.save_pretrained(aside)
            (aside / "README.md").write_text(card, encoding="utf-8")

    def _card(self, step: int, metrics: dict[str, float], adapter: bool = False) -> str:
        return model_card(self.facts, step, metrics, adapter)


def export_model(
    model: Any, tokenizer: Any, weights: dict[str, torch.Tensor] | None, directory: Path, card: str
) -> None:
    """Write weights (safetensors; None: the model's own), config, tokenizer, chat template and card."""
    model.config.pad_token_id = tokenizer.pad_token_id  # transformers needs it to find the last token
    if weights is not None:
        weights = {name: tensor.detach().cpu() for name, tensor in weights.items()}
    with _at_once(directory) as aside:
        with quiet_transformers():
            model.save_pretrained(aside, state_dict=weights)
        tokenizer.save_pretrained(aside)
        (aside / "README.md").write_text(card, encoding="utf-8")


def copy_export(source: Path, directory: Path) -> None:
    """Copy an exported folder, without hard links, as users may edit one of the two."""
    with _at_once(directory) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True)


@contextmanager
def _at_once(directory: Path) -> Iterator[Path]:
    """Yield a temporary folder, then sync it and replace `directory` with it."""
    for leftover in leftovers(directory):  # from killed runs
        shutil.rmtree(leftover, ignore_errors=True)
    aside = unfinished(directory)
    aside.mkdir(parents=True)
    yield aside
    sync_tree(aside)
    shutil.rmtree(directory, ignore_errors=True)
    aside.rename(directory)
    sync_folder(directory.parent)


@dataclass(frozen=True, slots=True)
class CardFacts:
    """Contents of a model card that are constant in a run."""

    method: Method
    base_model: str  # a hub name, a directory or a URI
    revision: str | None
    data: str  # the groups, such as run/scored/train
    data_hash: str
    groups: int
    total_steps: int
    num_workers: int
    config: dict[str, Any]  # the `train` section

    @property
    def base_name(self) -> str:
        """Name of the base model for a hub, without local paths or storage addresses."""
        if is_uri(self.base_model):
            return PurePosixPath(urlsplit(self.base_model).path).name
        return Path(self.base_model).name if Path(self.base_model).is_dir() else self.base_model


_WHAT = {
    "rm": "A reward model: `num_labels=1`, the reward of a response is the single logit for prompt and response.",
    "dpo": "A policy trained with direct preference optimization (DPO).",
}
_AUTO = {"rm": "AutoModelForSequenceClassification", "dpo": "AutoModelForCausalLM"}


def model_card(facts: CardFacts, step: int, metrics: dict[str, float], adapter: bool = False) -> str:
    """Model card as Markdown with a metadata header for hubs. `metrics`: of the held-out groups after `step`."""
    return f"---\n{yaml.safe_dump(_header(facts, adapter), sort_keys=False)}---\n\n" + "\n".join(
        [
            f"# {'Adapter' if adapter else 'Model'} after step {step} of {facts.total_steps}",
            "",
            f"{_WHAT[facts.method]} Trained by Multi-level Aware Preference Learning "
            f"([arXiv 2505.12845](https://arxiv.org/abs/2505.12845)) with mapl_ray, from `{facts.base_name}`"
            f"{'' if facts.revision is None else f' at revision `{facts.revision}`'}.",
            "",
            _loading(facts, adapter),
            "",
            "## Held-out metrics",
            "",
            *_table("metric", {name: f"{value:.4f}" for name, value in sorted(metrics.items())}),
            "",
            "## Data",
            "",
            f"{facts.groups} relation groups of `{facts.data}`, content hash `{facts.data_hash}`.",
            "",
            "## Training",
            "",
            f"{facts.num_workers} worker(s).",
            "",
            f"```yaml\n{yaml.safe_dump(facts.config, sort_keys=False)}```",
            "",
            "## Versions",
            "",
            *_table("package", package_versions()),
            "",
        ]
    )


def _header(facts: CardFacts, adapter: bool) -> dict[str, Any]:
    lora = facts.config.get("lora") is not None
    return {
        "library_name": "peft" if adapter else "transformers",
        "base_model": facts.base_name,
        "base_model_relation": "adapter" if adapter else "finetune",
        "pipeline_tag": "text-classification" if facts.method == "rm" else "text-generation",
        "tags": [
            "mapl",
            "preference-learning",
            "reward-model" if facts.method == "rm" else "dpo",
            *(["lora"] if lora else []),
        ],
    }


def _loading(facts: CardFacts, adapter: bool) -> str:
    auto = _AUTO[facts.method]
    labels = ", num_labels=1" if facts.method == "rm" else ""
    lines = [f"from transformers import {auto}, AutoTokenizer", 'tokenizer = AutoTokenizer.from_pretrained("PATH")']
    if adapter:
        lines += [
            "from peft import PeftModel",
            f'base = {auto}.from_pretrained("{facts.base_name}"{labels})',
            'model = PeftModel.from_pretrained(base, "PATH")',
        ]
    else:
        lines.append(f'model = {auto}.from_pretrained("PATH")')
    return "```python\n" + "\n".join(lines) + "\n```"


def _table(head: str, rows: dict[str, str]) -> list[str]:
    if not rows:
        return ["None."]
    return [f"| {head} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
