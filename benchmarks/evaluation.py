"""Evaluation of held-out groups: two revisions in turn, forward passes, and the driver's memory for a million groups.

    git worktree add ../before REVISION
    python -m benchmarks.evaluation turns --before ../before --data ../shared/data/alpaca_eval_pairs.jsonl.gz
    python -m benchmarks.evaluation passes --data ../shared/data/alpaca_eval_pairs.jsonl.gz
    python -m benchmarks.evaluation memory --data ../shared/data/alpaca_eval_pairs.jsonl.gz --groups 1000000

`turns` runs `mapl evaluate` of a reward model and a policy with each revision in turn, on the same groups and two CPUs.
It prints the seconds of the stage, including process starts, and the largest difference between the results. `passes`
excludes process starts: it compares padded rows in one process with prefix trees in two, eight groups at a time. Other
work on the machine slows both down, so only ratios are meaningful. `memory` writes the tables that an evaluation
leaves, computes the metrics of two models from them in a separate process, and prints the peak memory of that process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.scoring import TINY, groups_of
from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.config import EvaluationConfig, Method, parse_config
from mapl_ray.data.records import GROUP_SCHEMA, SCORE_SCHEMA, RelationGroup
from mapl_ray.data.shards import Part, commit, read_manifest, write_part
from mapl_ray.distributed.evaluation_groups import EvaluationGroups
from mapl_ray.distributed.evaluation_scores import EvaluationScores
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.columns import GroupColumns
from mapl_ray.evaluation.evaluated import EVALUATED_SCHEMA, Encoders, evaluated_part
from mapl_ray.evaluation.results import evaluate_columns
from mapl_ray.instructions import REGISTRY
from mapl_ray.models import build_tiny, load_reward_model, load_tokenizer
from mapl_ray.scoring import TreeOptions
from mapl_ray.scoring.trees import TreeScorer
from mapl_ray.training.export import export_model

_REPEATED = 100  # number of real groups, which are repeated in each part of the large table
_PART = 1000


def turns(given: argparse.Namespace, folder: Path) -> None:
    """Run both revisions in turn, and print seconds and differences."""
    groups = groups_of(given.data, given.groups, given.characters)
    models = _models(folder, groups)
    size = -(-len(groups) // given.parts)
    cut = [groups[start : start + size] for start in range(0, len(groups), size)]
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    results: dict[str, dict[str, Any]] = {}
    trees = {"before": given.before.resolve(), "after": Path(__file__).resolve().parents[1]}
    for turn in range(given.turns):
        for name, tree in trees.items():
            run = folder / f"{name}-{turn}"
            for split, some in (("train", cut[:1]), ("eval", cut)):
                parts = [
                    write_part(run / "run" / "groups" / split, n, [g.to_row() for g in one], [], GROUP_SCHEMA, str(n))
                    for n, one in enumerate(some)
                ]
                commit(run / "run" / "groups" / split, "synthesize", "benchmark", parts)
            words = ["evaluate", f"output_dir={run}", "name=run", "cluster.num_cpus=2", "--models", *map(str, models)]
            words += [f"evaluation.reference={models[1]}", "evaluation.bootstrap_samples=100"]
            words += ["evaluation.concurrency=[2,2]"] if name == "after" else []
            seconds[name].append(_command(words, tree))
            results[name] = json.loads((run / "run" / "evaluation.json").read_text())
            print(f"turn {turn}, {name}: {seconds[name][-1]:.0f} s", flush=True)
    print(f"groups: {len(groups)}, responses of up to {given.characters} characters; model: {TINY}")
    ratios = [a / b for a, b in zip(seconds["before"], seconds["after"], strict=True)]
    print(f"seconds of the stage: before / after = {', '.join(f'{one:.2f}' for one in ratios)}")
    print(f"largest difference of a number in the results: {_apart(results['before'], results['after']):.1e}")


def _models(folder: Path, groups: list[RelationGroup]) -> list[Path]:
    """A reward model and a policy with random weights."""
    policy = build_tiny(folder / "policy", [text for group in groups for text in group.responses], TINY, 0)
    model = load_reward_model(policy, "float32", seed=0)
    with torch.no_grad():
        model.score.weight.mul_(20.0)
    export_model(model, load_tokenizer(policy), None, folder / "rm", "A benchmark's model.")
    return [folder / "rm", policy]


def _command(words: list[str], tree: Path) -> float:
    """Run a command; return the seconds that the stage reports."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    code = "import sys; from mapl_ray.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{tree}: exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    found = re.findall(r"^   evaluate: (\d+) s$", done.stdout, re.MULTILINE)
    return float(found[-1])


