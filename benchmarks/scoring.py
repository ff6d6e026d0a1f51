"""Scoring throughput: the pipeline against a plain `vllm.LLM` loop, and prefix order against shuffled sequences.

    python benchmarks/scoring.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz --groups 120

Starts are excluded. Both ways process the parts in order and are timed from the end of the second part to the end of
the last one. Each text is scored once, because an engine is faster on texts that it has seen. Both have the same groups
in the same batches, the same engine options, the same cores and the nice value of Ray's workers, and both render,
tokenize and sum; the pipeline also reads and writes Parquet. Without `--model`, the model is a small Llama with random
weights.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.config import DataConfig, RunConfig, ScoringConfig, SynthesisConfig, TinyModelConfig, parse_config
from mapl_ray.data.records import GROUP_SCHEMA, PreferencePair, RelationGroup
from mapl_ray.data.shards import commit, read_groups, read_manifest, write_json, write_part
from mapl_ray.models import build_tiny, load_reward_model, load_tokenizer
from mapl_ray.preferences import read_pairs
from mapl_ray.scoring import EngineOptions
from mapl_ray.synthesis import synthesize

PARTS = 10
RAY_NICE = "15"  # nice value of Ray's workers (`RAY_worker_niceness`), so that the plain process has no advantage
TINY = TinyModelConfig(vocab_size=8000, hidden_size=256, num_layers=6, num_heads=8, max_position_embeddings=4096)


def groups_of(path: str, number: int, characters: int) -> list[RelationGroup]:
    """The first `number` groups whose responses have at most `characters` characters."""
    data = DataConfig(path=path, max_response_chars=characters)
    pairs = (item for item in read_pairs(data) if isinstance(item, PreferencePair))
    made = (synthesize(pair, SynthesisConfig(), 0) for pair in pairs)
    return list(islice((group for group in made if isinstance(group, RelationGroup)), number))


def models_of(folder: Path, groups: list[RelationGroup], model: str | None) -> dict[str, str]:
    """The policy, and a reward model with the policy's weights and a new head."""
    policy = model or str(build_tiny(folder / "policy", (text for g in groups for text in g.responses), TINY, 0))
    reward = load_reward_model(policy, "float32", seed=0)
    reward.save_pretrained(folder / "reward")
    load_tokenizer(policy).save_pretrained(folder / "reward")
    return {"ref_logps": policy, "rewards": str(folder / "reward")}


