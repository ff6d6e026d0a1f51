"""Tree attention on this machine: tokens per second of trees in a bare model, compared with a plain causal row.

    python benchmarks/tree_attention.py [--layers 30] [--tokens 300 1000 3000] [--costs 10000 50000 250000]

The model is a Llama with the shape of SmolLM2-135M and random weights. A micro-batch has trees of grid groups (three
prompts, two responses) of about `--tokens` tokens each, with at least 1,000 tokens in total. Every way runs forward and
backward on the same trees; the plain row has as many tokens, but no tree. Ways alternate, and the table has medians.
`--costs` tests values of `tree_parts.CALL_COST`. `--clock cpu` counts CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaModel
from transformers.masking_utils import sdpa_mask

from mapl_ray.batches import Batch, EncodedGroup, collate
from mapl_ray.data.records import Sequence
from mapl_ray.models.part_attention import part_attention
from mapl_ray.models.tree_attention import attention_mask_of, row_budget, tree_attention

VOCABULARY = 49_152


def model_135m(layers: int, dtype: torch.dtype) -> LlamaModel:
    """A model with random weights and without the output layer, which is the same for every way."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaModel(config).to(dtype).train()


def grid_tree(number: int, tokens: int) -> EncodedGroup:
    """A grid group of about `tokens` tokens as a tree: the prompt has a sixth of them, each of two instructions a
    sixtieth, and two responses that differ from the start follow each of three prompts."""
    draw = torch.Generator().manual_seed(number)
    ids = torch.randint(0, VOCABULARY, (tokens,), generator=draw).tolist()
    x, rule = tokens // 6, tokens // 60
    response = (tokens - x - 2 * rule) // 6
    prompt = tuple(ids[:x])
    prompts = (prompt, prompt + tuple(ids[x : x + rule]), prompt + tuple(ids[x + rule : x + 2 * rule]))
    responses = (tuple(ids[-response:]), tuple(ids[-2 * response : -response]))
    cells = tuple(Sequence(prompt, answer, ()) for prompt in range(3) for answer in (0, 1))
    return EncodedGroup(str(number), prompts, responses, cells, ())


def ways_of(costs: list[int]) -> dict[str, str]:
    """Name in the table -> attention implementation."""
    config = LlamaConfig()
    ways = {name: tree_attention(name, "cpu", config) for name in ("auto", "dense", "branches")}
    for cost in costs:
        AttentionInterface.register(f"parts_{cost}", partial(part_attention, call_cost=cost))
        AttentionMaskInterface.register(f"parts_{cost}", sdpa_mask)
        ways[f"cost {cost}"] = f"parts_{cost}"
    return ways


def run_trees(model: LlamaModel, implementation: str, groups: list[EncodedGroup]) -> Callable[[], None]:
    model.set_attn_implementation(implementation)
    batch: Batch = collate(groups, "tree", 0, row_tokens=row_budget(model))

    def run() -> None:
        model.set_attn_implementation(implementation)
        mask = attention_mask_of(batch, model)
        out = model(batch.input_ids, attention_mask=mask, position_ids=batch.position_ids, use_cache=False)
        out.last_hidden_state.sum().backward()

    return run


def run_plain(model: LlamaModel, tokens: int) -> Callable[[], None]:
    ids = torch.randint(0, VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(1))

    def run() -> None:
        model.set_attn_implementation("sdpa")
        model(ids, use_cache=False).last_hidden_state.sum().backward()

    return run


def measure(ways: dict[str, Callable[[], None]], turns: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of every way, measured in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, run in ways.items():
            began = clock()
            run()
            if turn:  # the first turn is a warm-up
                seconds[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--tokens", type=int, nargs="+", default=[300, 1000, 3000])
    parser.add_argument("--costs", type=int, nargs="*", default=[])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    arguments = parser.parse_args()
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    print(f"{torch.get_num_threads()} threads, {arguments.layers} layers, medians of {arguments.turns}\n")
    print("| type | tokens of a tree | way | tokens/s | over a plain row |\n|---|---|---|---|---|")
    for dtype in arguments.dtypes:
        model = model_135m(arguments.layers, getattr(torch, dtype))
        for tokens in arguments.tokens:
            groups = [grid_tree(number, tokens) for number in range(-(-1000 // tokens))]
            computed = collate(groups, "tree", 0).num_tokens
            ways = {name: run_trees(model, way, groups) for name, way in ways_of(arguments.costs).items()}
            seconds = measure({"plain row": run_plain(model, computed), **ways}, arguments.turns, clock)
            for name, value in seconds.items():
                share = seconds["plain row"] / value
                print(f"| {dtype} | {tokens} | {name} | {computed / value:.0f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
