"""Points F4 and F6 to F11: determinism, time and memory of training steps; ZeRO-3; scoring; 4-bit weights."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.material import (
    Figures,
    Setting,
    grid_groups,
    median_seconds,
    peak_gib,
    policy_on_trees,
    random_model,
    save_model,
    tree_batch,
    with_reference,
)
from mapl_ray.batches import Batch, collate
from mapl_ray.config import TrainConfig
from mapl_ray.models import PolicyLogps, prepare_for_trees
from mapl_ray.models.heads import Float32Head
from mapl_ray.models.tree_attention import plain_attention
from mapl_ray.objective import Objective

_NO_DEEPSPEED: Figures = {"not run": "DeepSpeed is not installed"}


def _config(setting: Setting, **train: Any) -> TrainConfig:
    on_gpu = setting.device == "cuda"
    values = {"bf16": on_gpu, "gpus_per_worker": float(on_gpu), "learning_rate": 1e-5, "weight_decay": 0.1, **train}
    return TrainConfig.model_validate(values)


class _Steps:
    """DPO steps on one micro-batch, with the engine of `mapl train`."""

    def __init__(self, setting: Setting, module: nn.Module, **train: Any) -> None:
        from mapl_ray.training.deepspeed_engine import Engine

        self.config = _config(setting, **train)
        self.engine = Engine(module, self.config, total_steps=100)
        self.objective = Objective.of(self.config, "dpo")

    def __call__(self, batch: Batch) -> float:
        self.engine.train_mode(True)
        result = self.objective(self.engine(batch), batch)
        self.engine.backward(result.loss)
        self.engine.step()
        return float(result.loss.detach())


def steps_of_half_a_billion(setting: Setting) -> Figures:
    """F4: tokens/s and peak memory of DPO steps (ZeRO-2), trees against padded sequences of the same groups."""
    if find_spec("deepspeed") is None:
        return _NO_DEEPSPEED
    figures: Figures = {}
    for number in setting.sizes([4, 16], [2]):
        groups = grid_groups(number, 1600 if setting.full else 200, 512)
        seconds = {}
        for batching in ("tree", "padded"):
            module = policy_on_trees(setting, setting.shape("0.5b"))
            if batching == "padded":
                module.model.set_attn_implementation(plain_attention(module.model.config))
            steps = _Steps(setting, module, micro_batch_size=number)
            batch = (
                tree_batch(module.model, groups, setting)
                if batching == "tree"
                else collate(groups, "padded", 0).to(setting.device)
            )
            batch = with_reference(module, batch)
            where = f"{batching}, {number} groups"
            with peak_gib(setting, figures, f"{where}, GiB"):
                seconds[batching] = median_seconds(setting, lambda s=steps, b=batch: s(b))
            figures[f"{where}, tokens"] = batch.num_tokens
            figures[f"{where}, tokens/s"] = round(batch.num_tokens / seconds[batching])
            figures[f"{where}, groups/s"] = round(number / seconds[batching], 2)
            del module, steps, batch
        figures[f"trees over padded, {number} groups"] = round(seconds["padded"] / seconds["tree"], 2)
    return figures


def same_bits(setting: Setting) -> Figures:
    """F6: five steps twice with one seed, and the last three again from a checkpoint: bit-equal losses."""
    if find_spec("deepspeed") is None:
        return _NO_DEEPSPEED
    groups, folder = grid_groups(2, 1000 if setting.full else 200, 512), Path(tempfile.mkdtemp())

    def losses(number: int, load: bool = False, save_after: int | None = None) -> list[float]:
        module = policy_on_trees(setting, setting.shape("0.5b"), num_hidden_layers=4 if setting.full else 2)
        batch = with_reference(module, tree_batch(module.model, groups, setting))
        steps, found = _Steps(setting, module, micro_batch_size=2, learning_rate=1e-4), []
        if load:
            steps.engine.load(folder, 1)
        for step in range(number):
            found.append(steps(batch))
            if step + 1 == save_after:
                steps.engine.save(folder)
        return found

    try:
        first, second, resumed = losses(5, save_after=2), losses(5), losses(3, load=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert first == second, (first, second)
    assert first[2:] == resumed, (first, resumed)
    return {"losses": first, "resumed": resumed}


def where_time_goes(setting: Setting) -> Figures:
    """F7: three steps at 0.5B: share of time without a kernel, synchronizations, copies; fused AdamW."""
    if find_spec("deepspeed") is None:
        return _NO_DEEPSPEED
    figures: Figures = {}
    module = policy_on_trees(setting, setting.shape("0.5b"))
    batch = with_reference(
        module, tree_batch(module.model, grid_groups(4, 1600 if setting.full else 200, 512), setting)
    )
    steps = _Steps(setting, module, micro_batch_size=4)
    steps(batch)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if setting.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    began = time.perf_counter()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            steps(batch)
    wall = time.perf_counter() - began
    rows = profile.key_averages()
    busy = sum(getattr(row, "self_device_time_total", 0.0) for row in rows) / 1e6
    if setting.device == "cuda":
        figures["share of the time without a kernel"] = round(1 - busy / wall, 3)
    for name in ("cudaStreamSynchronize", "aten::to", "aten::item"):
        figures[f"{name} a step"] = round(sum(row.count for row in rows if row.key == name) / 3, 1)
    del steps, module
    values = [nn.Parameter(torch.zeros(10**8 if setting.full else 10**5, device=setting.device))]
    for name, options in {"fused": {"fused": True}, "foreach": {"foreach": True}}.items():
        values[0].grad = torch.ones_like(values[0])
        optimizer = torch.optim.AdamW(values, lr=1e-5, **options)
        with peak_gib(setting, figures, f"AdamW {name}, GiB"):
            figures[f"AdamW {name}, ms"] = round(1000 * median_seconds(setting, optimizer.step), 2)
    return figures


def shape_of_8b(setting: Setting) -> Figures:
    """F8: forward and backward of an 8B shape, bfloat16, gradient checkpointing: tokens/s and peak by row length."""
    figures: Figures = {}
    began = time.perf_counter()
    module = policy_on_trees(setting, setting.shape("8b"))
    figures["seconds to draw the weights and try trees"] = round(time.perf_counter() - began, 1)
    module.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for tokens in setting.sizes([2048, 8192, 16_384], [300]):
        groups = grid_groups(max(1, tokens // 2048), min(tokens, 2048), 512)
        batch = tree_batch(module.model, groups, setting)

        def both(batch: Batch = batch) -> None:
            module(batch).sum().backward()
            module.zero_grad(set_to_none=True)

        with peak_gib(setting, figures, f"T={tokens}, GiB"):
            seconds = median_seconds(setting, both, 2)
        figures[f"T={tokens}, tokens/s"] = round(batch.num_tokens / seconds)
    return figures


def zero_3(setting: Setting) -> Figures:
    """F9: ZeRO-3, partitioned while loading, against ZeRO-2: peak memory from loading on, losses of three steps."""
    if find_spec("deepspeed") is None:
        return _NO_DEEPSPEED
    from mapl_ray.models import load_policy
    from mapl_ray.training.module import loaded_in_parts

    figures: Figures = {}
    folder = Path(tempfile.mkdtemp())
    dtype = "bfloat16" if setting.device == "cuda" else "float32"
    try:
        save_model(random_model(setting.shape("0.5b"), setting.device, setting.dtype), folder)
        groups, losses = grid_groups(2, 1000 if setting.full else 200, 512), {}
        for stage in (2, 3):
            with peak_gib(setting, figures, f"ZeRO-{stage}, load and first steps, GiB"):
                with loaded_in_parts(_config(setting, zero_stage=stage, micro_batch_size=2)):
                    model = load_policy(folder, dtype)
                prepare_for_trees(model, setting.attention, setting.device)
                module = PolicyLogps(model)
                steps = _Steps(setting, module, zero_stage=stage, micro_batch_size=2)
                batch = tree_batch(model, groups, setting)
                with torch.no_grad():
                    reference = steps.engine(batch).float()
                losses[stage] = [steps(replace(batch, ref_logps_S=reference)) for _ in range(3)]
            del model, module, steps
        figures |= {f"ZeRO-{stage}, losses": found for stage, found in losses.items()}
        off = max(abs(a - b) for a, b in zip(losses[2], losses[3], strict=True))
        assert off < (2e-2 if setting.device == "cuda" else 1e-5), losses
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def scoring_by_trees(setting: Setting) -> Figures:
    """F10: groups per second for ref_logps with the trainer's forward pass; ties of rewards by dtype of the head."""
    figures: Figures = {}
    for shape in ("0.5b", "8b") if setting.full else ("tiny",):
        module = policy_on_trees(setting, shape)
        groups = grid_groups(8, 1600 if setting.full else 200, 512)
        batch = tree_batch(module.model, groups, setting)
        with torch.no_grad():
            seconds = median_seconds(setting, lambda m=module, b=batch: m(b), 3)
        figures[f"{shape}, groups/s"] = round(len(groups) / seconds, 2)
        del module, batch
    hidden = torch.randn(4096, 4096 if setting.full else 64, device=setting.device).to(torch.bfloat16)
    head: Any = nn.Linear(hidden.shape[1], 1, bias=False, device=setting.device, dtype=torch.bfloat16)
    for name, kind in {"bfloat16": nn.Linear, "float32": Float32Head}.items():
        head.__class__ = kind
        rewards = head(hidden).float().flatten()
        figures[f"share of equal rewards, {name} head"] = round(1 - len(rewards.unique()) / len(rewards), 4)
    return figures


