"""What a step costs beside its computation: reductions, waits for the device, looks at storage, copies."""

import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mapl_ray.batches import Batch
from mapl_ray.config import ModelConfig, TrainConfig
from mapl_ray.training import stop
from mapl_ray.training.feed import Feed
from mapl_ray.training.group_table import GroupTable
from mapl_ray.training.loop import train
from mapl_ray.training.plan import StepPlan
from mapl_ray.training.stop import StopRequest, StopWatch

COLLECTIVES = ("all_reduce", "all_gather_object", "broadcast_object_list", "barrier", "broadcast", "all_gather")
# What makes a host wait for a GPU.
READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__")
CONFIG = {
    "learning_rate": 1e-3,
    "max_sequence_tokens": 256,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "epochs": 9,
    "eval_every_steps": 99,
    "checkpoint_every_steps": 99,
    "loggers": [],
}
# Their tensors are on the host: copies of what the one read brought, and batches that are not sent yet.
ON_HOST = {"metrics", "metrics_of", "not_finite"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often this package's training and objective call a collective, or read a tensor: `function: what`."""
    counts: Counter[str] = Counter()

    def counting(of: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(of, name)

        def called(*args: Any, **options: Any) -> Any:
            caller = sys._getframe(1)
            module, function = caller.f_globals["__name__"], caller.f_code.co_name
            ours = module in ("mapl_ray.training.step", "mapl_ray.training.loop", "mapl_ray.training.deepspeed_engine")
            if (ours or module == "mapl_ray.objective.objective") and function not in ON_HOST:
                counts[f"{function}: {name}"] += 1
            return original(*args, **options)

        monkeypatch.setattr(of, name, called)

    for name in COLLECTIVES:
        counting(dist, name)
    for name in READS:
        counting(torch.Tensor, name)
    return counts


@pytest.mark.parametrize("method", ["rm", "dpo"])
def test_a_step_has_one_reduction_and_one_read_beside_the_gradients(
    counted: Counter[str],
    data: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: Any,
) -> None:
    monkeypatch.setattr(stop, "LONGEST_PAUSE", 1e9)
    looks: list[int] = []

    def look() -> StopRequest:
        looks.append(1)
        time.sleep(0.05)
        return StopRequest.NONE

    of = {}
    for steps in (2, 6):
        counted.clear()
        looks.clear()
        train(
            TrainConfig.model_validate({**CONFIG, "max_steps": steps}),
            method,
            model_path=str(tiny_model),
            model_config=ModelConfig(),
            train_dir=data / "train",
            eval_dir=None,
            output_dir=tmp_path / str(steps),
            fingerprint="run",
            stop_requests=look,
            export=False,
        )
        of[steps] = Counter(counted)
    of[6].subtract(of[2])
    in_four_steps = {name: number for name, number in of[6].items() if number}
    assert in_four_steps == {"sum_over_ranks: all_reduce": 4, "_reduced: tolist": 4, "_check_norm: __float__": 4}
    assert len(looks) == 2  # before the first step and in it: the next would be due five seconds later


@pytest.mark.parametrize(("look_takes", "pause"), [(0.0012, 0.12), (0.0055, 0.55), (0.95, 2.0)])
def test_looking_takes_a_hundredth_of_the_time_and_a_signal_is_seen_at_once(
    monkeypatch: pytest.MonkeyPatch, look_takes: float, pause: float
) -> None:
    now, began = [0.0], list[float]()

    def look() -> StopRequest:
        began.append(now[0])
        now[0] += look_takes
        return StopRequest.SAVE

    monkeypatch.setattr(stop.time, "monotonic", lambda: now[0])
    terminated = [False]
    watch = StopWatch(lambda: terminated[0], look)
    due = True  # before the first step
    while len(began) < 6:  # steps of a tenth of a second
        assert watch.asked(due) == (StopRequest.SAVE if due else StopRequest.NONE)
        due = watch.is_due()
        now[0] += 0.1
    first, *others = (b - a - look_takes for a, b in itertools.pairwise(began))
    assert first == pytest.approx(0.1)  # ranks waited for each other in the first look
    assert all(pause < gap < pause + 0.2 for gap in others)
    terminated[0] = True
    assert watch.asked(look=False) == StopRequest.STOP
    assert not StopWatch(lambda: False, None).is_due()


def test_batches_for_a_gpu_are_pinned_in_the_prefetch_thread_and_copied_without_waiting(
    data: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: Counter[str] = Counter()

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned[threading.current_thread().name.split("_")[0]] += 1
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)  # without a GPU there is nothing to pin for
    config = TrainConfig.model_validate({**CONFIG, "max_steps": 2})
    table = GroupTable(data / "train", False, None)
    plan = StepPlan.of(config, table.sizes(config), 1)
    batches: dict[bool, list[Batch]] = {}
    for on_gpu in (True, False):
        made = Feed.of(
            table, tokenizer, config, replica=0, replicas=1, takes_ref_logps=True, row_tokens=None,
            pad_to_multiple_of=1, on_gpu=on_gpu,
        )  # fmt: skip
        batches[on_gpu] = [batch for work in made.steps(plan, 0, 2) for batch in work.batches]
    tensors = sum(isinstance(getattr(batches[True][0], name), torch.Tensor) for name in Batch.__slots__)
    assert pinned == {"prefetch": 4 * (tensors + 3)}  # four micro-batches; relations have three tensors
    assert [batch.pair_ids for batch in batches[True]] == [batch.pair_ids for batch in batches[False]]
    blocking: list[bool] = []
    original = torch.Tensor.to

    def to(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        blocking.append(not options.get("non_blocking", False))
        return original(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    batches[False][0].to("cpu")
    assert blocking == [False] * (tensors + 3)
