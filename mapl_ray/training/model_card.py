"""The README of an exported model: where it comes from, what it learnt from and how, and how well it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from mapl_ray.config import Method
from mapl_ray.preferences import is_uri
from mapl_ray.versions import package_versions


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What does not change in a run."""

    method: Method
    base_model: str  # a hub's name, a directory or a URI
    revision: str | None
    data: str  # the groups, as in run/scored/train
    data_hash: str
    groups: int
    total_steps: int
    num_workers: int
    config: dict[str, Any]  # the `train` section

    @property
    def base_name(self) -> str:
        """What a hub takes: a name, never a path of this machine or the address of a store."""
        if is_uri(self.base_model):
            return PurePosixPath(urlsplit(self.base_model).path).name
        return Path(self.base_model).name if Path(self.base_model).is_dir() else self.base_model


_WHAT = {
    "rm": "A reward model: `num_labels=1`, the reward of a response is the one logit of prompt and response.",
    "dpo": "A policy trained with direct preference optimisation (DPO).",
}
_AUTO = {"rm": "AutoModelForSequenceClassification", "dpo": "AutoModelForCausalLM"}


def model_card(facts: CardFacts, step: int, metrics: dict[str, float], adapter: bool = False) -> str:
    """Markdown with a metadata header, as model hubs read it. `metrics` are of the held-out groups after `step`."""
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
