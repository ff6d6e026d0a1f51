"""The journal: what a trial's files tell, and whose trials they are; the tables and configs that a search leaves."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from mapl_ray.config import load_config, parse_config
from mapl_ray.tuning import Cost, Trial, TrialJournal, best_config, values_of, write_config, write_front, write_trials
from mapl_ray.tuning.trial_journal import DONE, FAILURE

WEIGHTS = {"pref": 1.0, "intra": 0.5, "inter": 0.5}
NAMES = ["train.weights.lambda_intra", "train.schedule"]


def trial(number: int, pref: float, multi: float, **values: object) -> Trial:
    accuracies = {"pref": pref, "intra": multi, "inter": multi}
    metrics = {f"eval/rewards/accuracies/{level}": value for level, value in accuracies.items()}
    report = {"step": 10.0, **metrics, **values_of(metrics, WEIGHTS)}
    params = {"train.weights.lambda_intra": 0.1 * (number + 1), "train.schedule": "linear"}
    one = Trial(number, params, "finished", (report,), Cost(10.0, 20.0, 0.0, 160), starts=1)
    return replace(one, **values)  # type: ignore[arg-type]


def write_metrics(folder: Path, rows: list[dict[str, float]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + '\n{"step": 9, "eval/lo')


def test_objectives_by_hand() -> None:
    metrics = {f"eval/rewards/accuracies/{level}": value for level, value in (("pref", 0.8), ("intra", 0.6))}
    found = values_of(metrics, WEIGHTS)  # no inter relations: they count as 0
    assert found["objective"] == pytest.approx((0.8 + 0.5 * 0.6) / 2)
    assert (found["pref_accuracy"], found["multi_accuracy"]) == (pytest.approx(0.8), pytest.approx(0.3))


def test_a_trial_is_told_by_its_own_files(tmp_path: Path) -> None:
    journal = TrialJournal.of_search(tmp_path, "f", WEIGHTS)
    one = journal.begun(Trial(3, {"train.beta": 0.1}))
    folder = journal.folder(one)
    assert folder == tmp_path / "trials" / "0003" / "run-0"
    accuracy = "eval/rewards/accuracies/pref"
    write_metrics(folder, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, accuracy: 0.75}])
    found = journal.refreshed(one)
    assert (found.status, found.steps, found.objective) == ("running", 2, pytest.approx(0.375))
    assert "loss" not in found.last
    # A restart from an earlier checkpoint measures step 2 again: one row per step.
    write_metrics(folder, [{"step": 2, accuracy: 0.5}, {"step": 4, accuracy: 1.0}])
    found = journal.refreshed(found)
    assert [(row["step"], row[accuracy]) for row in found.reports] == [(2, 0.5), (4, 1.0)]
    (folder / DONE).write_text('{"steps": 4, "total_steps": 6}')
    assert journal.refreshed(found).status == "running"
    assert journal.reached(found) == 4
    (folder / DONE).write_text('{"steps": 6, "total_steps": 6}')
    assert journal.refreshed(found).status == "finished"
    (folder / FAILURE).write_text('{"text": "no"}')
    assert (journal.refreshed(found).status, journal.refreshed(found).error) == ("failed", "no")
    again = journal.begun(journal.refreshed(found))
    assert (again.status, again.starts, again.error) == ("running", 2, None)
    assert not (folder / FAILURE).exists()


def test_a_journal_is_read_back_and_belongs_to_one_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "tune"
    journal = TrialJournal.of_search(output, "f", WEIGHTS)
    for one in (trial(0, 0.5, 0.6), trial(1, 0.6, 0.5, moves=({"step": 5, "from": 0},), run=1)):
        journal.put(one)
    again = TrialJournal.of_search(output, "f", WEIGHTS)
    assert again.in_order() == journal.in_order()
    assert again.reached(again.trials[1]) == 5  # where it took over the other's checkpoint
    assert TrialJournal.of_search(output, "another", WEIGHTS).in_order() == []
    assert "other settings or data" in capsys.readouterr().out
    kept = TrialJournal(tmp_path / "tune.aside-1", WEIGHTS)
    assert kept.in_order() == journal.in_order()
    (output / "trials" / "0000").mkdir(parents=True)
    (output / "trials" / "0000" / "trial.json").write_text('{"number": 0')
    for damaged in (b'{"number": 0', b"[]", b"\xff\xfe", b'{"number": 0}'):
        (output / "trials" / "0000" / "trial.json").write_bytes(damaged)
        assert TrialJournal.of_search(output, "another", WEIGHTS).in_order() == []
        assert "its trial.json is damaged" in capsys.readouterr().out
        (output / "trials" / "0000").mkdir()
    assert len([*(output / "trials").glob("0000.aside-*")]) == 4


def test_tables_hold_every_trial(tmp_path: Path) -> None:
    failed = Trial(3, {"train.weights.lambda_intra": 0.4, "train.schedule": None}, "failed", error="it broke")
    trials = [trial(0, 0.5, 0.9), trial(1, 0.9, 0.5), trial(2, 0.5, 0.5), failed]
    rows = write_trials(tmp_path, trials, "f", NAMES)
    assert [row["trial_id"] for row in rows] == ["0000", "0001", "0002", "0003"]  # 0.7 = 0.7 > 0.5 > failed
    assert [row["on_front"] for row in rows] == [True, True, False, False]
    stored = json.loads((tmp_path / "trials.json").read_text())
    assert stored["trials"] == json.loads(json.dumps(rows))
    table = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert [row["trial_id"] for row in table] == [row["trial_id"] for row in rows]
    assert table[0]["param/train.weights.lambda_intra"] == pytest.approx(0.1)
    assert (table[0]["cost/worker_seconds"], table[0]["cost/groups"], table[0]["steps"]) == (20.0, 160, 10)
    assert table[0]["eval/rewards/accuracies/intra"] == 0.9
    assert (table[3]["objective"], table[3]["error"], table[3]["param/train.schedule"]) == (None, "it broke", None)


def test_the_best_and_the_front_are_configs(tmp_path: Path) -> None:
    config = parse_config({"name": "run", "train": {"learning_rate": 1e-4}, "dpo": {"zero_stage": 3}}, "test")
    rows = write_trials(tmp_path, [trial(0, 0.5, 0.9), trial(1, 0.9, 0.5), trial(2, 0.5, 0.5)], "f", NAMES)
    write_config(tmp_path / "best.yaml", best_config(config, rows[0]["params"]))
    best = load_config(tmp_path / "best.yaml")
    assert (best.name, best.data_run) == ("run-tuned", "run")
    assert best.training("rm").weights.lambda_intra == pytest.approx(0.1)
    assert (best.training("rm").schedule, best.training("rm").learning_rate) == ("linear", 1e-4)
    assert best.training("dpo").weights.lambda_intra == 1.0  # another method than the one searched
    paths = write_front(tmp_path, config, rows)
    assert [path.name for path in paths] == ["0000.yaml", "0001.yaml"]
    assert load_config(paths[1]).name == "run-tuned-0001"
    assert yaml.safe_load(paths[1].read_text())["rm"]["schedule"] == "linear"
