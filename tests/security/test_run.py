"""A whole stage over hostile pairs in an environment full of secrets: what it runs, writes and says."""

import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")


def pairs(canary: Any) -> list[dict[str, str]]:
    """Hostile words as ids, which name rows, and as texts, which are shown."""
    ids = ["../../escaped", "/etc/escaped", "..", "a\0b", "a\nb", "\x1b]0;title\x07", "{{7*7}}", "%s%n", "x" * 300]
    texts = [
        "<script>alert(1)</script>",
        "'\"><img src=x onerror=alert(1)>",
        "\x1b[2J\x1b[31m",
        "!!python/name:os.system",
    ]
    words = [*canary.shell, *ids, *texts]
    long = "The river runs past the stone bridge. Copper lamps shine on the water! Seven gardens wait for the winter? "
    return [
        {
            "id": word,
            "prompt": f"Why {word} <script>alert(1)</script>?",
            "chosen": f"{word} {long * 2}",
            "rejected": f"{long} {word}",
        }
        for word in words
    ]


@pytest.mark.ray
def test_nothing_runs_nothing_escapes_and_no_secret_is_kept(canary: Any, tmp_path: Path) -> None:
    hidden = {name: secrets.token_hex(16) for name in NAMES}
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (work / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs(canary)), encoding="utf-8")
    # Ray's own logs; not tmp_path, for socket paths must be short. This one is as long as it may be.
    length = 35 - len(str(os.getuid())) - len(f"{tempfile.gettempdir()}/") - len("xxxxxxxx")
    session = Path(tempfile.mkdtemp(prefix="mapl".ljust(length, "-")))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = {**kept, **hidden, "HOME": str(home), "RAY_TMPDIR": str(session), "HF_HUB_OFFLINE": "1"}
    words = ["data.path=pairs.jsonl", "name=hostile", "cluster.num_cpus=1", "synthesis.rows_per_shard=100"]
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "mapl_ray.cli", "synthesize", *words],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (tokens := [path for path in session.glob("mapl-*/token-*") if path.stat().st_size == 64]):
            assert process.poll() is None
            time.sleep(0.01)
        assert stat.S_IMODE(tokens[0].stat().st_mode) == 0o600  # a token is asked for, and nobody else can read it
        hidden["token"] = tokens[0].read_text()
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr[-3000:]
        assert not tokens[0].exists()
        assert not (home / ".ray" / "auth_token").exists()  # which would be one for all clusters
        places = {"terminal": (stdout + stderr).encode()}
        for folder in (work, session):
            places |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert any("gcs_server" in place for place in places)  # Ray's logs are among them
        assert [
            (name, place) for name, value in hidden.items() for place, data in places.items() if value.encode() in data
        ] == []
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "work"]
        assert sorted(path.name for path in work.iterdir()) == ["pairs.jsonl", "runs"]
        assert [path.name for path in (work / "runs").iterdir()] == ["hostile"]
        page = (work / "runs" / "hostile" / "data_report.html").read_text(encoding="utf-8")
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "alert(1)" in page  # as text, in whichever examples are shown
    finally:
        shutil.rmtree(session, ignore_errors=True)
