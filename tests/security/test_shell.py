"""Whatever reaches a shell reaches it as words: the entry point that Ray runs is given to a real one here."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.config import RunConfig
from mapl_ray.distributed.jobs import submit

ECHO = "import json, sys; print(json.dumps(sys.argv[1:]))"


def through_a_shell(words: list[str]) -> list[str]:
    """The words that a program gets from the line that Ray hands to a shell."""
    line = shlex.join([sys.executable, "-c", ECHO, *words])
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, timeout=60)
    return list(json.loads(done.stdout))


def test_every_field_of_an_entry_point_stays_a_word(
    canary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sent = []
    for word in canary.shell:
        shared = RunConfig.model_validate(
            {
                "output_dir": f"/mnt/{word}",
                "data": {"path": f"/mnt/{word}/pairs.jsonl", "split": word},
                "model": {"name_or_path": f"/mnt/{word}"},
                "synthesis": {"modules": [f"{word}.py"]},
            }
        )
        relative = shared.model_copy(update={"output_dir": word})
        for config in (shared, relative):
            for python in (None, f"/opt/{word}/python"):
                overrides = [f"data.split={word}", f"{word}=1"]
                sent += submit._entrypoint(config, ["train", word], overrides, local=True, python=python)
    assert any(canary.path.name in word for word in sent)
    assert through_a_shell(sent) == sent
