"""Shared by the points: models with random weights, groups, timing and peak memory, on one device."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mapl_ray.batches import Batch, EncodedGroup, collate
from mapl_ray.config import Attention
from mapl_ray.data.records import Level, Relation, Sequence
from mapl_ray.models import PolicyLogps, prepare_for_trees
from mapl_ray.models.tiny import chat_tokenizer
from mapl_ray.models.tree_attention import row_budget, row_multiple

Figures = dict[str, float | int | str | bool | list[float]]


@dataclass(frozen=True)
class Setting:
    """Device and size of the points."""

    device: str
    full: bool  # False: a rehearsal with tiny shapes on a CPU

    @property
    def attention(self) -> Attention:
        return "flex" if self.device == "cuda" else "auto"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    def shape(self, name: str) -> str:
        return name if self.full else "tiny"

    def sizes(self, full: list[int], small: list[int]) -> list[int]:
        return full if self.full else small


_SHAPES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "tiny": (LlamaConfig, LlamaForCausalLM, {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }),
    "0.5b": (Qwen2Config, Qwen2ForCausalLM, {
        "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
    }),
    "8b": (LlamaConfig, LlamaForCausalLM, {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    }),
}  # fmt: skip


def random_model(shape: str, device: str, dtype: torch.dtype, **changes: Any) -> Any:
    """A causal model with the shape of Qwen2.5-0.5B or Llama-3.1-8B and random weights from seed 0."""
    config_class, model_class, values = _SHAPES[shape]
    config = config_class(**{"max_position_embeddings": 65_536, "pad_token_id": 0, **values, **changes})
    return drawn(model_class, config, device, dtype)


def drawn(model_class: Any, config: Any, device: str, dtype: torch.dtype) -> Any:
    """Create the model directly in its dtype: float32 first would take twice the memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            model = model_class(config)
    finally:
        torch.set_default_dtype(before)
    model.config.use_cache = False
    return model.train()


_RELATIONS = (
    Relation(Level.PREF, (0,), (1,)),
    Relation(Level.INTRA, (2,), (4,)),
    Relation(Level.INTRA, (5,), (3,)),
    Relation(Level.INTER_WIDENING, (2, 1), (3, 0)),
    Relation(Level.INTER_NARROWING, (0, 5), (1, 4)),
)


def grid_groups(number: int, tokens: int, vocabulary: int) -> list[EncodedGroup]:
    """Grid groups with trees of about `tokens` tokens each: the prompt has a sixth, each of two instructions a
    sixtieth, and two responses follow each of three prompts."""
    groups = []
    for seed in range(number):
        ids = torch.randint(1, vocabulary, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()
        x, rule = tokens // 6, max(1, tokens // 60)
        answer = (tokens - x - 2 * rule) // 6
        prompt = tuple(ids[:x])
        prompts = (prompt, (*prompt, *ids[x : x + rule]), (*prompt, *ids[x + rule : x + 2 * rule]))
        responses = (tuple(ids[-answer:]), tuple(ids[-2 * answer : -answer]))
        cells = tuple(Sequence(row, column, ()) for row in range(3) for column in range(2))
        groups.append(EncodedGroup(str(seed), prompts, responses, cells, _RELATIONS))
    return groups


def save_model(model: Any, folder: Path) -> None:
    """Save the model with a tokenizer, as a directory for the project's loaders."""
    model.save_pretrained(folder)
    chat_tokenizer(Tokenizer(BPE()), 2048).save_pretrained(folder)


def tree_batch(model: Any, groups: list[EncodedGroup], setting: Setting) -> Batch:
    """The groups as rows of trees for this model, on the device."""
    return collate(groups, "tree", 0, row_multiple(model), row_budget(model)).to(setting.device)


def with_reference(module: Any, batch: Batch) -> Batch:
    """The batch with the module's current logps as `ref_logps`."""
    with torch.no_grad():
        return replace(batch, ref_logps_S=module(batch).float())


def policy_on_trees(setting: Setting, shape: str, dtype: torch.dtype | None = None, **changes: Any) -> PolicyLogps:
    """A policy that is prepared for trees."""
    model = random_model(shape, setting.device, dtype or setting.dtype, **changes)
    prepare_for_trees(model, setting.attention, setting.device)
    return PolicyLogps(model)


def synchronize(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()


def median_seconds(setting: Setting, run: Callable[[], Any], turns: int = 5) -> float:
    """Median seconds of `turns` runs after a warm-up."""
    seconds = []
    for turn in range(turns + 1):
        synchronize(setting)
        began = time.perf_counter()
        run()
        synchronize(setting)
        if turn:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


@contextmanager
def peak_gib(setting: Setting, figures: Figures, name: str) -> Any:
    """Record the block's peak GPU memory above the memory at its start, in GiB, as `figures[name]`."""
    gc.collect()
    if setting.device != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield
    torch.cuda.synchronize()
    figures[name] = round((torch.cuda.max_memory_allocated() - before) / 2**30, 2)
