"""Spaces as they are written, and what is refused before anything starts."""

from pathlib import Path

import pytest

from mapl_ray.config import RunConfig, load_config, parse_config
from mapl_ray.config.searched import with_params
from mapl_ray.errors import UserError
from mapl_ray.tuning import draw


def refusal(space: object, **tune: object) -> str:
    with pytest.raises(UserError) as caught:
        parse_config({"tune": {"space": space, **tune}}, "run.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("train.lerning_rate", "train.learning_rate"),
        ("train.lambda_intra", "train.weights.lambda_intra"),
        ("learning_rate", "train.learning_rate"),
        ("train.objective.labelsmoothing", "train.objective.label_smoothing"),
    ],
)
def test_an_unknown_name_is_told_with_file_field_and_the_nearest(name: str, nearest: str) -> None:
    expected = f"run.yaml: tune.space.{name}: unknown name; did you mean {nearest}?"
    assert refusal({name: {"uniform": [0.1, 0.2]}}) == expected


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("synthesis.max_instructions", "all trials share pairs, groups, scores and tokens"),
        ("train.num_workers", "all trials need the same resources"),
        ("train.max_steps", "tune.max_steps"),
        ("train.loggers", "it does not change the trained model"),
        ("dpo.zero_stage", "tune.method=rm does not read dpo: use train.zero_stage"),
        ("train.beta", "beta is only for DPO"),
    ],
)
def test_what_can_not_be_searched_says_why(name: str, why: str) -> None:
    message = refusal({name: {"choice": [2, 3]}})
    assert message.startswith(f"run.yaml: tune.space.{name}: ")
    assert why in message


@pytest.mark.parametrize(
    ("name", "dimension", "expected"),
    [
        ("train.learning_rate", {"uniform": [-1e-3, 1e-3]}, "could draw -0.001: Input should be greater than 0"),
        ("train.warmup_ratio", {"uniform": [0, 1.5]}, "could draw 1.5: Input should be less than 1"),
        ("train.schedule", {"choice": ["cosine", "lineer"]}, "could draw 'lineer': Input should be 'cosine'"),
        ("train.micro_batch_size", {"randint": [0, 4]}, "could draw 0: Input should be greater than or equal to 1"),
        ("train.micro_batch_size", {"uniform": [1, 4]}, "Input should be a valid integer"),
        ("train.micro_batch_size", {"quniform": [1, 4, 0.5]}, "could draw 1.5: Input should be a valid integer"),
        ("rm.objective.label_smoothing", {"grid": [0, 0.5]}, "could draw 0.5: Input should be less than 0.5"),
        ("train.learning_rate", {"uniform": [2, 1]}, "low < high"),
        ("train.learning_rate", {"loguniform": [0, 1]}, "expected 0 < low < high"),
        ("train.learning_rate", {"quniform": [0.1, 0.2, 0.3]}, "expected 0 < step <= high - low"),
        ("train.learning_rate", {"uniform": [1, 2], "grid": [1]}, "expected one of"),
        ("train.learning_rate", {"unifrm": [1, 2]}, "expected {uniform: [low, high]}"),
        ("train.learning_rate", {"uniform": [1, 2], "step": 1}, "unknown key 'tune.space.train.learning_rate.step'"),
        ("train.schedule", {"choice": ["cosine", "cosine"]}, "a value occurs twice"),
        ("train.schedule", {"choice": []}, "at least 1"),
    ],
)
def test_values_are_held_against_the_config(name: str, dimension: object, expected: str) -> None:
    message = refusal({name: dimension})
    assert message.startswith("run.yaml: ")
    assert name in message
    assert expected in message


def test_values_that_do_not_go_together_are_found() -> None:
    space = {"train.zero_stage": {"choice": [0, 2]}, "train.offload": {"choice": ["none", "optimizer"]}}
    assert "train.zero_stage=0, train.offload=optimizer: offload=optimizer needs zero_stage >= 1" in refusal(space)


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ({"search": "optuna"}, "search=optuna takes no grid: use choice"),
        ({"scheduler": "pbt"}, "scheduler=pbt takes no grid"),
        ({"num_trials": 1}, "the grid has 2 points"),
        ({"num_trials": 3}, "more would repeat them"),
    ],
)
def test_what_does_not_fit_a_grid(tune: dict[str, object], expected: str) -> None:
    assert expected in refusal({"train.zero_stage": {"grid": [0, 2]}}, **tune)


