"""`mapl plan`: its arithmetic by hand, against real batches, and as a command."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.batches import EncodedGroup, collate
from mapl_ray.cli import main
from mapl_ray.config import LoraConfig, RunConfig, TrainConfig, load_config
from mapl_ray.errors import UserError
from mapl_ray.model_states import state_bytes
from mapl_ray.models import heads
from mapl_ray.planning import GPUS, PAIRS, load_rates, make_plan
from mapl_ray.planning.groups import ALPACA_EVAL, Cells, _cells
from mapl_ray.planning.memory import PIECE, training_memory
from mapl_ray.planning.plan_output import plan_text
from mapl_ray.planning.run_plan import _storage
from mapl_ray.planning.shape import ModelShape, model_shape
from mapl_ray.planning.stage_times import StageWork, best_bytes, stages
from mapl_ray.planning.traffic import exchanged_bytes, sent_bytes

SHAPE = ModelShape("by hand", 1e9, layers=10, hidden=1000, mlp=3000, attention=1000, key_value=500, vocabulary=10_000)
CARD = 989e12  # H100


def run_config(**values: Any) -> RunConfig:
    return RunConfig.model_validate(values)


def work(pairs: float, gpus: int, **values: Any) -> StageWork:
    return StageWork(run_config(**values), SHAPE, ALPACA_EVAL, load_rates(), pairs, gpus)


def test_cells_by_hand() -> None:
    # x of 10, x+ of 14; responses of 5 and 3 under both: (10, 5), (10, 3), (14, 5), (14, 3).
    cells = Cells.of([10, 14], [(10, 5), (10, 3), (14, 5), (14, 3)])
    assert (cells.tree, cells.padded, cells.responses) == (10 + 4 + 16, 15 + 13 + 19 + 17, 16)
    assert cells.seen_padded == sum(n * (n + 1) / 2 for n in (15, 13, 19, 17))
    # x sees 55; the 4 more characters 11 + 12 + 13 + 14; each response starts behind its prompt.
    ends = [sum(range(p + 1, p + r + 1)) for p, r in ((10, 5), (10, 3), (14, 5), (14, 3))]
    assert cells.seen_tree == 55 + 50 + sum(ends)


def test_cells_are_what_a_batch_holds(grid_groups: Any) -> None:
    """With a token a character a batch has the characters that were counted."""
    group = grid_groups(2)[1]  # its responses begin differently
    encoded = EncodedGroup(
        group.pair_id,
        tuple(tuple(map(ord, prompt[-1].content)) for prompt in group.prompts),
        tuple(tuple(map(ord, response)) for response in group.responses),
        group.sequences,
        group.relations,
    )
    every, pref = _cells(group)
    tree, padded = (collate([encoded], batching, 0) for batching in ("tree", "padded"))
    # Instructions begin alike ("Use at ..."): a tree shares that too, and counting does not look so deep.
    assert tree.num_tokens == pytest.approx(every.tree, rel=0.03)
    assert tree.source_E.numel() == pytest.approx(every.responses, rel=0.03)
    assert int(tree.position_ids.sum()) + tree.num_tokens == pytest.approx(every.seen_tree, rel=0.03)
    assert padded.num_tokens == every.padded
    assert pref.responses == sum(map(len, group.responses))


def test_training_by_hand() -> None:
    train = {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "bf16": True, "zero_stage": 2, "num_workers": 1}
    values = {"train": train, "data": {"eval_fraction": 0.1}, "model": {"dtype": "bfloat16"}}
    of = {stage.name: stage for stage in stages(work(1e6, 8, **values))}
    # 978,700 groups, 880,830 to train on; 2 * 4 * 8 a step: 13763 steps, each of 8 groups on every GPU.
    steps = math.ceil(880_830 / 64)
    counts = (ALPACA_EVAL.all.tree / 4, ALPACA_EVAL.all.responses / 4, ALPACA_EVAL.all.seen_tree / 16)
    flops = 6 * (1e9 - 2 * 1e7) * counts[0] + 12 * 10 * 1000 * counts[2]
    rm = of["train rm"].parts
    assert rm["compute"] == pytest.approx(steps * 8 * flops / (CARD * 0.35))
    assert rm["held-out evaluations"] == pytest.approx((steps // 50 + 1) * 97_870 * flops / 3 / (8 * CARD * 0.25))
    assert rm["checkpoints"] == pytest.approx((steps // 50 + 1) * 14e9 / 2e9)
    # Gradients of 4 bytes four times per step and weights of 2 bytes once, 7 of 8 parts of them, 200 GB/s.
    assert rm["network"] == pytest.approx(steps * (4 * 4e9 + 2e9) * 7 / 8 / 200e9)
    # DPO's output layer runs over the responses; the plain baseline computes two of six sequences.
    more = 6 * 1e7 * counts[1] / flops
    assert of["train dpo"].parts["compute"] / rm["compute"] == pytest.approx(1 + more)
    assert of["train rm-baseline"].parts["compute"] / rm["compute"] == pytest.approx(3420 / 10302, rel=0.02)
    assert of["synthesize"].seconds == pytest.approx(1e6 * 3283 / (64 * 0.71 * 1341 * 3159))
    assert of["synthesize"].gpus == 0


@pytest.mark.parametrize(
    ("stage", "bytes_a_step"),
    [(0, 2 * 4e9), (1, 2 * 4e9 + 2e9), (2, 3 * 4e9 + 2e9), (3, 3 * (4e9 + 2 * 2e9))],
)
def test_traffic_by_hand(stage: int, bytes_a_step: float) -> None:
    train = TrainConfig(bf16=True, gradient_accumulation_steps=3)
    assert sent_bytes(SHAPE, train, "rm", 4, stage) == pytest.approx({4: bytes_a_step * 3 / 4})
    assert sent_bytes(SHAPE, train, "rm", 1, stage) == {}


# A billion weights of two bytes, three micro-batches, adapters of 1.52 million weights (`test_memory_by_hand`).
ADAPTERS = 10 * 8 * (2 * 2000 + 2 * 1500 + 3 * 4000)


@pytest.mark.parametrize(
    ("more", "everywhere", "in_groups"),
    [
        # Gradients of four bytes; weights once; five more gathers of the six.
        ({}, 3 * 4e9 + 2e9, 5 * 2e9),
        # A frozen reference's weights, gathered in three passes, never change: its second copy serves every step.
        ({"reference": "frozen"}, 3 * 4e9 + 2e9, 5 * 2e9 + 3 * 2e9),
        # Nine passes, of the base from its second copy alone; two of the adapters' nine gathers span all workers.
        (
            {"reference": "adapter", "lora": LoraConfig(r=8)},
            3 * 4 * ADAPTERS + 2 * 2 * ADAPTERS,
            9 * 2e9 + 7 * 2 * ADAPTERS,
        ),
    ],
)
def test_traffic_with_a_second_copy_by_hand(more: dict[str, Any], everywhere: float, in_groups: float) -> None:
    train = TrainConfig(bf16=True, gradient_accumulation_steps=3, zero_stage=3, num_workers=16, **more)
    hpz = train.model_copy(update={"zero_hpz_partition_size": 4})
    assert sent_bytes(SHAPE, hpz, "dpo", 16, 3) == pytest.approx({16: everywhere * 15 / 16, 4: in_groups * 3 / 4})
    assert sent_bytes(SHAPE, train, "dpo", 16, 3) == pytest.approx({16: (everywhere + in_groups) * 15 / 16})
    assert sent_bytes(SHAPE, hpz, "dpo", 4, 3) == pytest.approx({4: (everywhere + in_groups) * 3 / 4})  # one group
    assert sent_bytes(SHAPE, hpz, "dpo", 16, 2) == sent_bytes(SHAPE, train, "dpo", 16, 2)


def test_a_second_copy_in_a_plan() -> None:
    """32 workers on four nodes of eight: what goes between nodes, the seconds that saves, and what it takes."""
    train = {"zero_stage": 3, "num_workers": 32, "gpus_per_worker": 1}
    rates = load_rates()
    of = {
        size: make_plan(
            run_config(model={"name_or_path": "org/model-1B"}, train={**train, "zero_hpz_partition_size": size}),
            rates, [10_000], [32],
        )
        for size in (1, 8)
    }  # fmt: skip
    plain, hpz = (next(r for r in of[size].memory if r.zero_stage == 3 and r.method == "rm") for size in (1, 8))
    # 4e9 of gradients and twice 2e9 of weights; with the copy one of the two gathers stays in a node.
    assert plain.sent == plain.sent_between_nodes == pytest.approx(8e9 * 31 / 32)
    assert hpz.sent_between_nodes == pytest.approx(6e9 * 31 / 32)
    assert hpz.sent == pytest.approx(6e9 * 31 / 32 + 2e9 * 7 / 8)
    assert hpz.memory.total - plain.memory.total == pytest.approx(2e9 / 8)
    networks = [next(s for s in of[n].sizes[0].stages if s.name == "train rm").parts["network"] for n in (1, 8)]
    between, within = rates["link_between_nodes"].value, rates["link_in_node"].value
    a_step = (8e9 * 31 / 32 / between, 6e9 * 31 / 32 / between + 2e9 * 7 / 8 / within)
    assert networks[1] / networks[0] == pytest.approx(a_step[1] / a_step[0])
    assert "every 8 workers hold a second copy of the weights in the GPUs" in plan_text(of[8])
    assert "second copy" not in plan_text(of[1])


def test_shared_rows_by_hand() -> None:
    values = {"num_workers": 4, "sequence_parallel_size": 4, "micro_batch_size": 2, "gradient_accumulation_steps": 3}
    train = TrainConfig(**values, bf16=True)
    # 2 * 3 groups of 1,000 tokens, a quarter of each on every rank; queries and outputs are 1,000 wide, keys and values
    # 500, of two bytes; ten layers, forward and backward; three quarters of that go to others.
    assert exchanged_bytes(SHAPE, train, 4, 1000) == pytest.approx(1500 * 3000 * 2 * 10 * 2 * 3 / 4)
    again = train.model_copy(update={"gradient_checkpointing": True})
    assert exchanged_bytes(SHAPE, again, 4, 1000) == pytest.approx(exchanged_bytes(SHAPE, train, 4, 1000) * 3 / 2)
    assert exchanged_bytes(SHAPE, train, 1, 1000) == 0.0
    plans = [
        make_plan(run_config(model={"name_or_path": "org/model-1B"}, train={**values, **more}), load_rates(), gpus=(8,))
        for more in ({}, {"sequence_parallel_size": 1})
    ]
    for shared, alone in zip(*(plan.memory for plan in plans), strict=True):
        assert shared.memory.activations == pytest.approx(alone.memory.activations / 4)
        assert shared.memory.states == alone.memory.states
        assert shared.sent > alone.sent


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_memory_by_hand(stage: int) -> None:
    train = TrainConfig(bf16=True)
    memory = training_memory(SHAPE, train, "dpo", 8, tokens=1000, edges=500, zero_stage=stage)
    assert memory.states == state_bytes(1e9, stage, 8, bf16=True)
    assert memory.logits == 500 * 10_000 * 16
    many = training_memory(SHAPE, train, "dpo", 8, tokens=9000, edges=5000, zero_stage=stage)
    assert many.logits == PIECE * 10_000 * 16
    assert heads.PIECE == PIECE
    # A layer: 2 norms of 1000 * (4 + 2) and two inputs of 1000 * 2; 1.5 * 2 * (2000 + 1000); 2 * 4 * 3000.
    assert memory.activations == 1000 * 10 * (12_000 + 4_000 + 9_000 + 24_000)
    checkpointed = train.model_copy(update={"gradient_checkpointing": True})
    less = training_memory(SHAPE, checkpointed, "dpo", 8, tokens=1000, edges=500, zero_stage=stage)
    assert less.activations == 1000 * (10 * 2000 + 49_000)
    assert training_memory(SHAPE, train, "rm", 8, tokens=1000, edges=500, zero_stage=stage).logits == 0.0
    # Rank 8 on seven matrices: q and o, k and v, three of the MLP; the frozen weights stay, cut by ZeRO-3 alone.
    adapted = train.model_copy(update={"lora": LoraConfig(r=8)})
    trained = 10 * 8 * (2 * 2000 + 2 * 1500 + 3 * 4000)
    small = training_memory(SHAPE, adapted, "rm", 8, tokens=1, edges=1, zero_stage=stage)
    assert small.states == state_bytes(trained, stage, 8, bf16=True) + 2e9 / (8 if stage == 3 else 1)
    for reference, weights in (("scored", 1e9), ("frozen", 2e9)):
        second = TrainConfig(bf16=True, zero_stage=3, num_workers=8, zero_hpz_partition_size=4)
        second = second.model_copy(update={"reference": reference})
        copies = training_memory(SHAPE, second, "dpo", 8, tokens=1, edges=1, zero_stage=stage)
        assert copies.second_copy == (2 * weights / 4 if stage == 3 else 0.0)
        hosted = second.model_copy(update={"offload": "optimizer+parameters"})
        moved = training_memory(SHAPE, hosted, "dpo", 8, tokens=1, edges=1, zero_stage=3)
        # Adam's part and the trained weights, an eighth of each, and the second copy.
        assert (moved.second_copy, moved.host) == (0.0, 14e9 / 8 + 2 * weights / 4)
    bucket = min(1e9, 5e7)
    overlapped = TrainConfig(bf16=True, overlap_comm=True)
    more = training_memory(SHAPE, overlapped, "dpo", 8, tokens=1000, edges=500, zero_stage=stage).buffers
    assert more - memory.buffers == {0: 0.0, 1: 4 * bucket, 2: 2 * bucket, 3: 0.0}[stage]
    offloaded = TrainConfig(bf16=True, offload="optimizer", zero_stage=2)
    if stage == 2:
        four_bit = train.model_copy(update={"lora": LoraConfig(r=8, quantize="4bit")})
        least = training_memory(SHAPE, four_bit, "rm", 8, tokens=1, edges=1, zero_stage=2)
        # 20 million weights in both embeddings; 4 bits, a byte for 64 weights and four for 64 * 256 of the others.
        base = 20e6 * 2 + 980e6 * (0.5 + 1 / 64 + 4 / (64 * 256))
        assert least.states == pytest.approx(state_bytes(trained, stage, 8, bf16=True) + base)
        moved = training_memory(SHAPE, offloaded, "rm", 8, tokens=1, edges=1, zero_stage=2)
        assert (moved.host, moved.states) == (12e9 / 8, 2e9 + 4e9 / 8)


def test_storage_holds_the_best_step_beside_the_checkpoints() -> None:
    """A billion weights: 2 bytes each in bfloat16, 4 else; with Adam's states 14 and 12."""
    of = {"bf16": True, "eval_every_steps": 100, "checkpoint_every_steps": 50}
    for changes, expected in (
        ({}, 2e9),
        ({"zero_stage": 1, "bf16": False}, 4e9),
        ({"zero_stage": 3}, 14e9),  # its shards hold weights and moments together
        ({"zero_stage": 0, "bf16": False}, 12e9),
        ({"eval_every_steps": 75}, 4e9),  # a step may have no checkpoint: then the best before stays as well
        ({"zero_stage": 3, "eval_every_steps": 20}, 28e9),
        ({"best_by": None}, 0.0),
        ({"lora": {"r": 8}}, 2.0 * SHAPE.trained(LoraConfig(r=8))),
    ):
        assert best_bytes(SHAPE, TrainConfig.model_validate({**of, **changes})) == expected
    one = _storage(work(1e6, 8, train={**of, "zero_stage": 3}))
    none = _storage(work(1e6, 8, train={**of, "zero_stage": 3, "best_by": None}))
    # Reward model, policy, and the baseline of each.
    assert (one["best"], none["best"]) == (4 * 14e9, 0.0)
    assert one["checkpoints"] == none["checkpoints"] == 4 * 3 * 14e9
    assert one["models"] == 2 * none["models"]


