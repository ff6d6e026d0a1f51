"""What one rank computes in the first step of a run, before its weights change: outputs, loss and gradients."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

from mapl_ray.config import TrainConfig
from mapl_ray.models import heads
from mapl_ray.objective import Objective
from mapl_ray.training.module import ModelSource
from mapl_ray.training.set_up import group_tables, set_up
from mapl_ray.training.step import reference_kind
from mapl_ray.training.stop import StopWatch


def first_step(spec: dict[str, Any]) -> None:
    """Leave `first-RANK.pt` in the output folder.

    Of every micro-batch its `outputs`, `losses`, `width` (tokens of a row), `columns` (those that this rank computes),
    `edges` (predicted tokens that it computes) and `kept` (bytes for the backward pass); `gradients` summed over ranks.
    """
    config, method = TrainConfig.model_validate(spec["config"]), spec["method"]
    output = Path(spec["output"])
    tables = group_tables(config, Path(spec["train"]), None, None)
    source = ModelSource(spec["model"], None, "float32", method, config.seed)
    kind = reference_kind(config, method, [table for table in tables if table is not None])
    piece, heads.PIECE = heads.PIECE, spec.get("piece", heads.PIECE)
    try:
        run = set_up(config, Objective.of(config, method), source, kind, tables, output, model_id=None, export=False)
        engine, trainer = run.engine, run.trainer
        now = trainer.first_step(run.feed.steps(run.plan, 0, 1), StopWatch(lambda: False, None))
        assert now.work is not None
        found: dict[str, Any] = {name: [] for name in ("outputs", "losses", "edges", "width", "columns", "kept")}
        engine.train_mode(True)
        for index, batch in enumerate(now.work.batches):
            if index:
                engine.step()
            batch = trainer.reference(batch)
            with kept_bytes() as kept:
                outputs = engine(batch)
            loss = trainer.objective(outputs, batch, now.counts_L).loss
            engine.backward(loss)
            found["outputs"].append(outputs.detach())
            found["losses"].append(loss.detach())
            found["kept"].append(sum(kept.values()))
            found["edges"].append(len(batch.target_E) if batch.part is None else len(batch.part.edges))
            found["width"].append(batch.input_ids.shape[1])
            found["columns"].append((batch if batch.part is None else batch.part).input_ids.shape[1])
        found["gradients"] = {
            name: safe_get_full_grad(parameter).clone()
            for name, parameter in engine.module.named_parameters()
            if parameter.requires_grad
        }
    finally:
        heads.PIECE = piece
    output.mkdir(parents=True, exist_ok=True)
    torch.save(found, output / f"first-{dist.get_rank()}.pt")
    if dist.get_rank() == 0:
        (output / "outcome.json").write_text(json.dumps({}))
    dist.barrier()


@contextmanager
def kept_bytes() -> Iterator[dict[int, int]]:
    """Bytes that autograd keeps for the backward pass, by storage, without those of weights."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        whole = tensor if tensor._base is None else tensor._base
        if not isinstance(whole, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


def read_first_step(output: Path, rank: int) -> dict[str, Any]:
    """What a rank left."""
    found: dict[str, Any] = torch.load(output / f"first-{rank}.pt", weights_only=True)
    return found
