"""Where log pi_ref(y|x) of DPO comes from: the data, a frozen copy of the base model, or the adapter switched off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch

from mapl_ray.batches import Batch
from mapl_ray.config import Method, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.training.deepspeed_engine import Engine
from mapl_ray.training.group_table import GroupTable
from mapl_ray.training.lora import switched_off

Kind = Literal["none", "scored", "frozen", "adapter"]
Fill = Callable[[Batch], Batch]


def reference_kind(config: TrainConfig, method: Method, tables: list[GroupTable]) -> Kind:
    """What `train.reference` comes to: `auto` takes the cheapest that the run has.

    Scores cost nothing, an adapter one more forward pass, a frozen copy that and its memory. Scores are those of whole
    weights: a policy of 4-bit weights would begin away from its reference, so there `auto` is the adapter. Raises
    `UserError` where what is asked for is not there.
    """
    if method == "rm":
        return "none"
    unscored = [table.directory for table in tables if not table.has_ref_logps]
    if config.reference == "scored" and unscored:
        raise UserError(
            f"{unscored[0]}: no ref_logps, which train.reference=scored needs. Run `mapl score` with "
            "scoring.ref_logps=true, or set train.reference=frozen (adapter with train.lora)."
        )
    if config.reference != "auto":
        return config.reference
    if not unscored and (config.lora is None or config.lora.quantize is None):
        return "scored"
    return "frozen" if config.lora is None else "adapter"


def switched_off_reference(engine: Engine, wrapped: Any) -> Fill:
    """The policy's own engine with its adapter switched off, without dropout."""

    def fill(batch: Batch) -> Batch:
        training = engine.module.training
        engine.train_mode(False)
        with torch.no_grad(), switched_off(wrapped):
            ref_logps_S = engine(batch)
        engine.train_mode(training)
        return replace(batch, ref_logps_S=ref_logps_S)

    return fill


def frozen_reference(forward: Callable[[Batch], torch.Tensor]) -> Fill:
    """A model of its own, which is not trained."""

    def fill(batch: Batch) -> Batch:
        with torch.no_grad():
            return replace(batch, ref_logps_S=forward(batch))

    return fill