def test_more_gpus_and_fewer_pairs_take_no_longer() -> None:
    values = {"model": {"name_or_path": "org/model-1B"}, "train": {"gpus_per_worker": 1}, "data": {"path": "org/hub"}}
    plan = make_plan(run_config(**values, dpo={"bf16": False}), load_rates())
    assert "rm trains in bfloat16 (train.bf16): states of 18 bytes per trained parameter" in plan_text(plan)
    assert "dpo trains in float32 (train.bf16): states of 20 bytes per trained parameter" in plan_text(plan)
    assert [(size.pairs, size.gpus) for size in plan.sizes] == [(pairs, gpus) for pairs in PAIRS for gpus in GPUS]
    compute = {
        (s.pairs, s.gpus): sum(stage.parts.get("compute", 0.0) for stage in s.stages if stage.name != "tune")
        for s in plan.sizes
    }
    for pairs in PAIRS:
        assert all(compute[pairs, few] >= compute[pairs, more] for few, more in pairwise(GPUS))
    for gpus in GPUS:
        storage = [sum(size.storage.values()) for size in plan.sizes if size.gpus == gpus]
        assert storage == sorted(storage)
        assert all(compute[few, gpus] <= compute[more, gpus] for few, more in pairwise(PAIRS))
    assert plan.group is ALPACA_EVAL  # the hub is not asked
    few, many = (next(size for size in plan.sizes if size.pairs == pairs) for pairs in (10**4, 10**9))
    # A token id is four bytes, and four characters; a size and two orders are twelve bytes.
    each = plan.group.group_bytes_in_memory + 12 + plan.group.tokenized_characters
    assert few.node_disk == 0.0  # every worker holds its own
    assert few.host_memory == pytest.approx(few.gpus * 9787 * each, rel=0.01)
    assert many.node_disk == pytest.approx(978_700_000 * each, rel=0.01)  # one of each file per node
    assert many.host_memory == 0.0


