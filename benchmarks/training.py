"""Training steps side by side: trees, padded sequences, a pairwise trainer's sequences, and TRL's trainers.

    python benchmarks/training.py --data ../shared/data/alpaca_eval_pairs.jsonl.gz

A step is collation, forward and backward pass, clipping and AdamW, on one micro-batch of real groups and a model of
random weights; tokenization is done before, in every way, and DeepSpeed is left out. Ways take turns step by step, and
the table has medians and their ratios, for a machine's speed drifts. Memory is the growth of the process in one step
that is not timed (on CUDA: of what torch has allocated). On a machine with other work on it, `--clock cpu` counts CPU
seconds of this process; with OMP_NUM_THREADS=1, threads that wait for each other do not count either.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import DataConfig, LevelWeights, SynthesisConfig, TinyModelConfig
from mapl_ray.models import (
    PolicyLogps,
    RewardScores,
    build_tiny,
    load_policy,
    load_reward_model,
    load_tokenizer,
    prepare_for_trees,
)
from mapl_ray.models.tree_attention import FLEX_BLOCK, row_budget
from mapl_ray.objective import dpo_rewards, relation_loss
from mapl_ray.preferences import read_pairs
from mapl_ray.records import Level, PreferencePair, Relation, RelationGroup
from mapl_ray.shards import write_json
from mapl_ray.synthesis import synthesize

SIZES = {
    "tiny": TinyModelConfig(vocab_size=2000, hidden_size=128, num_layers=4, num_heads=4),
    "160m": TinyModelConfig(vocab_size=32_000, hidden_size=768, num_layers=12, num_heads=12),
    "0.5b": TinyModelConfig(vocab_size=32_000, hidden_size=1024, num_layers=24, num_heads=16),
}
BETA = 0.1
LEARNING_RATE = 0.0  # AdamW does all its work and the weights stay: every way must have the same loss in every step
Step = Callable[[], float]


@dataclass
class Measured:
    """One way's steps."""

    name: str
    tokens: int  # computed in a step, without padding
    padded_tokens: int  # with it
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    memory_mib: float = 0.0

    def groups_per_second(self, groups: int, clock: str) -> float:
        return groups / statistics.median(self.cpu_seconds if clock == "cpu" else self.seconds)


def load_groups(path: str, number: int) -> list[RelationGroup]:
    """Grid groups of the first pairs that give one, some to spare for those that are too long."""
    groups: list[RelationGroup] = []
    for pair in read_pairs(DataConfig(path=path)):
        if isinstance(pair, PreferencePair):
            group = synthesize(pair, SynthesisConfig(), 0)
            groups += [group] if isinstance(group, RelationGroup) else []
        if len(groups) >= number:
            break
    return groups


def pairwise(group: EncodedGroup) -> EncodedGroup:
    """Every relation with sequences of its own, computed again for each: pref 2, intra 2 each, inter 4 each."""
    sequences, relations, logps = [], [], []
    for relation in group.relations:
        indices = (*relation.preferred, *relation.dispreferred)
        first, middle, last = len(sequences), len(sequences) + len(relation.preferred), len(sequences) + len(indices)
        sequences += [group.sequences[i] for i in indices]
        logps += [(group.ref_logps or ())[i] for i in indices]
        relations.append(Relation(relation.level, tuple(range(first, middle)), tuple(range(middle, last))))
    return replace(group, sequences=tuple(sequences), relations=tuple(relations), ref_logps=tuple(logps))


def pref_only(group: EncodedGroup) -> EncodedGroup:
    """The original pair alone."""
    relation = next(r for r in group.relations if r.level is Level.PREF)
    indices = (*relation.preferred, *relation.dispreferred)
    return replace(
        group,
        sequences=tuple(group.sequences[i] for i in indices),
        relations=(Relation(Level.PREF, (0,), (1,)),),
        ref_logps=tuple((group.ref_logps or ())[i] for i in indices),
    )


class Learner:
    """A model with its optimizer, and one step in any way."""

    def __init__(self, method: str, directory: Path, device: str, dtype: Any) -> None:
        load = load_reward_model if method == "rm" else load_policy
        self.method, self.device, self.dtype, self.pad = method, device, dtype, 0
        self.model = load(directory, dtype, device=device).to(device)
        self.model.config.use_cache = False
        self.plain = self.model.config._attn_implementation
        prepare_for_trees(self.model)
        self.trees = self.model.config._attn_implementation
        self.module = (RewardScores if method == "rm" else PolicyLogps)(self.model).train()
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=LEARNING_RATE)

    def collate(self, groups: Sequence[EncodedGroup], batching: Any) -> Any:
        multiple = FLEX_BLOCK if self.device == "cuda" else 1
        return collate(groups, batching, self.pad, multiple, row_budget(self.model))

    def step(self, groups: Sequence[EncodedGroup], batching: Any) -> float:
        """The loss; padded batches run with the attention that the model was loaded with."""
        self.model.set_attn_implementation(self.trees if batching == "tree" else self.plain)
        batch = self.collate(groups, batching).to(self.device)
        rewards_S = self.module(batch)
        if self.method == "dpo":
            rewards_S = dpo_rewards(rewards_S, batch.ref_logps_S, BETA)
        loss = relation_loss(rewards_S, batch.relations, LevelWeights()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.item())

    def measured(self, name: str, groups: Sequence[EncodedGroup], batching: Any) -> tuple[Measured, Step]:
        self.model.set_attn_implementation(self.trees if batching == "tree" else self.plain)
        batch = self.collate(groups, batching)
        return Measured(name, batch.num_tokens, batch.input_ids.numel()), lambda: self.step(groups, batching)


