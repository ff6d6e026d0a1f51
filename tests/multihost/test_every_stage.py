"""Prepare, synthesize, score and evaluate over three hosts: the bytes of one node, and what each host did.

The one node prepares in its driver and has one worker for the other stages. Sums are the same to the last bit because
every actor computes a part by itself, on one thread (Ray sets `OMP_NUM_THREADS` to an actor's whole CPUs).
"""

import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.data.shards import file_sha256, read_manifest
from mapl_ray.models import load_policy, load_reward_model, load_tokenizer
from mapl_ray.preferences.sources import DEMO
from tests.multihost.cluster import PYTHON, RayCluster
from tests.multihost.conftest import NODES
from tests.multihost.host import Host

pytestmark = [pytest.mark.ray, pytest.mark.multihost, pytest.mark.multihost_whole, pytest.mark.timeout(1800)]
FILES = 24
TURNS = 16  # pairs of each prompt
NO_PAIRS = 9  # rows
WORDS = [
    "name=run",
    "data.eval_fraction=0.2",
    "data.duplicates=near",
    "synthesis.rows_per_shard=40",
    "model.tiny={vocab_size: 1000, hidden_size: 64, num_layers: 2, num_heads: 2}",
    "train.max_sequence_tokens=2048",
    "scoring.ref_logps_by=trainer",
    "scoring.max_model_len=2048",
    "evaluation.invariance=true",
    "evaluation.bootstrap_samples=50",
]
ONE_NODE = ["cluster.num_cpus=2", "cluster.synthesis_workers=1", "evaluation.concurrency=[1,1]"]
# An evaluation's actor a host: there is no room for two. 1.5 CPUs are one thread.
THREE_NODES = [f"scoring.num_engines={NODES}", f"evaluation.concurrency=[{NODES},{NODES}]", "evaluation.cpus=1.5"]
STAGES = {  # below a run's folder; a part or an item is a file
    "prepare, read: files": ["pairs/work-*/read/*.json"],
    "prepare, compare: ranges of keys": ["pairs/work-*/compare/*.json"],
    "prepare, write: ranges of parts": ["pairs/work-*/write/*.json"],
    "synthesize: parts": ["groups/*/part-*.parquet"],
    "score, `ref_logps`: parts": ["scores/ref_logps/*/part-*.parquet"],
    "score, joined with the groups: parts": ["scored/*/part-*.parquet"],
    "evaluate, tokens and variants: parts": ["evaluation/groups/*/part-*.parquet"],
    "evaluate, scores of the models and the reference: parts": [
        "evaluation/scores/*/*/part-*.parquet",
        "evaluation/ref_logps/*/part-*.parquet",
    ],
}