def test_kept_token_ids_take_storage_where_a_training_keeps_them() -> None:
    values = {"model": {"name_or_path": "org/model-1B"}, "data": {"path": "org/hub"}}
    for train, kept in (({}, True), ({"keep_token_ids": False}, False)):
        plan = make_plan(run_config(**values, train=train), load_rates(), [10**6], [8])
        per_id = load_rates()["token_id"].value
        expected = 0.9787 * 10**6 * plan.group.tokenized_characters / 4 * per_id if kept else 0.0
        assert plan.sizes[0].storage["tokens"] == pytest.approx(expected)


def test_a_models_sizes(tmp_path: Path) -> None:
    values = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "vocab_size": 10, "intermediate_size": 16}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    shape = model_shape(run_config(model={"name_or_path": str(tmp_path)}))
    assert (shape.layers, shape.hidden, shape.mlp, shape.attention, shape.key_value) == (2, 8, 16, 8, 4)
    assert shape.flops("rm", None).weights == 1352 - 160  # counted in tests/doctor/test_memory_fit.py
    guessed = model_shape(run_config(model={"name_or_path": "org/Llama-8B"}))
    # Llama 3's 8B has 32 layers of 4096: what hangs on them is within a fifth.
    assert guessed.layers * guessed.hidden == pytest.approx(32 * 4096, rel=0.2)
    with pytest.raises(UserError, match="its size is unknown"):
        model_shape(run_config(model={"name_or_path": "org/gpt"}))


