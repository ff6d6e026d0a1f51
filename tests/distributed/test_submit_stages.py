"""Stages as jobs of a Ray cluster, to their end: with no variable set, and with every variable set by the job."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.job_cluster import QUIET, SWITCHES

ROOT = Path(__file__).resolve().parents[2]
RUN = {
    "output_dir": "runs",
    "data": {"path": "demo", "limit": 30, "eval_fraction": 0.2},
    "model": {"tiny": {"vocab_size": 500, "hidden_size": 64, "num_layers": 1, "num_heads": 2}},
    "train": {
        "learning_rate": 1e-3,
        "max_steps": 2,
        "micro_batch_size": 2,
        "max_sequence_tokens": 2048,
        "num_workers": 1,
        "cpus_per_worker": 0.5,
        "eval_every_steps": 2,
    },
}


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "variables"), [("mapl submit", {}), ("ray job submit", SWITCHES | QUIET)], ids=["unset", "set"]
)
def test_stages_come_to_their_end(cluster: str, tmp_path: Path, how: str, variables: dict[str, str]) -> None:
    """`ray job submit --runtime-env-json` is how KubeRay hands a RayJob's runtimeEnvYAML over.

    What each way of setting variables gives the workers is tested in `test_submit.py`.
    """
    for name in ("mapl_ray", "jobs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "run.yaml").write_text(json.dumps({**RUN, "output_dir": str(tmp_path / "runs")}))
    shell = {name: value for name, value in os.environ.items() if name not in (*SWITCHES, *QUIET)}
    for stage, script in (("synthesize", "synthesize"), ("train", "train_rm")):
        if how == "mapl submit":
            words = [
                sys.executable,
                "-m",
                "mapl_ray.cli",
                "submit",
                stage,
                "--address",
                cluster,
                "--config",
                "run.yaml",
            ]
            words += ["--method", "rm"] if stage == "train" else []
            environment = shell | variables
        else:
            words = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", cluster]
            words += ["--working-dir", str(tmp_path), "--runtime-env-json", json.dumps({"env_vars": variables}), "--"]
            words += [sys.executable, f"jobs/{script}.py", "--config", str(tmp_path / "run.yaml")]
            environment = shell
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads((tmp_path / "runs" / "mapl" / "rm" / "result.json").read_text())["steps"] == 2