class Peak:
    """Growth of memory while the block runs, MiB."""

    def __init__(self, device: str) -> None:
        self.cuda, self.mib = device == "cuda", 0.0

    def __enter__(self) -> Peak:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # else the last step's memory is still there to be used again
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.process, self.done = psutil.Process(), threading.Event()
            self.before = self.peak = self.process.memory_info().rss
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.01):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self.done.set()
            self.thread.join()
        self.mib = (self.peak - self.before) / 2**20


@contextlib.contextmanager
def timed(into: Measured, device: str) -> Iterator[None]:
    """Seconds of one step, as the wall and as the CPUs count them."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    into.seconds.append(time.perf_counter() - wall)
    into.cpu_seconds.append(time.process_time() - cpu)


@contextlib.contextmanager
def remembered(into: Measured, device: str) -> Iterator[None]:
    """Memory of one step."""
    with Peak(device) as peak:
        yield
    into.memory_mib = peak.mib


def compare_batchings(learner: Learner, groups: list[EncodedGroup], repeats: int) -> list[Measured]:
    """Tree, six cells once, and every relation's sequences again, in turn; the first step of each is not counted."""
    pairs = [pairwise(group) for group in groups]
    ways = [
        learner.measured("tree", groups, "tree"),
        learner.measured("padded, six cells once", groups, "padded"),
        learner.measured("padded, pairwise", pairs, "padded"),
    ]
    losses = [step() for _, step in ways]
    if learner.dtype == "float32" and max(losses) - min(losses) > 1e-4 * max(losses):
        raise SystemExit(f"the ways have different losses: {losses}")
    for measured, step in ways:
        with remembered(measured, learner.device):
            step()
    for _ in range(repeats):
        for measured, step in ways:
            with timed(measured, learner.device):
                step()
    return [measured for measured, _ in ways]


def trl_rows(groups: list[RelationGroup], method: str, relations: bool) -> list[dict[str, Any]]:
    """Pairs for TRL: the original one, and with `relations` the two of intra.

    Its reward trainer takes conversations, so intra pairs are what they are. Its DPO wants one prompt for both sides,
    so it gets the same four sequences paired by prompt instead: as much work, another loss. A relation of four
    sequences (inter) can't be told to either.
    """
    rows = []
    for group in groups:
        texts = [[{"role": m.role, "content": m.content} for m in prompt] for prompt in group.prompts]
        answers = [[{"role": "assistant", "content": response}] for response in group.responses]
        wanted = [r for r in group.relations if r.level is Level.PREF or (relations and r.level is Level.INTRA)]
        pairs = [(r.preferred[0], r.dispreferred[0]) for r in wanted]
        if method == "dpo" and relations:
            cells = {(s.prompt, s.response): i for i, s in enumerate(group.sequences)}
            pairs = [(cells[0, 0], cells[0, 1]), (cells[1, 0], cells[1, 1]), (cells[2, 1], cells[2, 0])]
        for preferred, dispreferred in pairs:
            a, b = group.sequences[preferred], group.sequences[dispreferred]
            if method == "dpo":
                rows.append({"prompt": texts[a.prompt], "chosen": answers[a.response], "rejected": answers[b.response]})
            else:
                sides = {"chosen": a, "rejected": b}
                rows.append({side: texts[s.prompt] + answers[s.response] for side, s in sides.items()})
    return rows


