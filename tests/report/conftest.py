"""A whole run directory with made-up numbers in the real formats."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mapl_ray.config import EvaluationConfig, EvaluationSet
from mapl_ray.data.records import (
    GROUP_SCHEMA,
    InstructionRecord,
    Level,
    Message,
    Rejection,
    Relation,
    RelationGroup,
    Sequence,
)
from mapl_ray.data.shards import commit, write_json, write_part
from mapl_ray.evaluation import collect_provenance, evaluate_models
from mapl_ray.evaluation.columns import columns_of_groups, flat_rewards
from mapl_ray.evaluation.follow_results import follow_results
from mapl_ray.evaluation.following import FollowRow, Verdict
from mapl_ray.evaluation.invariance import ScoredVariant
from mapl_ray.evaluation.own_results import Answer, OwnResults, own_results
from mapl_ray.evaluation.public_sets import read_set
from mapl_ray.evaluation.set_results import SetResults, preference_results
from mapl_ray.tuning import Cost, Trial, values_of, write_trials

FAMILIES = {
    "min_words": "length",
    "keyword": "content",
    "bullets": "format",
    "starts_with": "position",
    "upper": "case",
}
INJECTION = "<script>console.error('injected')</script><img src=x onerror=console.error(1)>"


def _group(index: int, rng: random.Random) -> RelationGroup:
    names = rng.sample(sorted(FAMILIES), rng.randint(1, 3))
    sides = [[InstructionRecord(n, f"{word} & <b>{n}</b> here.") for n in names] for word in ("Use", "Avoid")]
    question = f"Question {index % 90}: why is the sky blue? {INJECTION if index < 6 else ''}"
    prompts = [question, *(question + " " + " ".join(i.text for i in side) for side in sides)]
    yes, no = (True,) * len(names), (False,) * len(names)
    chosen, rejected = ("word " * rng.randint(5, 40) + INJECTION for _ in range(2))
    flags = ((), (), yes, no, no, yes)
    return RelationGroup(
        pair_id=f"pair-{index:04d}",
        prompts=tuple((Message("user", text),) for text in prompts),
        instructions=((), tuple(sides[0]), tuple(sides[1])),
        responses=(chosen, rejected),
        sequences=tuple(Sequence(n // 2, n % 2, flags[n]) for n in range(6)),
        relations=(
            Relation(Level.PREF, (0,), (1,)),
            Relation(Level.INTRA, (2,), (4,)),
            Relation(Level.INTRA, (5,), (3,)),
            Relation(Level.INTER_WIDENING, (2, 1), (3, 0)),
            Relation(Level.INTER_NARROWING, (0, 5), (1, 4)),
        ),
        source="made-up",
    )


def _rewards(groups: list[RelationGroup], skill: float, rng: random.Random) -> list[tuple[float, ...]]:
    means = (0.5, -0.2, 0.5 + skill, -0.2 - skill, 0.5 - skill, -0.2 + skill)
    return [tuple(mean + rng.gauss(0.0, 0.8) for mean in means) for _ in groups]


def _write_metrics(directory: Path, skill: float, rng: random.Random) -> None:
    rows = []
    for step in range(1, 201):
        row = {"step": step, "loss": 2.0 - 0.004 * step + rng.gauss(0, 0.05), "learning_rate": 1e-4, "phase": "train"}
        if step % 20 == 0:
            for level in ("pref", "intra", "inter"):
                gained = 0.2 if level == "pref" else skill
                row[f"eval/rewards/accuracies/{level}"] = 0.5 + gained * step / 200
            row["eval/loss"] = 2.0 - 0.003 * step
        rows.append(json.dumps(row))
    (directory / "metrics.jsonl").write_text("\n".join(rows) + '\n{"step": 201, "lo')  # killed in mid-line


def _sets(folder: Path, models: list[str], rng: random.Random) -> dict[str, SetResults]:
    """One of every shape of table."""
    row = {"prompt": INJECTION, "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": "chat"}
    bad = row | {"chosen": INJECTION}
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [row] * 30 + [bad]))
    found = read_set("styles", EvaluationSet(path=str(folder / "rows.jsonl")))
    scores = {model: [[(rng.gauss(0.5, 1.0), 0.0) for _ in range(3)] for _ in found.rows] for model in models}
    pairs = [("rm", "rm-baseline")]
    asked = [FollowRow(str(n), "p", ("a:x", "b:y"), ({}, {}), "ifeval") for n in range(20)]
    verdicts = [Verdict((rng.random() < 0.5, True), (True, True)) for _ in asked]
    following = follow_results(asked, verdicts, 1, 50, 0)
    counts = {"rows": 20, "used": 20, "rejected": 0, "too long": 0}
    return {
        "styles": preference_results(found, found.rows, scores, pairs, 50, 0),
        "ifeval": SetResults(
            format="ifeval",
            counts=counts,
            rejections=[],
            preference={},
            following={"dpo": following},
            comparisons=[],
        ),
    }


def _own(groups: list[RelationGroup]) -> OwnResults:
    """Two prompts, answered before and after; one model has no answers."""
    records = (
        InstructionRecord("comma_use", "Do not use commas.", {"use": False}),
        InstructionRecord("word_count", "Use at least 4 words.", {"direction": "at least", "n": 4}),
    )
    asked = [replace(group, instructions=((), records, group.instructions[2])) for group in groups[:2]]
    answers = {
        "before DPO": [Answer(f"Yes, no. {INJECTION}", False)] * 2,
        "dpo": [Answer("one two three four", False), Answer(INJECTION, True)],
    }
    return own_results(
        asked,
        answers,
        [],
        before="before DPO",
        max_new_tokens=9,
        left_out={"dpo-baseline": INJECTION},
        notes=["A note of the models"],
        samples=50,
        seed=0,
    )


def _write_run(run_dir: Path, num_groups: int = 120) -> Path:
    rng = random.Random(0)
    groups = [_group(index, rng) for index in range(num_groups)]
    skills = {"rm": 0.5, "rm-baseline": 0.0, "dpo": 0.3, "dpo-baseline": 0.05}
    rewards = {model: _rewards(groups, skill, rng) for model, skill in skills.items()}
    provenance = collect_provenance(seed=0, data={"groups/eval": "0" * 64}, chat_templates={"rm": "{{ messages }}"})
    settings = EvaluationConfig(bootstrap_samples=200)
    shaken = {model: [tuple(r + rng.gauss(0.0, 0.3) for r in row) for row in rows] for model, rows in rewards.items()}
    columns = columns_of_groups(groups, FAMILIES)
    flat = {model: flat_rewards(columns, of_model, model) for model, of_model in shaken.items()}
    results = evaluate_models(
        groups,
        rewards,
        FAMILIES,
        provenance,
        settings,
        unseen_families=["position"],
        unseen_phrasings=True,
        variants={"order": ScoredVariant(columns, np.arange(num_groups), flat)},
        sets=_sets(run_dir, [*skills], rng),
        own_prompts=_own(groups),
    )
    write_json(run_dir / "evaluation.json", results)
    rejections = [
        Rejection("made-up", n, f"r{n}", "synthesize", f"no function serves '{INJECTION}' after {n} draws")
        for n in range(8)
    ]
    data = run_dir / "groups" / "eval"
    commit(data, "synthesize", "f", [write_part(data, 0, [g.to_row() for g in groups], rejections, GROUP_SCHEMA, "f")])
    for model, skill in skills.items():
        (run_dir / model).mkdir()
        _write_metrics(run_dir / model, skill / 2, rng)
        write_json(run_dir / model / "result.json", {"wall_seconds": 93.2, "tokens_per_second": 2100.5, "steps": 200})
    names = ["train.weights.lambda_intra", "train.learning_rate", "train.schedule", "train.warmup_ratio"]
    write_trials(run_dir / "tune", [_trial(number, rng, names) for number in range(12)], "f", names)
    return run_dir


def _trial(number: int, rng: random.Random, names: list[str]) -> Trial:
    """The last one has failed, the one before has taken over a checkpoint."""
    values = [rng.uniform(0.1, 2.0), 10 ** rng.uniform(-6, -3), rng.choice(["cosine", INJECTION]), rng.random() / 5]
    params = dict(zip(names, values, strict=True))
    if number == 11:
        return Trial(number, params, "failed", error=INJECTION)
    accuracies = {f"eval/rewards/accuracies/{level}": rng.uniform(0.4, 0.8) for level in ("pref", "intra", "inter")}
    reports = ({"step": 10.0, **accuracies, **values_of(accuracies, {"pref": 1.0, "intra": 0.5, "inter": 0.5})},)
    moves = ({"step": 5, "from": 2, "params": params, "objective": 0.4},) if number == 10 else ()
    return Trial(number, params, "finished", reports, Cost(12.5, 25.0, 0.0, 160), moves=moves)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_run(tmp_path_factory.mktemp("runs") / "made-up <b>run")
