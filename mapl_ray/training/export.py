"""The trained model as Hugging Face directories that transformers, peft and vLLM load as they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mapl_ray.models import quiet_transformers
from mapl_ray.shards import sync_folder, sync_tree
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.lora import merged, save_adapter
from mapl_ray.training.model_card import CardFacts, model_card
from mapl_ray.training.module import ModelSource, TrainingModule
from mapl_ray.unfinished import leftovers, unfinished

_WRAPPER = "model."  # RewardScores and PolicyLogps hold the model under this name


@dataclass(frozen=True, slots=True)
class Exporter:
    """Writes the weights of the moment."""

    engine: Engine
    trained: TrainingModule
    source: ModelSource
    tokenizer: Any
    facts: CardFacts

    def write(self, directory: Path, adapter: Path, step: int, metrics: dict[str, float]) -> None:
        """The whole model into `directory`; where adapters were trained, they alone into `adapter`, and merged there.

        Every rank must call it; each directory appears at once.
        """
        state_dict = self.engine.full_state_dict()
        if state_dict is not None:
            weights = {name.removeprefix(_WRAPPER): tensor for name, tensor in state_dict.items()}
            if self.trained.wrapped is None:
                export_model(self.trained.module.model, self.tokenizer, weights, directory, self._card(step, metrics))
            else:
                self._write_adapter(weights, adapter, self._card(step, metrics, adapter=True))
                base = merged(self.source.load("cpu"), adapter)
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
    model.config.pad_token_id = tokenizer.pad_token_id  # transformers finds the last token by it
    if weights is not None:
        weights = {name: tensor.detach().cpu() for name, tensor in weights.items()}
    with _at_once(directory) as aside:
        with quiet_transformers():
            model.save_pretrained(aside, state_dict=weights)
        tokenizer.save_pretrained(aside)
        (aside / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def _at_once(directory: Path) -> Iterator[Path]:
    """A folder to fill, which then takes the place of `directory`, all of it on the disk."""
    for leftover in leftovers(directory):  # of killed runs
        shutil.rmtree(leftover, ignore_errors=True)
    aside = unfinished(directory)
    aside.mkdir(parents=True)
    yield aside
    sync_tree(aside)
    shutil.rmtree(directory, ignore_errors=True)
    aside.rename(directory)
    sync_folder(directory.parent)