def against_trl(
    learner: Learner,
    ours: list[EncodedGroup],
    rows: list[dict[str, Any]],
    directory: Path,
    dtype: Any,
    repeats: int,
    names: tuple[str, str],
) -> list[Measured]:
    """A step of TRL's trainer, a step of ours, and so on; TRL's from the end of one to the end of the next."""
    import datasets
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    datasets.disable_progress_bars()
    device = learner.device
    mine, step = learner.measured(names[0], ours, "tree")
    theirs = Measured(names[1], 0, 0)

    class Turns(TrainerCallback):  # type: ignore[misc]
        """The first step warms up, the second tells the memory, the others the time; ours come in between."""

        stack = contextlib.ExitStack()

        def on_step_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
            self.stack.close()
            measure = remembered if state.global_step == 1 else timed
            if state.global_step == 1:
                step()
            with measure(mine, device):
                step()
            if state.global_step < state.max_steps:
                self.stack.enter_context(measure(theirs, device))

    options = {
        "per_device_train_batch_size": len(rows), "max_steps": repeats + 2, "use_cpu": device == "cpu", "bf16": False,
        "report_to": [], "save_strategy": "no", "logging_steps": 10**6, "disable_tqdm": True, "max_length": None,
        "gradient_checkpointing": False, "optim": "adamw_torch", "max_grad_norm": 1.0, "learning_rate": LEARNING_RATE,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    turns = Turns()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        rest = {
            "train_dataset": datasets.Dataset.from_list(rows),
            "processing_class": load_tokenizer(directory),
            "callbacks": [turns],
        }
        if learner.method == "rm":
            model = load_reward_model(directory, dtype)
            trainer = RewardTrainer(model, RewardConfig(folder, **options), **rest)
        else:
            config = DPOConfig(folder, beta=BETA, precompute_ref_log_probs=True, **options)
            trainer = DPOTrainer(load_policy(directory, dtype), None, config, **rest)
        model = trainer.model
        model.set_attn_implementation("sdpa")
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
        theirs.padded_tokens = batch["input_ids"].numel()
        theirs.tokens = int(batch["attention_mask"].sum())
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [mine, theirs]


def table(measured: list[Measured], groups: int, against: int, clock: str) -> str:
    """Markdown; ratios to the way with index `against`."""
    base = measured[against]
    lines = [
        f"| way | tokens | with padding | groups/s | over {base.name} | tokens saved | with padding | memory, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in measured:
        rate = way.groups_per_second(groups, clock)
        ratios = (
            rate / base.groups_per_second(groups, clock),
            base.tokens / way.tokens,
            base.padded_tokens / way.padded_tokens,
        )
        columns = (way.name, way.tokens, way.padded_tokens, f"{rate:.2f}", *(f"{ratio:.2f}" for ratio in ratios))
        lines.append(f"| {' | '.join(map(str, columns))} | {way.memory_mib:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the tables, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model-size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--groups", type=int, default=4, help="of one step")
    parser.add_argument("--max-sequence-tokens", type=int, default=512, help="longer groups are left out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=["rm", "dpo"], default=["rm", "dpo"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--no-trl", action="store_true")
    parser.add_argument("--output", type=Path, help="a .json file for the numbers")
    args = parser.parse_args()
    found: dict[str, Any] = {"date": str(date.today()), "machine": platform.platform(), "options": vars(args).copy()}
    found["options"]["output"] = str(args.output)
    number = args.groups
    with tempfile.TemporaryDirectory() as folder:
        records = load_groups(args.data, 20 * number + 200)
        texts = [text for group in records for text in group.responses]
        directory = build_tiny(Path(folder) / "model", texts, SIZES[args.model_size], seed=0)
        tokenizer = load_tokenizer(directory)
        fitting = [(r, encode_group(r, tokenizer, args.max_sequence_tokens)) for r in records]
        chosen = [(r, e) for r, e in fitting if isinstance(e, EncodedGroup)][:number]
        records = [r for r, _ in chosen]
        groups = [replace(e, ref_logps=(-100.0,) * len(e.sequences)) for _, e in chosen]
        lengths = [len(g.token_ids(i)) for g in groups for i in range(2)]
        print(f"{args.model_size}, {args.dtype}, {args.device}, {torch.get_num_threads()} threads, {args.clock} clock;")
        print(f"{number} groups a step, responses to x of {min(lengths)} to {max(lengths)} tokens with it;")
        print(f"medians of {args.repeats}\n")
        for method in args.methods:
            learner = Learner(method, directory, args.device, args.dtype)
            learner.pad = tokenizer.pad_token_id
            results = {"batchings": (compare_batchings(learner, groups, args.repeats), 2)}
            if not args.no_trl:
                for relations in (False, True):
                    ours = groups if relations else [pref_only(group) for group in groups]
                    rows = trl_rows(records, method, relations)
                    names = ("tree, all relations", "TRL, pref and intra") if relations else ("tree, pref", "TRL, pref")
                    pair = against_trl(learner, ours, rows, directory, args.dtype, args.repeats, names)
                    results[names[1]] = (pair, 1)
            for name, (measured, against) in results.items():
                found[f"{method}/{name}"] = [asdict(way) for way in measured]
                print(f"{method}:\n\n{table(measured, len(groups), against, args.clock)}\n", flush=True)
    if args.output:
        write_json(args.output, found)


if __name__ == "__main__":
    main()
