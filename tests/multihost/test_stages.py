"""The other stages over hosts: two engines, ZeRO-3 with a rank a host, a search with a trial a host."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import iter_rows, read_manifest
from mapl_ray.models import PolicyLogps, load_policy, load_tokenizer
from tests.multihost.cluster import RayCluster
from tests.multihost.conftest import CPUS
from tests.training.compare import NOISE, typical_difference, weights

pytestmark = [pytest.mark.ray, pytest.mark.multihost, pytest.mark.multihost_whole, pytest.mark.timeout(900)]
RANK = "RayTrainWorker"  # the class of Ray Train's actors
TRAIN = [
    "train.max_steps=4",
    "train.micro_batch_size=2",
    "train.max_sequence_tokens=2048",
    "train.learning_rate=1e-3",
    "train.eval_every_steps=4",
    "train.checkpoint_every_steps=4",
    "train.zero_stage=3",
]


@pytest.mark.vllm
def test_engines_on_two_hosts_give_the_scores_of_transformers(
    cluster: RayCluster, run: list[str], run_dir: Path, groups: Path
) -> None:
    engines = ["scoring.num_engines=2", f"scoring.cpus_per_engine={CPUS}", "scoring.max_model_len=2048"]
    cluster.mapl("score", *run, *engines, timeout=600)
    assert len(cluster.hosts_of_calls("MapWorker(Map(ScoreShard)).submit", number=2)) == 2
    scored = run_dir / "scored" / "train"
    manifest, before = read_manifest(scored), read_manifest(groups / "train")
    assert (manifest.rows, manifest.rejected) == (before.rows, 0)
    model = run_dir / "model"
    policy, tokenizer = PolicyLogps(load_policy(model, "float32")), load_tokenizer(model)
    for row in list(iter_rows(scored))[::16]:
        group = RelationGroup.from_row(row)
        encoded = encode_group(group, tokenizer, 2048)
        assert isinstance(encoded, EncodedGroup)
        with torch.no_grad():
            expected = policy(collate([encoded], "padded", tokenizer.pad_token_id))
        torch.testing.assert_close(torch.tensor(group.ref_logps), expected, rtol=0, atol=2e-3)


def test_a_rank_a_host_learns_what_ranks_on_one_host_learn(
    cluster: RayCluster, run: list[str], run_dir: Path, groups: Path
) -> None:
    ranks = {"hosts": CPUS, "one": CPUS / 2}  # logical CPUs of a rank: a host has room for one, or for both
    for name, cpus in ranks.items():
        words = [word for word in run if not word.startswith("name=")]
        sizes = ["train.num_workers=2", f"train.cpus_per_worker={cpus}"]
        before = cluster.actors(RANK).keys()
        cluster.mapl("train", "rm", *words, *TRAIN, *sizes, f"name={name}", "data_run=run")
        result = json.loads((run_dir.parent / name / "rm" / "result.json").read_text())
        assert (result["steps"], result["num_workers"]) == (4, 2)
        hosts = [host for actor, host in cluster.actors(RANK).items() if actor not in before]
        assert (len(hosts), len(set(hosts))) == (2, 2 if name == "hosts" else 1)
    of_hosts, of_one = (weights(run_dir.parent / name / "rm") for name in ranks)
    assert typical_difference(of_hosts, of_one) < NOISE
    first, second = (metrics(run_dir.parent / name / "rm") for name in ranks)
    assert [one["loss"] for one in first] == pytest.approx([one["loss"] for one in second], abs=1e-5)


def test_a_search_has_its_trials_on_several_hosts(
    cluster: RayCluster, run: list[str], run_dir: Path, groups: Path
) -> None:
    values = {"num_trials": 2, "max_concurrent_trials": 2, "max_steps": 2, "eval_every_steps": 1}
    words = [f"tune.{name}={value}" for name, value in {**values, "grace_period_steps": 1}.items()]
    before = cluster.actors(RANK).keys()
    # A trial's own driver takes a little of a host: a rank has room beside one, and two ranks have not.
    cluster.mapl("tune", *run, *TRAIN, *words, f"train.cpus_per_worker={CPUS * 0.75}", timeout=600)
    trials = json.loads((run_dir / "tune" / "trials.json").read_text())["trials"]
    assert len(trials) == 2
    assert all(trial["objective"] is not None for trial in trials)
    assert len({trial["params"]["train.weights.lambda_intra"] for trial in trials}) == 2
    assert (run_dir / "tune" / "best.yaml").is_file()
    assert len({host for actor, host in cluster.actors(RANK).items() if actor not in before}) == 2


def metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