def four_bits(setting: Setting) -> Figures:
    """F11: QLoRA gradients; build of DeepSpeed's CPU Adam for optimizer offload."""
    if setting.device != "cuda":
        return {"not run": "needs a GPU"}
    figures: Figures = {}
    with suppress(ImportError):
        from deepspeed.ops.op_builder import CPUAdamBuilder

        began = time.perf_counter()
        CPUAdamBuilder().load(verbose=False)
        figures["seconds to build DeepSpeed's CPU Adam"] = round(time.perf_counter() - began, 1)
    if find_spec("bitsandbytes") is None or find_spec("peft") is None:
        return figures | {"QLoRA": "not run: bitsandbytes and peft are needed"}
    from mapl_ray.config import LoraConfig
    from mapl_ray.models import load_policy
    from mapl_ray.training.module import with_adapter

    folder = Path(tempfile.mkdtemp())
    try:
        save_model(random_model("0.5b", "cuda", torch.bfloat16), folder)
        model = load_policy(folder, "bfloat16", device="cuda", four_bit=True)
        prepare_for_trees(model, setting.attention, "cuda")
        with_adapter(model, LoraConfig(), "dpo", seed=0)
        module = PolicyLogps(model)
        batch = tree_batch(model, grid_groups(2, 1000, 512), setting)
        module(batch).sum().backward()
        gradients = [p.grad for p in module.parameters() if p.requires_grad]
        assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
        figures["QLoRA, adapters with a gradient"] = len(gradients)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


POINTS: dict[str, Callable[[Setting], Figures]] = {
    "F4": steps_of_half_a_billion, "F6": same_bits, "F7": where_time_goes, "F8": shape_of_8b, "F9": zero_3,
    "F10": scoring_by_trees, "F11": four_bits,
}  # fmt: skip