def test_every_stage_of_a_billion_pairs_with_its_bottleneck() -> None:
    values = {"model": {"name_or_path": "org/model-1B"}, "data": {"path": "org/hub"}}
    plan = make_plan(run_config(**values), load_rates(), [10**6, 10**9], [8, 64])
    head, *lines = plan_text(plan).split("1B pairs by stage")[1].split("\n\n")[0].splitlines()[1:]
    assert head.split() == ["8", "GPUs", "64", "GPUs", "assumed", "rates"]
    sizes = [size for size in plan.sizes if size.pairs == 10**9]
    assert [re.split(r"\s{2,}", line)[0] for line in lines] == [stage.name for stage in sizes[0].stages]
    for line, *stages_of_line in zip(lines, *(size.stages for size in sizes), strict=True):
        _, *cells, assumed = re.split(r"\s{2,}", line)
        for cell, stage, size in zip(cells, stages_of_line, sizes, strict=True):
            time, bound = cell.split(", ", 1)
            assert bound.removesuffix(" x") == stage.bound
            assert bound.endswith(" x") == (stage.seconds == max(each.seconds for each in size.stages))
            number, unit = time.split()
            seconds = {"s": 1, "min": 60, "h": 3600, "d": 86400, "y": 365 * 86400}[unit] * float(number)
            assert seconds == pytest.approx(stage.seconds, rel=0.06, abs=0.6)
        assert assumed == (", ".join(sorted({*stages_of_line[0].assumed, *stages_of_line[1].assumed})) or "none")


