"""The experiment of `make evidence`, at a size that learns nothing: its arms, runs of each kind, its document."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.evidence.arms import ARMS, BY_NAME, FUNCTIONS, UNSEEN_FUNCTIONS
from benchmarks.evidence.document import write_document
from benchmarks.evidence.experiment import MAIN, Experiment, Prepared, read_result, settings_of
from benchmarks.evidence.pairs import length, opening
from benchmarks.evidence.scale import SCALES
from benchmarks.evidence.summary import summarise
from benchmarks.evidence.training import train_config
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY
from mapl_ray.objective import Objective
from mapl_ray.synthesis import select_functions

RUN = ("baseline", "mapl", "baseline-tokens", "dpo-baseline", "dpo-mapl")


@pytest.fixture(scope="module")
def finished(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Prepared]:
    experiment = Experiment(
        shared_data / "alpaca_eval_pairs.jsonl.gz",
        tmp_path_factory.mktemp("evidence"),
        SCALES["micro"],
        seeds=(0,),
        arms=tuple(BY_NAME[name] for name in RUN),
    )
    return experiment, experiment.run()


def test_arms_are_what_the_project_can_train() -> None:
    assert len(BY_NAME) == len(ARMS)
    for scale in SCALES.values():
        for number, arm in enumerate(ARMS):
            Objective.of(train_config(arm, scale, seed=0), arm.method)
            earlier = {other.name for other in ARMS[:number]}
            assert {arm.baseline, arm.tokens_of or arm.baseline} <= earlier | {arm.name}
    for arm in ARMS:
        assert {function.name for function in select_functions(arm.synthesis)} == set(FUNCTIONS)
        assert arm.synthesis.for_training().seen_phrasings_only
    assert not set(FUNCTIONS) & set(UNSEEN_FUNCTIONS)
    # Arms of one method differ from MAPL in one thing alone, the baselines in both weights.
    mapl = BY_NAME["mapl"]
    for name, field in (("no-intra", "lambda_intra"), ("no-inter", "lambda_inter"), ("independent", "layout")):
        told = {"name": name, "title": BY_NAME[name].title, "question": BY_NAME[name].question}
        assert replace(mapl, **told, **{field: getattr(BY_NAME[name], field)}) == BY_NAME[name]


def test_an_opening_ends_where_a_sentence_or_line_does() -> None:
    text = "Rivers carry water to the sea. They begin in hills:\n\n1. Springs\n2. Lakes that are rather large"
    assert opening(text, 1000) == text
    assert opening(text, 9) == "Rivers carry water to the sea."
    assert opening(text, 14) == "Rivers carry water to the sea. They begin in hills:"  # not after "1."
    assert opening("a " * 40, 25) == ("a " * 25).strip()  # no end anywhere
    assert length(opening(text, 14)) <= 14


@pytest.mark.long
def test_every_arm_has_a_result_with_its_provenance(finished: tuple[Experiment, Prepared]) -> None:
    experiment, prepared = finished
    summary = summarise(experiment, prepared)
    assert list(summary["arms"]) == list(RUN)
    assert {record["data"]["pairs"] for record in summary["provenance"]} == {prepared.pairs.digest}
    arms = summary["arms"]
    # The baseline computes two sequences of six; its twin gets as many tokens as MAPL, to half a step.
    assert arms["baseline"]["tokens"][0] < arms["mapl"]["tokens"][0]
    a_step = arms["baseline-tokens"]["tokens"][0] / arms["baseline-tokens"]["steps"][0]
    assert abs(arms["baseline-tokens"]["tokens"][0] - arms["mapl"]["tokens"][0]) < 2 * a_step
    for name in RUN:
        levels = summary["sets"][MAIN]["models"][name]["levels"]
        for level in ("pref", "intra", "inter"):
            accuracy = levels[level]["accuracy"]
            assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
            assert accuracy["value"] == pytest.approx(arms[name]["per_seed"][0][level])
    held_out = {group.prompts[0] for group in prepared.held_out[MAIN]}
    assert not held_out & {pair.prompt for pair in prepared.pairs.train}
    used = Counter(i.name for group in prepared.held_out[MAIN] for some in group.instructions for i in some)
    assert set(used) <= set(FUNCTIONS) <= set(REGISTRY)


@pytest.mark.long
def test_a_finished_run_is_kept_and_another_is_refused(finished: tuple[Experiment, Prepared]) -> None:
    experiment, prepared = finished
    results = sorted(experiment.output.glob("*/seed-0.json"))
    before = [path.stat().st_mtime_ns for path in results]
    experiment.run()
    assert [path.stat().st_mtime_ns for path in results] == before
    other = replace(experiment.scale, steps=3)
    with pytest.raises(UserError, match="other settings"):
        read_result(results[0], settings_of(BY_NAME["baseline"], other, 0, prepared.pairs))


@pytest.mark.long
def test_the_document_is_made_from_the_results(finished: tuple[Experiment, Prepared], tmp_path: Path) -> None:
    experiment, prepared = finished
    summary = summarise(experiment, prepared)
    write_document(summary, tmp_path / "evidence.md")
    text = (tmp_path / "evidence.md").read_text(encoding="utf-8")
    assert "$" not in text
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert {path.stem for path in (tmp_path / "evidence").glob("*.svg")} == {Path(image).stem for image in images}
    for image in images:
        root = ElementTree.parse(tmp_path / image).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    stored = json.loads((tmp_path / "evidence" / "summary.json").read_text(encoding="utf-8"))
    value = 100 * stored["sets"][MAIN]["models"]["mapl"]["levels"]["pref"]["accuracy"]["value"]
    row = next(line for line in text.splitlines() if line.startswith("| MAPL | ") and "reward" not in line)
    assert row.split(" | ")[1].startswith(f"{value:.1f}")
    # Another figure, another document: nothing is typed by hand.
    stored["arms"]["mapl"]["title"] = "another"
    write_document(stored, tmp_path / "again.md")
    assert "| another | " in (tmp_path / "again.md").read_text(encoding="utf-8")
