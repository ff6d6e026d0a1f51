"""What a search asks and remembers, without a trial: Optuna, ASHA, and how many trials fit."""

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from ray.tune.schedulers import TrialScheduler

from mapl_ray.config import RunConfig, TuneConfig, parse_config
from mapl_ray.data.kept_tokens import KeptTokens
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.data.shards import commit, write_part
from mapl_ray.distributed.preflight import check_inputs
from mapl_ray.distributed.resources import Node, Resources, trials_at_once
from mapl_ray.distributed.search.tune_optuna import OptunaSource
from mapl_ray.distributed.search.tune_search import JournalSearcher, RandomSource, scheduler_of
from mapl_ray.distributed.search.tune_trial import Shared, trial_config
from mapl_ray.distributed.training_job import TrainingJob
from mapl_ray.errors import UserError
from mapl_ray.tuning import Trial, TrialJournal, draw

GroupMaker = Callable[[int], list[RelationGroup]]
SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 1e-1]},
    "train.weight_decay": {"quniform": [0.1, 0.35, 0.1]},
    "train.micro_batch_size": {"randint": [1, 3]},
    "train.schedule": {"choice": ["cosine", "linear", "constant"]},
}


def config(workers: int = 1, gpus: float = 0.0, cpus: float = 1.0, **tune: object) -> RunConfig:
    train = {"num_workers": workers, "cpus_per_worker": cpus, "gpus_per_worker": gpus}
    return parse_config({"train": train, "tune": {"space": SPACE, "num_trials": 20, **tune}}, "test")


@pytest.mark.parametrize(
    ("one", "nodes", "expected"),
    [
        (config(workers=2), [(2, 0)], 1),  # workers alone count: the trial's own process takes no CPU
        (config(workers=2), [(5, 0)], 2),
        (config(workers=4), [(3, 0), (3, 0)], 1),  # a trial may lie on two nodes; two more workers are left over
        (config(workers=2, cpus=2), [(3, 0)] * 3, 1),  # a CPU of each node serves nobody: three workers in all
        (config(workers=8, gpus=1), [(64, 8)] * 4, 4),
        (config(workers=8, gpus=1, cpus=16), [(64, 8)] * 4, 2),  # the CPUs are short, not the GPUs
        (config(workers=2, cpus=0.1), [(1.0, 0)], 5),
        (config(workers=1), [(64, 0)], 20),  # no more than there are
        (config(workers=1, max_concurrent_trials=3), [(64, 0)], 3),
        (config(workers=1, max_concurrent_trials=3), [(2, 0)], 2),  # requested and not available
    ],
)
def test_trials_at_once_by_hand(one: RunConfig, nodes: list[tuple[float, float]], expected: int) -> None:
    assert trials_at_once(one, Resources(tuple(Node(cpus, gpus) for cpus, gpus in nodes))) == expected


def test_a_search_that_can_not_fit_one_trial_is_refused() -> None:
    with pytest.raises(UserError, match=r"tune needs 3 x \(1 CPU \+ 0 GPU\), .* room for 2 .*Lower train.num_workers"):
        trials_at_once(config(workers=3), Resources((Node(2, 0),)))


def with_values(number: int, params: dict[str, object], objective: float) -> Trial:
    values = {"step": 4.0, "objective": objective, "pref_accuracy": objective, "multi_accuracy": 1.0 - objective}
    return Trial(number, params, "finished", (values,))  # type: ignore[arg-type]


def rating(settings: TuneConfig, source: OptunaSource, number: int) -> Trial:
    """A trial that is the better the nearer its rate is to 1e-3."""
    params = source.ask(number)
    rate = params["train.learning_rate"]
    assert isinstance(rate, float)
    return with_values(number, dict(params), 1.0 - abs(rate - 1e-3))


@pytest.mark.parametrize("multi", [False, True])
def test_optuna_suggests_within_the_space_and_learns(multi: bool) -> None:
    settings = config(search="optuna", multi_objective=multi).tune
    source, trials = OptunaSource(settings, []), []
    for number in range(12):
        trials.append(rating(settings, source, number))
        source.record(trials[-1])
    study = source._study
    assert len(study.directions) == (2 if multi else 1)
    assert [one.values for one in study.trials] == [
        [t.last["pref_accuracy"], t.last["multi_accuracy"]] if multi else [t.objective] for t in trials
    ]
    assert {trial.params["train.weight_decay"] for trial in trials} <= {0.1, 0.2, 0.3}
    assert {trial.params["train.micro_batch_size"] for trial in trials} == {1, 2}
    assert all(1e-5 <= float(str(trial.params["train.learning_rate"])) <= 1e-1 for trial in trials)
    if multi:
        assert len(study.best_trials) > 0


def test_optuna_takes_up_what_an_earlier_start_left() -> None:
    settings = config(search="optuna").tune
    first, trials = OptunaSource(settings, []), []
    for number in range(3):
        trials.append(rating(settings, first, number))
    left = Trial(3, first.ask(3))
    failed = Trial(4, first.ask(4), "failed")
    again = OptunaSource(settings, [*trials, left, failed])
    assert [one.values for one in again._study.trials] == [[trial.objective] for trial in trials]
    again.resume(left)
    taken_up = again._study.trials[-1]
    assert taken_up.params == left.params
    assert again.ask(5) not in [trial.params for trial in (*trials, left, failed)]  # not the first values once more
    again.record(with_values(3, left.params, 0.5))
    assert again._study.trials[3].values == [0.5]
    again.record(Trial(5, {}, "failed"))
    assert again._study.trials[4].state is optuna.trial.TrialState.FAIL


