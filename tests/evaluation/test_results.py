"""The assembled results, their table and provenance."""

import json

import pytest

from mapl_ray.config import EvaluationConfig
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation import collect_provenance, evaluate_models, results_table, text_digest

RIGHT, WRONG = (1.0, 0.0, 3.0, 0.0, 0.0, 3.0), (0.0, 1.0, 0.0, 3.0, 3.0, 0.0)


@pytest.fixture
def results(make_group):
    groups = [make_group(f"p{n}", f"prompt {n}") for n in range(10)]
    rewards = {"rm": [RIGHT] * 10, "rm-baseline": [WRONG] * 5 + [RIGHT] * 5, "other": [RIGHT] * 10}
    provenance = collect_provenance(seed=3, data={"groups/eval": "abc"}, chat_templates={"rm": "{{ x }}"})
    return evaluate_models(groups, rewards, {"min_words": "length"}, provenance, EvaluationConfig(bootstrap_samples=50))


def test_results_are_plain_json(results):
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results["counts"] == {"groups": 10, "prompts": 10, "relations": 50}
    # The baseline is right on 5 of 10, the model on all.
    assert results["comparisons"][0]["levels"]["pref"]["accuracy"]["value"] == 0.5
    assert len(results["examples"]) == 4
    assert results["examples"][0]["rewards"]["rm"] == list(RIGHT)


def test_table_is_aligned_and_puts_the_baseline_below_its_model(results):
    lines = results_table(results).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["rm", "rm-baseline", "difference"]
    assert lines[2].split()[1:4] == ["100.0", "[100.0,", "100.0]"]
    assert "+50.0 [" in lines[4]
    assert lines[6].startswith("other")
    columns = [lines[0].index(level) for level in ("pref", "intra", "inter")]
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[2:5] for column in columns)


def test_provenance(results):
    provenance = results["provenance"]
    assert provenance["chat_templates"] == {"rm": text_digest("{{ x }}")}
    assert provenance["data"] == {"groups/eval": "abc"}
    assert provenance["versions"]["numpy"].count(".") == 2
    assert provenance["machine"]["cpus"] >= 1
    assert provenance["git_hash"] is None or len(provenance["git_hash"]) == 40


def test_nothing_to_evaluate_is_the_users_mistake():
    with pytest.raises(UserError, match=r"no held-out groups.*eval_fraction"):
        evaluate_models([], {}, {}, None, EvaluationConfig())


def test_comparison_with_an_unknown_model_is_refused(make_group):
    with pytest.raises(RunError, match="no rewards for these models: gone"):
        evaluate_models([make_group()], {"a": [RIGHT]}, {}, None, EvaluationConfig(), comparisons=[("a", "gone")])