def test_a_population_changes_what_can_change_in_mid_run() -> None:
    message = refusal({"train.micro_batch_size": {"randint": [1, 3]}}, scheduler="pbt")
    assert "can't change: expected one of train.beta, train.learning_rate" in message
    rate = {"train.learning_rate": {"loguniform": ["1e-6", "1e-4"]}}
    assert "scheduler=pbt needs at least 2 trials" in refusal(rate, scheduler="pbt", num_trials=1)
    assert "a multiple of eval_every_steps=10" in refusal(rate, scheduler="pbt", perturb_every_steps=15)
    assert "set search=random" in refusal(rate, scheduler="pbt", search="optuna")
    assert "needs search=optuna" in refusal(rate, multi_objective=True)
    assert parse_config({"tune": {"space": rate, "scheduler": "pbt"}}, "run.yaml").tune.trials == 4


def test_names_with_dots_sections_and_overrides_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("tune: {space: {train.weights.lambda_intra: {loguniform: [1e-2, 1e1]}}}\n")
    dotted = load_config(path)
    path.write_text("tune: {space: {train: {weights: {lambda_intra: {loguniform: [1e-2, 1e1]}}}}}\n")
    override = "tune.space.train.weights.lambda_intra={loguniform: [1e-2, 1e1]}"
    assert dotted.tune == load_config(path).tune == load_config(None, [override]).tune
    assert dotted.tune.dimensions["train.weights.lambda_intra"].given == (0.01, 10.0)
    assert RunConfig.model_validate(dotted.model_dump(mode="json")) == dotted
    twice = {"train.beta": {"uniform": [1, 2]}, "train": {"beta": {"uniform": [1, 2]}}}
    assert "train.beta is set twice" in refusal(twice)


def test_numbers_of_trials() -> None:
    def tune(space: object, **more: object) -> int:
        return parse_config({"tune": {"space": space, **more}}, "run.yaml").tune.trials

    grid = {"train.zero_stage": {"grid": [0, 2]}, "train.schedule": {"grid": ["cosine", "linear", "constant"]}}
    rate = {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}
    assert (tune(grid), tune(rate), tune({**grid, **rate}), tune({**grid, **rate}, num_trials=13)) == (6, 4, 6, 13)


def test_the_loss_weights_are_searched_by_default() -> None:
    default = parse_config({}, "run.yaml").tune.dimensions
    assert {name: one.given for name, one in default.items()} == {
        "train.weights.lambda_intra": (0.1, 2.0),
        "train.weights.lambda_inter": (0.1, 2.0),
    }


def test_values_of_a_trial_have_the_last_word_for_its_method_alone() -> None:
    section = {"learning_rate": 1e-3, "lora": {"alpha": 4}}
    config = parse_config({"train": {"lora": {"r": 8}}, "rm": section}, "run.yaml")
    rm = with_params(config, {"train.learning_rate": 2e-3, "rm.lora.r": 16}).training("rm")
    assert rm.lora is not None
    assert (rm.learning_rate, rm.lora.r, rm.lora.alpha) == (2e-3, 16, 4.0)
    assert config.rm == section  # as it was
    dpo = with_params(config, {"train.lora.dropout": 0.1}).training("dpo")
    assert dpo.lora is not None
    assert dpo.lora.dropout == 0.0


@pytest.mark.parametrize(
    ("space", "trials"),
    [
        ({"train.beta": {"grid": [0.1]}}, 1),
        ({"train.beta": {"choice": [0.1]}}, 1),
        ({"train.beta": {"choice": [0.1, 0.2]}}, 2),
        ({"train.beta": {"choice": [0.1]}, "train.weight_decay": {"grid": [0.0, 0.1]}}, 2),
        ({"train.micro_batch_size": {"randint": [1, 2]}}, 1),
        ({"train.beta": {"choice": [0.1, 0.2]}, "train.schedule": {"choice": ["cosine", "linear", "constant"]}}, 4),
        ({"train.beta": {"uniform": [0.1, 0.2]}}, 4),
    ],
)
def test_no_trial_is_run_twice(space: dict[str, dict[str, list[object]]], trials: int) -> None:
    tune = parse_config({"tune": {"method": "dpo", "space": space}}, "run.yaml").tune
    assert tune.trials == trials
    drawn = [draw(tune.dimensions, tune.seed, number) for number in range(trials)]
    assert len({tuple(values.items()) for values in drawn}) == trials


def test_more_trials_than_points_are_refused() -> None:
    message = refusal({"train.schedule": {"choice": ["cosine"]}}, num_trials=4)
    assert "num_trials=4: the space has 1 point, and more would repeat them; set it to 1 or less" in message
    assert "the space has only one point" in refusal({"train.learning_rate": {"choice": [1e-3]}}, scheduler="pbt")
