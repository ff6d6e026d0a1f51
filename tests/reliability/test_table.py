"""The table of faults: complete, made of what was measured, and as it is in the docs."""

import json
from pathlib import Path

import pytest

from benchmarks.reliability import __main__ as command
from benchmarks.reliability.fault import Outcome
from benchmarks.reliability.page import render
from benchmarks.reliability.registry import FAULTS, PROMISED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
RESULTS = command.results_so_far()


def test_every_fault_that_was_promised_is_done() -> None:
    assert {fault.of_issue for fault in FAULTS.values()} == set(PROMISED)
    assert len({fault.title for fault in FAULTS.values()}) == len(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_every_row_was_measured_and_holds(name: str) -> None:
    row = RESULTS[name]
    assert row["holds"] is True
    assert row["checks"]
    assert all(row["checks"].values())
    assert len(row["seconds"]) >= row["rounds"]
    assert row["lost"]


def test_the_page_is_made_of_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(RESULTS)


def test_the_command_fails_where_a_row_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(RESULTS))
    for holds, code in ((True, 0), (False, 1)):
        rows = {name: {**RESULTS[name], "holds": holds}}
        (tmp_path / "results.json").write_text(json.dumps(rows))
        monkeypatch.setattr(command, "RESULTS", tmp_path / "results.json")
        monkeypatch.setattr("sys.argv", ["reliability", "--page-only", "--output", str(tmp_path / "page.md")])
        assert command.main() == code
        assert ("**no**" in (tmp_path / "page.md").read_text()) is (not holds)


def test_a_sentence_that_failed_once_has_failed() -> None:
    outcome = Outcome()
    assert not outcome.holds  # nothing was looked at
    for holds in (True, False, True):
        outcome.check("the same ids", holds)
    outcome.check("weights equal", True)
    assert outcome.checks == {"the same ids": False, "weights equal": True}
    assert not outcome.holds
