"""One cluster whose nodes come and go: work by parts and training go on with what is there, and lose nothing."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from safetensors.torch import load_file

from mapl_ray.config import RunConfig, parse_config
from mapl_ray.data.shards import iter_rows, read_manifest
from mapl_ray.distributed.synthesis_stage import run_synthesis
from mapl_ray.distributed.train import run_training
from mapl_ray.training.checkpoint import committed
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(1200)]
STEPS, EVERY = 80, 4
SYSTEM = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster(without_ray: None) -> Iterator[Cluster]:
    """A head without CPUs, as in the shipped files, and two nodes of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.2")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": SYSTEM})
        for _ in range(2):
            made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


def node_with_workers(cluster: Cluster, title: str) -> Any:
    """A node of the cluster on which a process of that title runs."""
    import psutil

    for node in cluster.worker_nodes:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        if any(title in " ".join(child.cmdline()) for child in raylet.children()):
            return node
    raise AssertionError(f"no {title} on any node")


def disturbed(run: Callable[[], Any], disturb: Callable[[], None]) -> Any:
    """What `run` returns, in another thread, while `disturb` does its work; raises what either raises."""
    with ThreadPoolExecutor(1) as other:
        running = other.submit(run)
        disturb()  # here, for Ray starts nodes in the main thread alone
        return running.result(timeout=PATIENCE)


SLOW = """
import time
from pathlib import Path
import ray
from mapl_ray.instructions import instruction_function

FOLDER = Path({folder!r})


@instruction_function(
    family="topic",
    check=lambda text, args: ("e" in text.text) == args["use"],
    phrasings=lambda args: [("Use" if args["use"] else "Avoid") + " the letter e."],
)
def letter_e(case, rng):
    if (FOLDER / "slow").exists():
        (FOLDER / ray.get_runtime_context().get_node_id()).touch()
        time.sleep(0.2)
    sides = {{("e" in text.text) == flag for text, flag in case.flags}}
    return {{"use": sides.pop()}} if len(sides) == 1 else None
"""


def test_a_node_added_gets_work_and_a_node_lost_loses_none(cluster: Cluster, shared_data: Path, tmp_path: Path) -> None:
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        (tmp_path / "pairs.jsonl").write_text("".join(line for line, _ in zip(lines, range(300), strict=False)))
    seen = tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "slow.py").write_text(SLOW.format(folder=str(seen)))

    def config(name: str) -> RunConfig:
        synthesis = {"rows_per_shard": 5, "modules": [str(tmp_path / "slow.py")]}
        data = {"path": str(tmp_path / "pairs.jsonl"), "eval_fraction": 0.2}
        values = {"name": name, "output_dir": str(tmp_path), "data": data, "synthesis": synthesis}
        return parse_config(values, "test")

    def disturb() -> None:
        until(lambda: len(list(seen.iterdir())) == 3, "work on both nodes")
        cluster.remove_node(node_with_workers(cluster, "SynthesizeShard"), allow_graceful=False)
        new = cluster.add_node(num_cpus=1)
        until((seen / new.node_id).exists, "work on the new node")
        (seen / "slow").unlink()

    (seen / "slow").touch()
    disturbed(lambda: run_synthesis(config("disturbed")), disturb)
    run_synthesis(config("calm"))
    for split in ("train", "eval"):
        a, b = (tmp_path / name / "groups" / split for name in ("disturbed", "calm"))
        assert read_manifest(a).content_hash == read_manifest(b).content_hash
        ids = [row["pair_id"] for row in iter_rows(a)]
        assert len(ids) == len(set(ids)) == read_manifest(a).rows


@pytest.fixture
def training(run_to_train: Callable[..., RunConfig]) -> RunConfig:
    return run_to_train(max_steps=STEPS, num_workers=2, min_workers=1, checkpoint_every_steps=EVERY)


@pytest.fixture
def undisturbed(training: RunConfig, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """A fixed run of the same steps, on one rank that accumulates; it runs while the cluster does."""
    train = training.training("rm").model_copy(update={"gradient_accumulation_steps": 2, "min_workers": None})
    spec = {
        "config": train.model_dump(mode="json"), "method": "rm", "model": training.model.name_or_path,
        "train": str(training.run_dir / "groups" / "train"), "eval": None, "output": str(tmp_path / "fixed"),
    }  # fmt: skip
    (tmp_path / "spec.json").write_text(json.dumps([spec]))
    script = Path(__file__).parents[1] / "training" / "run_rank.py"
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "spec.json")], env=environment)

    def output() -> Path:
        assert process.wait(timeout=PATIENCE) == 0
        return tmp_path / "fixed"

    yield output
    process.kill()
    process.wait()


def rows_of(output: Path) -> list[dict[str, float]]:
    metrics = output / "metrics.jsonl"
    return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []


def test_training_shrinks_and_grows_with_the_nodes(
    cluster: Cluster, training: RunConfig, undisturbed: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers; a node killed; another added; one announced to be taken away: 2, 1, 2, 1 workers in one run."""
    output = training.run_dir / "rm"
    seen: dict[str, int] = {}

    def steps() -> int:
        return len(rows_of(output))

    def attempt(number: int) -> bool:
        return bool(list((training.run_dir / "ray").glob(f"rm-*-{number}")))

    def disturb() -> None:
        until(lambda: steps() > EVERY + 1, "steps on two workers")
        seen["kill"] = steps()
        cluster.remove_node(node_with_workers(cluster, "RayTrainWorker"), allow_graceful=False)
        until(lambda: attempt(1), "a second attempt")
        cluster.add_node(num_cpus=1)
        until(lambda: attempt(2), "a third attempt")
        before = committed(output / "checkpoints")[-1]
        until(lambda: committed(output / "checkpoints")[-1] != before, "a checkpoint of the third")
        drain(node_with_workers(cluster, "RayTrainWorker"))
        while not attempt(3):
            seen["drain"] = max(seen.get("drain", 0), steps())
            time.sleep(0.01)

    config, model = training.training("rm"), training.model.name_or_path
    result = disturbed(
        lambda: run_training(training, "rm", train_config=config, model_path=model, output=output), disturb
    )
    told = [line.split() for line in capsys.readouterr().out.splitlines() if "worker(s), from step" in line]
    sizes, starts = [int(words[0]) for words in told], [int(words[-1]) for words in told]
    assert sizes == [1, 2, 1]
    assert starts == sorted(starts)
    assert seen["kill"] - EVERY <= starts[0]  # no more than the steps since the last checkpoint
    assert starts[1] % EVERY == 0  # grown at a checkpoint that was due
    assert starts[2] == seen["drain"]  # not a step lost: a checkpoint was made first
    assert (result.steps, result.num_workers, result.resumed_step) == (STEPS, 1, starts[2])
    rows, whole = rows_of(output), rows_of(undisturbed())
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in whole], abs=1e-4)
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (output, undisturbed()))
    assert all(torch.allclose(a[name], b[name], rtol=0.0, atol=1e-4) for name in a)


def drain(node: Any, seconds: int = 20) -> None:
    """What `ray drain-node` does, at once: Ray is told that the node will be taken away, as a provider would say."""
    deadline = int((time.time() + seconds) * 1000)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = ray._private.worker.global_worker.gcs_client.drain_node(node.node_id, reason, "spot", deadline)
    assert accepted, why
