"""Ranks that stay up between launches: imports of torch, transformers and DeepSpeed cost each rank ten seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SECONDS = 400  # a launch may take


class WarmRanks:
    """One `torchrun` of so many ranks, which run specs one after another in the same processes until `stop`."""

    def __init__(self, ranks: int, folder: Path) -> None:
        self._ranks, self._folder, self._launches = ranks, folder, 0
        self._log = folder / "log"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        script = Path(__file__).with_name("run_rank.py")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, str(script), str(folder)], stdout=log, stderr=log, env=environment
            )

    @property
    def alive(self) -> bool:
        """Whether they wait for more."""
        return self._process.poll() is None

    def run(self, specs: list[dict[str, Any]]) -> None:
        """Run the specs; return once every rank is done with them. Fails with the end of the log."""
        launch, self._launches = self._launches, self._launches + 1
        unfinished = self._folder / "unfinished.json"
        unfinished.write_text(json.dumps(specs))
        unfinished.rename(self._folder / f"specs-{launch}.json")
        done = [self._folder / f"done-{launch}-{rank}" for rank in range(self._ranks)]
        deadline = time.monotonic() + SECONDS
        while not all(file.exists() for file in done):
            if not self.alive or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the ranks failed or were too slow:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End them; torchrun takes its ranks with it."""
        self._process.terminate()
        self._process.wait(timeout=60)