def parts_of(groups: list[RelationGroup]) -> list[list[RelationGroup]]:
    """Split groups into parts, as the pipeline does on disk."""
    size = -(-len(groups) // PARTS) or 1
    return [groups[start : start + size] for start in range(0, len(groups), size)]


def cache_options(gpus: int, rewards: bool) -> dict[str, Any]:
    """The prefix cache options of the pipeline's engines."""
    from mapl_ray.scoring.engine import cache_options as of_engine

    return of_engine(EngineOptions.of(ScoringConfig(gpus_per_engine=gpus), "", None, "float32", 0), rewards)


def run_config(folder: Path, models: dict[str, str], column: str, args: argparse.Namespace) -> RunConfig:
    """A config with one column and one engine on all cores."""
    scoring = {
        "ref_logps": column == "ref_logps",
        "reward_model": models["rewards"] if column == "rewards" else None,
        "max_model_len": args.max_model_len,
        "batch_groups": args.batch_groups,
        "cpus_per_engine": args.cores,
        "gpus_per_engine": args.gpus,
        "kv_cache_gib": args.kv_cache_gib,
    }
    values = {"name": column, "output_dir": str(folder), "scoring": scoring, "cluster": {"num_cpus": args.cores}}
    return parse_config({**values, "model": {"name_or_path": models["ref_logps"]}}, "benchmark")


def pipeline(config: RunConfig, groups: list[RelationGroup]) -> tuple[float, float]:
    """Groups per second on Ray Data, and seconds of the whole stage including its start."""
    from mapl_ray.distributed.runtime import ray_session
    from mapl_ray.distributed.score import run_scoring

    for split, of_split in (("train", groups), ("eval", [])):
        folder = config.data_dir / "groups" / split
        cut = [[group.to_row() for group in part] for part in parts_of(of_split)] or [[]]
        parts = [write_part(folder, n, of_part, (), GROUP_SCHEMA, str(n)) for n, of_part in enumerate(cut)]
        commit(folder, "synthesize", "benchmark", parts)
    with ray_session(config.cluster):
        started = time.monotonic()
        manifests = run_scoring(config)
        seconds = time.monotonic() - started
    assert manifests["train"].rows == len(groups), manifests["train"]
    scores = config.data_dir / "scores" / config.name / "train"
    ends = sorted((scores / f"part-{part.index:05d}.json").stat().st_mtime for part in read_manifest(scores).parts)
    counts = [part.rows for part in read_manifest(scores).parts]
    return sum(counts[2:]) / (ends[-1] - ends[1]), seconds


def bare(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure a plain vLLM loop in this process, and rewards in two orders."""
    from vllm import LLM, PoolingParams, SamplingParams

    groups = read_groups(Path(spec["groups"]))
    tokenizer, rewards = load_tokenizer(spec["model"]), spec["column"] == "rewards"
    started = time.monotonic()
    llm = LLM(
        model=spec["model"],
        runner="pooling" if rewards else "generate",
        dtype="float32",
        max_model_len=spec["max_model_len"],
        enforce_eager=not spec["gpus"],
        disable_log_stats=True,
        **cache_options(spec["gpus"], rewards),
    )

    def score(cells: list[tuple[tuple[int, ...], int]]) -> list[float]:
        llm.reset_prefix_cache()
        prompts: Any = [{"prompt_token_ids": list(ids)} for ids, _ in cells]
        if rewards:
            outputs = llm.classify(prompts, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
            cached.append(sum(out.num_cached_tokens or 0 for out in outputs))
            return [float(out.outputs.probs[0]) for out in outputs]
        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        found: Any = llm.generate(prompts, sampling, use_tqdm=False)
        return [
            sum(step[token].logprob for step, token in zip(out.prompt_logprobs[start:], ids[start:], strict=True))
            for out, (ids, start) in zip(found, cells, strict=True)
        ]

    def cells_of(batch: list[RelationGroup]) -> list[tuple[tuple[int, ...], int]]:
        encoded = [encode_group(group, tokenizer, spec["max_model_len"]) for group in batch]
        whole = [group for group in encoded if isinstance(group, EncodedGroup)]
        return [c for g in whole for c in sorted((g.token_ids(i), g.prompt_length(i)) for i in range(len(g.sequences)))]

    def loop(parts: list[list[RelationGroup]]) -> None:
        for part in parts:
            for start in range(0, len(part), spec["batch_groups"]):
                score(cells_of(part[start : start + spec["batch_groups"]]))

    cached: list[int] = []
    parts = parts_of(groups)
    score(cells_of(groups[:1]))
    results: dict[str, Any] = {"start": time.monotonic() - started}
    loop(parts[:2])
    results["loop"] = sum(map(len, parts[2:])) / timed(partial(loop, parts[2:]))
    cells = cells_of(groups)
    results["tokens"] = sum(len(ids) for ids, _ in cells)
    if rewards:
        shuffled = random.Random(0).sample(cells, len(cells))
        results |= {"prefix order": [], "shuffled": [], "cached": {}}
        for _ in range(spec["rounds"]):
            for name, order in (("prefix order", cells), ("shuffled", shuffled)):
                results[name].append(timed(partial(score, order)))
                results["cached"][name] = cached[-1] / results["tokens"]
    return results


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def in_process(spec: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Run `bare` in a process with the environment of the pipeline's engine."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.cores), "VLLM_LOGGING_LEVEL": "ERROR"}
    environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
    if not args.gpus:
        environment |= {"VLLM_CPU_KVCACHE_SPACE": str(args.kv_cache_gib), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "spec.json", Path(folder) / "out.json"
        path.write_text(json.dumps(spec))
        command = ["nice", "-n", RAY_NICE, sys.executable, __file__, "--bare", str(path), str(out)]
        subprocess.run(command, env=environment, check=True)
        results: dict[str, Any] = json.loads(out.read_text())
    return results


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure all numbers of the table."""
    groups = groups_of(args.data, args.groups, args.characters)
    models = models_of(folder, groups, args.model)
    results: dict[str, Any] = {}
    for column in args.columns:
        config = run_config(folder, models, column, args)
        rate, whole = pipeline(config, groups)
        spec = {
            "column": column,
            "model": models[column],
            "groups": str(config.data_dir / "groups" / "train"),
            **{name: getattr(args, name) for name in ("max_model_len", "batch_groups", "gpus", "rounds")},
        }
        results[column] = {"pipeline": rate, "whole": whole, **in_process(spec, args)}
    return results


def table(results: dict[str, Any], number: int) -> str:
    """The results as a Markdown table."""
    lines = ["| column | way | groups/s | tokens/s | of the bare loop |", "|---|---|---|---|---|"]
    for column, found in results.items():
        bare_rate = found["loop"]
        for name, rate in (("bare loop", bare_rate), ("pipeline", found["pipeline"])):
            tokens = rate * found["tokens"] / number
            lines.append(f"| {column} | {name} | {rate:.2f} | {tokens:.0f} | {rate / bare_rate:.2f} |")
    orders = ""
    if "rewards" in results:
        found = results["rewards"]
        rates = {name: number / min(found[name]) for name in ("prefix order", "shuffled")}
        for name, rate in rates.items():
            share = f"{found['cached'][name]:.0%} of the tokens from the cache"
            tokens = rate * found["tokens"] / number
            lines.append(f"| rewards, all at once | {name} ({share}) | {rate:.2f} | {tokens:.0f} | |")
        orders = f"prefix order over shuffled: {rates['prefix order'] / rates['shuffled']:.2f}; "
    starts = ", ".join(
        f"{column} {found['start']:.0f} s, stage {found['whole']:.0f} s" for column, found in results.items()
    )
    return "\n".join([*lines, "", f"{orders}start of an engine: {starts}"])


def main() -> None:
    """Measure, print the table, write the numbers."""
    if sys.argv[1:2] == ["--bare"]:
        write_json(Path(sys.argv[3]), bare(json.loads(Path(sys.argv[2]).read_text())))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", help="a causal model's directory or hub name; default: a small one, random weights")
    parser.add_argument("--groups", type=int, default=120)
    parser.add_argument("--characters", type=int, default=2000, help="maximum length of a response")
    parser.add_argument("--batch-groups", type=int, default=4)
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--kv-cache-gib", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the two orders; the best one counts")
    parser.add_argument("--columns", nargs="+", choices=["ref_logps", "rewards"], default=["ref_logps", "rewards"])
    parser.add_argument("--output", type=Path, help="a .json file for the numbers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = compare(args, Path(folder))
    print(f"{args.groups} groups, {results[args.columns[0]]['tokens'] / args.groups:.0f} tokens each\n")
    print(table(results, args.groups))
    if args.output:
        write_json(args.output, results)


if __name__ == "__main__":
    main()