def _apart(first: Any, second: Any) -> float:
    """Largest difference of two corresponding numbers in models, comparisons and examples."""

    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, dict):
            for key in sorted(value):
                yield from numbers(value[key])
        elif isinstance(value, list):
            for one in value:
                yield from numbers(one)
        elif isinstance(value, int | float):
            yield float(value)

    parts = [[*numbers(one[key])] for key in ("models", "comparisons", "examples") for one in (first, second)]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return max(abs(a - b) for left, right in pairs for a, b in zip(left, right, strict=True))


_SCORERS: dict[str, TreeScorer] = {}  # scorers of this worker process


def _start(path: Path, method: Method) -> None:
    torch.set_num_threads(1)
    options = TreeOptions.of_evaluation(parse_config({}, "benchmark"), str(path), None, method, 4096)
    _SCORERS["padded"], _SCORERS["tree"] = TreeScorer(replace(options, batching="padded")), TreeScorer(options)


def _score(way: str, groups: list[RelationGroup]) -> tuple[list[float], float]:
    """Scores of groups, and CPU seconds without tokenization."""
    scorer = _SCORERS[way]
    encoded = [encode_group(group, scorer.tokenizer, 4096) for group in groups]
    began = time.process_time()
    found = scorer.score_trees([group for group in encoded if isinstance(group, EncodedGroup)])
    return [score for scores in found for score in scores], time.process_time() - began


def passes(given: argparse.Namespace, folder: Path) -> None:
    """Score eight groups at a time: padded in one process (a task per model), and as trees in two (two actors)."""
    groups = groups_of(given.data, given.groups, given.characters)
    rm, policy = _models(folder, groups)
    methods: dict[Method, Path] = {"rm": rm, "dpo": policy}
    for method, path in methods.items():
        context = get_context("spawn")
        with ProcessPoolExecutor(2, context, _start, (path, method)) as pool:
            list(pool.map(_score, ["tree"] * 4, [groups[:1]] * 4))  # warm-up: start both processes
            wall, cpu, apart = dict.fromkeys(("padded", "tree"), 0.0), dict.fromkeys(("padded", "tree"), 0.0), 0.0
            for start in range(0, len(groups) - 7, 8):
                some = groups[start : start + 8]
                scores = {}
                for way, pieces in (("padded", [some]), ("tree", [some[:4], some[4:]])):
                    began = time.monotonic()
                    done = list(pool.map(_score, [way] * len(pieces), pieces))
                    wall[way] += time.monotonic() - began
                    cpu[way] += sum(seconds for _, seconds in done)
                    scores[way] = np.array([score for found, _ in done for score in found])
                apart = max(apart, float(np.abs(scores["padded"] - scores["tree"]).max()))
        for what, seconds in (("CPU seconds", cpu), ("seconds, one process and two", wall)):
            ratio = seconds["padded"] / seconds["tree"]
            print(f"{method}, {what}: padded {seconds['padded']:.1f}, trees {seconds['tree']:.1f}, ratio {ratio:.2f}")
        print(f"{method}: largest difference of a score {apart:.1e}", flush=True)