def test_stages_name_the_assumed_rates_behind_them(tmp_path: Path) -> None:
    of = {stage.name: stage for stage in stages(work(1e6, 8))}
    assert of["prepare"].assumed == ("cpus_per_gpu",)
    assert of["synthesize"].assumed == ("cpus_per_gpu",)
    assert of["score"].assumed == ("characters_per_token", "scoring_utilisation", "start")
    # A rate that is measured is not among them any more.
    file = tmp_path / "rates.json"
    file.write_text(json.dumps({"scoring_utilisation": {"value": 0.5, "source": "a run, today"}}))
    again = {stage.name: stage for stage in stages(replace(work(1e6, 8), rates=load_rates(file)))}
    assert again["score"].assumed == ("characters_per_token", "start")
    assert again["score"].seconds < of["score"].seconds
    # Nothing is used of which the plan does not list the source.
    assert all({*stage.assumed} <= {*load_rates()} for stage in of.values())


def test_measured_rates_have_a_command() -> None:
    for rate in load_rates().values():
        if rate.kind == "measured":
            assert "python benchmarks/" in rate.source
            assert "..." not in rate.source
    assert "mapl plan --config" in ALPACA_EVAL.source


def test_rates_have_sources_and_can_be_laid_over(tmp_path: Path) -> None:
    assert all(rate.value > 0 and rate.source and rate.unit for rate in load_rates().values())
    gpus = {name for name, rate in load_rates().items() if rate.kind == "assumed"}
    assert {"training_utilisation", "scoring_utilisation"} <= gpus  # until somebody measures them
    file = tmp_path / "rates.json"
    file.write_text(json.dumps({"training_utilisation": {"value": 0.7, "source": "a run, today"}}))
    (slow, fast) = (
        {s.name: s for s in stages(replace(work(1e6, 8), rates=load_rates(path)))}["train rm"].parts["compute"]
        for path in (None, file)
    )
    assert slow / fast == pytest.approx(0.7 / 0.35)
    assert load_rates(file)["training_utilisation"].kind == "measured"
    for wrong in (
        {"speed": {"value": 1, "source": "x"}},
        {"start": {"value": 0, "source": "x"}},
        {"start": {"value": True, "source": "x"}},
        {"start": {"value": 1}},
        {"start": {"value": 1, "source": "x", "kind": "guessed"}},
        {"start": 1},
        [1],
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"rates\.json"):
            load_rates(file)
    with pytest.raises(UserError, match="not in the table"):
        load_rates(gpu="Voodoo 2")


