"""The table of faults: complete, made of what was measured, and as it is in the docs."""

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability import __main__ as command
from benchmarks.reliability.fault import Outcome
from benchmarks.reliability.measured_code import ROOT, code_digest
from benchmarks.reliability.page import render
from benchmarks.reliability.registry import FAULTS, PROMISED
from benchmarks.reliability.runner import measure

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


def behind(results: Mapping[str, Mapping[str, Any]], digest: str) -> list[str]:
    """Rows that were measured on other code, or on code that was not recorded."""
    return [name for name, row in results.items() if row.get("code") != digest]


def test_rows_of_other_code_are_warned_of() -> None:
    """A warning and no failure: the whole table takes an hour."""
    if names := behind(RESULTS, code_digest()):
        warnings.warn(
            f"{len(names)} of {len(RESULTS)} rows of docs/reliability.md were measured on other code than this "
            f"(make reliability): {', '.join(names)}",
            stacklevel=1,
        )


def test_a_row_names_the_code_that_it_ran(tmp_path: Path) -> None:
    now = code_digest()
    name, fault = next(iter(FAULTS.items()))
    row = measure(replace(fault, missing=lambda: "not here"), None, tmp_path, "demo")
    assert row["code"] == now
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", row["commit"])
    assert f"commit {row['commit']}, code {now[:12]}" in render({name: row})
    del row["code"]
    assert "its code was not recorded" in render({name: row})
    # The other way round: one byte of one file of the package, and every row is behind.
    copy = tmp_path / "checkout"
    for folder in ("mapl_ray", "benchmarks/reliability"):
        shutil.copytree(ROOT / folder, copy / folder)
    assert code_digest(copy) == now
    file = copy / "mapl_ray" / "data" / "shards.py"
    file.write_text(file.read_text() + "\n")
    assert code_digest(copy) != now
    assert behind({"a": {"code": now}, "b": {}, "c": {"code": code_digest(copy)}}, now) == ["b", "c"]


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


def test_the_warning_is_given_where_rows_are_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "RESULTS", {"now": {"code": code_digest()}, "old": {"code": "other"}, "older": {}})
    with pytest.warns(UserWarning, match=r"2 of 3 rows .*: old, older$"):
        test_rows_of_other_code_are_warned_of()