def table(given: argparse.Namespace, folder: Path) -> None:
    """Write parts of groups and of two models' scores, like an evaluation; each part has different prompts."""
    groups = groups_of(given.data, _REPEATED, given.characters)
    policy = build_tiny(folder / "policy", [text for group in groups for text in group.responses], TINY, 0)
    encoders = Encoders.of([Checkpoint("a", str(policy), None, "rm")], 4096)
    made = evaluated_part(groups, encoders, (), 0)
    base = pa.concat_tables([made.table] * -(-_PART // made.table.num_rows)).slice(0, _PART)
    rng = np.random.default_rng(0)
    place = EVALUATED_SCHEMA.get_field_index("prompt_key")
    sizes = [len(cells) for cells in base.column("cell_prompts").to_pylist()]
    offsets = np.cumsum([0, *sizes]).astype(np.int32)
    evaluation, ids = folder / "run" / "evaluation", base.column("pair_id").combine_chunks()
    for index in range(given.groups // _PART):
        keys = pa.array(rng.integers(0, 2**63, _PART, dtype=np.uint64))
        part = base.set_column(place, EVALUATED_SCHEMA.field(place), keys)
        write_part(evaluation / "groups" / "held-out", index, part, [], EVALUATED_SCHEMA, str(index), made.notes)
        for model in ("a", "b"):
            values = pa.array(rng.normal(size=offsets[-1]).astype(np.float32))
            scores = pa.Table.from_arrays([ids, pa.ListArray.from_arrays(offsets, values)], schema=SCORE_SCHEMA)
            write_part(evaluation / "scores" / model / "held-out", index, scores, [], SCORE_SCHEMA, str(index))
    for directory in evaluation.glob("**/held-out"):
        parts = [json.loads(path.read_text()) for path in sorted(directory.glob("part-*.json"))]
        commit(directory, "evaluate", "benchmark", [Part(**one) for one in parts])


def measure(folder: Path, samples: int) -> None:
    """Compute the metrics of two models in this process, and print its peak memory."""
    config = parse_config({"name": "run", "output_dir": str(folder)}, "benchmark")
    directory = folder / "run" / "evaluation" / "groups" / "held-out"
    started = time.monotonic()
    groups = EvaluationGroups("held-out", directory, read_manifest(directory), (), {"without ref_logps": 0})
    families = {name: function.family for name, function in REGISTRY.items()}
    columns = GroupColumns.of_tables(groups.tables(), families)
    models = [Checkpoint(name, "", None, "rm") for name in ("a", "b")]
    scores = EvaluationScores(config, Encoders((), 0, {}))
    read = time.monotonic() - started
    results = evaluate_columns(
        columns,
        {model.name: scores.rewards(model, groups) for model in models},
        families,
        None,
        EvaluationConfig(bootstrap_samples=samples),
        groups.row,
        comparisons=[("b", "a")],
        unseen_phrasings=True,
    )
    seconds, most = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{results['counts']}, bootstrap samples: {samples}")
    print(f"read in {read:.0f} s, measured in {seconds - read:.0f} s; peak memory of the process: {most:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["turns", "passes", "memory", "measure"])
    parser.add_argument("--data", help="preference pairs")
    parser.add_argument("--before", type=Path, help="a checkout of the other revision")
    parser.add_argument("--groups", type=int, default=120)
    parser.add_argument("--parts", type=int, default=12)
    parser.add_argument("--characters", type=int, default=1500, help="maximum length of a response")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--samples", type=int, default=20, help="bootstrap samples")
    parser.add_argument("--folder", type=Path, help="for `measure`: the folder that `memory` wrote")
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.folder, given.samples)
        return
    with tempfile.TemporaryDirectory() as name:
        if given.what in ("turns", "passes"):
            (turns if given.what == "turns" else passes)(given, Path(name))
            return
        table(given, Path(name))
        words = ["measure", "--folder", name, "--samples", str(given.samples)]
        subprocess.run([sys.executable, "-m", "benchmarks.evaluation", *words], check=True)


if __name__ == "__main__":
    main()