@pytest.mark.parametrize("words", [["--pairs", "9999"], ["--pairs", "2e9"], ["--gpus", "0"], ["--gpus", "1025"],
                                   ["--gpus", "many"], ["--gpu", "Voodoo"], ["--rates", "none.json"]])  # fmt: skip
def test_what_can_not_be_planned(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_the_command(tmp_path: Path) -> None:
    """In a process of its own: no Ray or vLLM is loaded, nothing is written."""
    code = (
        "import sys\nfrom mapl_ray.cli import main\ncode = main(sys.argv[1:])\n"
        "print(*sorted({'ray', 'vllm'} & {*sys.modules}), file=sys.stderr)\nsys.exit(code)"
    )

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, "plan", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stderr.splitlines()[-1]) == (0, ""), done.stderr
        return done.stdout

    values = json.loads(run("--pairs", "1e4,1e9", "--gpus", "8,1024", "--json", "model.name_or_path=org/model-8B"))
    assert [(plan["pairs"], plan["gpus"]) for plan in values["plans"]] == [
        (10**4, 8), (10**4, 1024), (10**9, 8), (10**9, 1024)
    ]  # fmt: skip
    for plan in values["plans"]:
        assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"].values()))
        assert plan["gpu_hours"] == pytest.approx(plan["seconds"] * plan["gpus"] / 3600)
        assert plan["storage_bytes"]["total"] > 0
    assert values["groups"]["source"].startswith("measured: the first")  # the demo's own text
    text = run("--pairs", "1e6", "--gpus", "64", "model.name_or_path=org/model-8B")
    for word in ("1M", "bottleneck", "ZeRO", "assumed", "data sheet", "GPU hours", "benchmarks/README.md"):
        assert word in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "gpus", "card", "gib"),
    [
        ("llama-8b-8gpu", 8, "H100", 80.0),
        ("llama-8b-multinode", 32, "H100", 80.0),
        ("llama-70b-multinode", 32, "H200", 131.0),
    ],
)
def test_recipes_of_clusters_fit_and_choose_the_stage_that_sends_least(
    recipe: str, gpus: int, card: str, gib: float
) -> None:
    config = load_config(Path(__file__).resolve().parents[2] / "jobs" / "configs" / f"{recipe}.yaml")
    plan = make_plan(config, load_rates(gpu=card, gpu_memory_gib=gib), [60_000], [gpus])
    assert plan.sizes[0].fits
    for method in ("rm", "dpo"):
        rows = [row for row in plan.memory if row.method == method and row.fits]
        (chosen,) = (row for row in rows if row.chosen)
        assert chosen.sent == min(row.sent for row in rows)