def test_a_missing_optuna_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_inputs(config(search="optuna"), ("tune",))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"tune.search=optuna: the package optuna is not installed.*search=random"):
        check_inputs(config(search="optuna"), ("tune",))
    check_inputs(config(), ("tune",))


def test_asha_remembers_trials_of_earlier_starts() -> None:
    class Stub:
        trial_id = "new"

    def decision(ended: list[Trial]) -> str:
        asha = scheduler_of(config(grace_period_steps=4, max_steps=16).tune, ended)
        asha.on_trial_add(None, Stub())
        return str(asha.on_trial_result(None, Stub(), {"step": 4.0, "objective": 0.2}))

    assert decision([]) == TrialScheduler.CONTINUE  # nobody to be worse than
    assert decision([with_values(n, {}, 0.6 + n / 10) for n in range(3)]) == TrialScheduler.STOP


@pytest.fixture
def searcher(tmp_path: Path) -> Callable[[int], JournalSearcher]:
    one = config(num_trials=3)

    def made(new: int) -> JournalSearcher:
        journal = TrialJournal.of_search(tmp_path, "f", one.tune.objective)
        todo = [trial for trial in journal.in_order() if not trial.ended]
        return JournalSearcher(journal, one, todo, RandomSource(one.tune), new)

    return made


def test_trials_are_written_down_before_they_start(searcher: Callable[[int], JournalSearcher], tmp_path: Path) -> None:
    """A driver may die at any point: what it handed out is known to the next one, and handed out first."""
    one = searcher(3)
    given = [one.suggest("a"), one.suggest("b")]
    again = searcher(1)
    assert [again.suggest("c"), again.suggest("d")] == given
    last = again.suggest("e")
    assert isinstance(last, dict)
    assert last["params"] == draw(config().tune.dimensions, 0, 2)
    assert again.suggest("f") == "FINISHED"
    shutil.rmtree(tmp_path / "trials" / "0001")  # as a message about a damaged entry says
    filled = searcher(1)
    assert [filled.suggest("g"), filled.suggest("h"), filled.suggest("i")] == [given[0], last, given[1]]
    starts = {trial.number: trial.starts for trial in TrialJournal(tmp_path, {"pref": 1.0}).in_order()}
    assert starts == {0: 3, 1: 1, 2: 2}


def test_costs_add_up_over_starts(searcher: Callable[[int], JournalSearcher], tmp_path: Path) -> None:
    first = searcher(1)
    first.suggest("a")
    first.on_trial_result("a", {"time_total_s": 5.0})
    first.on_trial_result("a", {"time_total_s": 8.0})
    second = searcher(0)
    second.suggest("b")
    second.on_trial_result("b", {"time_total_s": 3.0})
    second.on_trial_complete("b", {"time_total_s": 4.0})
    (trial,) = TrialJournal(tmp_path, {"pref": 1.0}).in_order()
    assert trial.cost.seconds == pytest.approx(12.0)
    assert trial.status == "stopped early"  # it left no word of its end


def test_a_trial_whose_own_process_dies_says_so(searcher: Callable[[int], JournalSearcher], tmp_path: Path) -> None:
    """`train.max_failures` is of its workers: whoever reads the message must not look there."""
    one = searcher(1)
    one.suggest("a")
    one.on_trial_complete("a", error=True)
    (trial,) = TrialJournal(tmp_path, {"pref": 1.0}).in_order()
    assert trial.status == "failed"
    assert trial.error is not None
    assert trial.error.startswith("the process that waits for its workers failed 2 times")
    assert "train.max_failures does not apply to this process" in trial.error


def test_what_the_workers_of_a_trial_are_given(tmp_path: Path, tiny_model: Path, grid_groups: GroupMaker) -> None:
    for split in ("train", "eval"):
        folder, rows = tmp_path / "run" / "groups" / split, [group.to_row() for group in grid_groups(4)]
        commit(folder, "synthesize", "f", [write_part(folder, 0, rows, [], GROUP_SCHEMA, "f")])
    (tmp_path / "deepspeed.json").write_text('{"zero_optimization": {"reduce_bucket_size": 1000}}')
    train = {"deepspeed_config": str(tmp_path / "deepspeed.json"), "learning_rate": 1e-4, "num_workers": 2}
    values = {"name": "run", "output_dir": str(tmp_path), "model": {"name_or_path": str(tiny_model)}, "train": train}
    one = parse_config({**values, "tune": {"space": SPACE, "max_steps": 8, "eval_every_steps": 4}}, "test")
    whole = TrainingJob.of(one, "rm", one.training("rm"), str(tiny_model), tmp_path / "run" / "tune", "")
    shared = Shared.of(one, dataclasses.replace(whole, tokens=KeptTokens(tmp_path / "tokens", "recipe")))
    assert shared.output == str(tmp_path / "run" / "tune")
    given = {"number": 3, "folder": str(tmp_path / "t"), "stop_after": 4}
    params = draw(one.tune.dimensions, 0, 3)
    job = shared.of_trial(given, trial_config(one, params))
    made = TrainingJob.of(one, "rm", one.training("rm"), str(tiny_model), tmp_path / "t", "3")
    own = {"train", "export", "objective", "tokens", "stop_after", "done", "token"}
    names = [field.name for field in dataclasses.fields(TrainingJob)]
    assert {name for name in names if getattr(job, name) != getattr(made, name)} == own
    section = job.train
    assert section.learning_rate == params["train.learning_rate"]
    assert (section.max_steps, section.eval_every_steps, section.checkpoint_every_steps) == (8, 4, 4)
    assert section.num_workers == 2
    assert section.deepspeed_config == {"zero_optimization": {"reduce_bucket_size": 1000}}  # read once, at the start