@dataclass(frozen=True, slots=True)
class Runs:
    """The finished run of either."""

    alone: Path
    hosts: Path
    words: list[str]  # of both

    def differing(self, *folders: str) -> list[str]:
        """Names of the files below these folders that are not in both runs with the same bytes."""
        alone, hosts = contents(self.alone, folders), contents(self.hosts, folders)
        assert alone
        return sorted(name for name in alone.keys() | hosts.keys() if alone.get(name) != hosts.get(name))

    def evaluation(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Results without their date and the settings of `ONE_NODE` and `THREE_NODES`."""
        alone, hosts = (json.loads((run / "evaluation.json").read_text()) for run in (self.alone, self.hosts))
        for results in (alone, hosts):
            del results["provenance"]["date"]
            for name in ("concurrency", "cpus"):
                del results["config"][name]
        return alone, hosts


def contents(run: Path, folders: Sequence[str]) -> dict[str, str]:
    """sha256 by name: parts, entries, notes, rejections and manifests; not the files of preparation's passes."""
    files = [path for folder in folders for path in (run / folder).rglob("*") if path.is_file()]
    named = {path.relative_to(run).as_posix(): path for path in files}
    return {name: file_sha256(path) for name, path in named.items() if not name.startswith("pairs/work-")}


def write_source(folder: Path) -> list[str]:
    """Files of pairs, a benchmark and a public set, as words of a config.

    Pairs are the shipped sample's prompts and chosen responses with rejected responses of other prompts. Some are there
    twice or nearly twice, one prompt is the benchmark's, and some rows are no pairs.
    """
    rows = list(map(json.loads, DEMO.read_text(encoding="utf-8").splitlines()))
    made = [
        {**row, "id": f"{row['id']}-{turn}", "rejected": rows[(place + 7 * turn) % len(rows)]["rejected"]}
        for turn in range(TURNS)
        for place, row in enumerate(rows)
    ]
    made += [{**row, "id": f"copy-{row['id']}", "chosen": row["chosen"].upper()} for row in made[::23]]
    made += [{**row, "id": f"near-{row['id']}", "chosen": f"{row['chosen']} Indeed."} for row in made[::29]]
    made += [{"id": f"no-{n}", "prompt": "Why?", "chosen": "", "rejected": "No."} for n in range(NO_PAIRS)]
    random.Random(19).shuffle(made)
    (folder / "pairs").mkdir()
    for file in range(FILES):
        with gzip.open(folder / "pairs" / f"{file:02d}.jsonl.gz", "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in made[file::FILES])
    texts = {"benchmark": [{"prompt": rows[0]["prompt"]}], "set": rows[1:41]}
    for name, some in texts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return [
        f"data.path={folder / 'pairs'}",
        f"data.benchmarks=[{folder / 'benchmark.jsonl'}]",
        f"evaluation.sets.sample={folder / 'set.jsonl'}",
    ]


def write_models(base: Path, folder: Path) -> list[Path]:
    """A reward model and a policy that is not its own reference."""
    from mapl_ray.training.export import export_model  # DeepSpeed takes seconds

    tokenizer, policy = load_tokenizer(base), load_policy(base, "float32")
    with torch.no_grad():
        policy.get_output_embeddings().weight.mul_(1.5)
    export_model(load_reward_model(base, "float32", seed=7), tokenizer, None, folder / "rewards", "A test's model.")
    export_model(policy, tokenizer, None, folder / "policy", "A test's model.")
    return [folder / "rewards", folder / "policy"]


@pytest.fixture(scope="module")
def runs(cluster: RayCluster, stranger: Host, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every stage by one node that has no part in the cluster, then by the cluster."""
    shared = tmp_path_factory.mktemp("every-stage")
    words = [*WORDS, *write_source(shared)]
    found = Runs(shared / "alone" / "run", shared / "hosts" / "run", words)
    env = {"DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"}

    def alone(stage: str) -> None:
        place = f"output_dir={found.alone.parent}"
        stranger.run([PYTHON, "-m", "mapl_ray.cli", stage, *words, place, *ONE_NODE], env, timeout=900)

    for stage in ("synthesize", "score"):
        alone(stage)
    words.append(f"evaluation.models=[{', '.join(map(str, write_models(found.alone / 'model', shared)))}]")
    alone("evaluate")
    for stage in ("synthesize", "score", "evaluate"):
        module = "tests.multihost.small_items" if stage == "synthesize" else "mapl_ray.cli"
        place = f"output_dir={found.hosts.parent}"
        cluster.mapl(stage, *words, place, *THREE_NODES, timeout=900, module=module)
    return found


def made_by(cluster: RayCluster, run: Path) -> dict[str, Counter[str]]:
    """Of every stage, how many files each host's workers made."""
    return {
        stage: Counter(cluster.maker(path) for pattern in patterns for path in run.glob(pattern))
        for stage, patterns in STAGES.items()
    }


def test_pairs_and_groups_have_the_bytes_of_one_node(runs: Runs) -> None:
    assert runs.differing("pairs", "groups") == []
    pairs = [read_manifest(runs.hosts / "pairs" / split) for split in ("train", "eval")]
    groups = [read_manifest(runs.hosts / "groups" / split) for split in ("train", "eval")]
    assert all(manifest.rows for manifest in (*pairs, *groups))
    rejected = [json.loads(line) for file in runs.hosts.glob("pairs/*/rejected-*.jsonl") for line in file.open()]
    assert sum(manifest.rejected for manifest in pairs) == len(rejected)
    assert Counter(one["stage"] for one in rejected)["read"] == NO_PAIRS
    assert len({one["stage"] for one in rejected}) > 2  # duplicates and the benchmark's as well


def test_scores_have_the_bytes_of_one_node(runs: Runs) -> None:
    assert runs.differing("scores", "scored") == []
    assert read_manifest(runs.hosts / "scored" / "train").rows > 0


def test_an_evaluation_has_the_bytes_and_results_of_one_node(runs: Runs) -> None:
    assert runs.differing("evaluation") == []
    alone, hosts = runs.evaluation()
    assert hosts == alone
    assert len(list(runs.hosts.glob("evaluation/scores/*"))) == 2
    assert list(runs.hosts.glob("evaluation/ref_logps/*/manifest.json"))  # of the public set


def test_every_stage_is_done_by_hosts(runs: Runs, cluster: RayCluster, capsys: pytest.CaptureFixture[str]) -> None:
    found, names = made_by(cluster, runs.hosts), [host.name for host in cluster.hosts]
    rows = [[stage, *(str(made[name]) for name in names)] for stage, made in found.items()]
    with capsys.disabled():
        print(*(f"| {' | '.join(row)} |" for row in (["Stage", *names], ["---"] * (NODES + 1), *rows)), sep="\n")
    for stage, made in found.items():
        assert made, stage
        assert set(made) <= set(names), (stage, made)  # nothing of it is the driver's
    # On a busy machine the last host's workers may come when all is done, and a pass may take less than their start.
    prepared = [made for stage, made in found.items() if stage.startswith("prepare")]
    assert len(sum(prepared, Counter())) >= 2, found
    for stage in ("synthesize: parts", "score, `ref_logps`: parts"):
        assert len(found[stage]) >= 2, found
    assert len(found["evaluate, scores of the models and the reference: parts"]) >= 2, found
    for actor in ("SynthesizeShard", "ScoreShard"):
        assert set(cluster.actors(f"MapWorker(Map({actor}))").values()) == set(names)
