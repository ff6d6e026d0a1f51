"""Every example runs, offline. In one process, since importing torch and transformers takes most of the time."""

import importlib
import math
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `python examples/NAME.py` finds the modules beside it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)


def test_groups_of_a_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = importlib.import_module("groups").main()
    assert len(dataset) > 100
    printed = capsys.readouterr().out
    assert "prompt 2: " in printed
    assert "inter_widening: (prompt 1, response 0) + (prompt 0, response 1) over " in printed


def test_a_loop_in_plain_torch() -> None:
    losses = importlib.import_module("plain_torch").main(steps=4)
    assert len(losses) == 4
    assert min(losses) < losses[0]


def test_mapl_trainer() -> None:
    metrics = importlib.import_module("mapl_trainer").main(steps=2)
    assert {"eval_loss", "eval_rewards/accuracies/intra", "eval_rewards/margins/inter"} <= set(metrics)
    assert math.isfinite(metrics["eval_loss"])


def test_trl_trainers() -> None:
    losses = importlib.import_module("trl_trainers").main(steps=1)
    assert set(losses) == {"dpo", "reward"}
    assert all(math.isfinite(loss) for loss in losses.values())


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"tiny.py"}
    assert all(f"[{name}]({name})" in listed for name in names)
