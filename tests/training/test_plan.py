"""Who computes what: plain arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapl_ray.config import TrainConfig
from mapl_ray.training.plan import StepPlan, at_size, replicas


def test_steps_by_hand() -> None:
    # 2 ranks x 3 micro-batches x 2 groups = 12 a step; 25 groups are 3 steps an epoch, 2 epochs are 6
    config = TrainConfig(micro_batch_size=2, gradient_accumulation_steps=3, epochs=2)
    plan = StepPlan.of(config, [1] * 25, world_size=2)
    assert (plan.groups_per_step, plan.steps_per_epoch, plan.total_steps) == (12, 3, 6)
    assert StepPlan.of(config.model_copy(update={"max_steps": 4}), [1] * 25, 2).total_steps == 4


def test_ranks_that_share_rows_have_their_groups_once() -> None:
    # 4 ranks in pairs are 2 replicas: 2 x 3 micro-batches x 2 groups = 12 a step.
    shared = TrainConfig(
        micro_batch_size=2, gradient_accumulation_steps=3, epochs=2, num_workers=4, sequence_parallel_size=2
    )
    plan = StepPlan.of(shared, [1] * 25, world_size=4)
    assert (plan.groups_per_step, plan.steps_per_epoch, plan.total_steps) == (12, 3, 6)
    assert (replicas(shared, 4), plan.micro_batches) == (2, 6)
    assert sorted(i for r in (0, 1) for b in plan.micro_batches_of(0, r, 2) for i in b) == sorted(
        plan.groups_of_step(0)
    )


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 5))
def test_an_epoch_is_every_group_once_on_any_number_of_ranks(
    num_groups: int, world_size: int, accumulation: int, micro: int, seed: int
) -> None:
    config = TrainConfig(micro_batch_size=micro, gradient_accumulation_steps=accumulation, epochs=2, seed=seed)
    sizes = [1 + (7 * index) % 11 for index in range(num_groups)]
    plan = StepPlan.of(config, sizes, world_size)
    seen: list[int] = []
    for step in range(plan.steps_per_epoch):
        ranks = [plan.micro_batches_of(step, rank, world_size) for rank in range(world_size)]
        assert {len(batches) for batches in ranks} == {accumulation}
        assert all(len(batch) <= micro for batches in ranks for batch in batches)
        of_step = sorted(i for batches in ranks for batch in batches for i in batch)
        assert of_step == sorted(plan.groups_of_step(step))
        assert of_step == sorted(StepPlan.of(config, [1] * num_groups, world_size).groups_of_step(step))
        seen += of_step
    assert sorted(seen) == list(range(num_groups))


def test_epochs_have_different_orders() -> None:
    plan = StepPlan.of(TrainConfig(micro_batch_size=20, epochs=2), [1] * 20, 1)
    assert plan.groups_of_step(0) != plan.groups_of_step(1)


def test_a_step_is_cut_alike_for_any_number_of_ranks() -> None:
    sizes = [1 + (7 * index) % 11 for index in range(16)]
    cuts = []
    for world_size in (1, 2, 4):
        config = TrainConfig(micro_batch_size=4, gradient_accumulation_steps=4 // world_size)
        plan = StepPlan.of(config, sizes, world_size)
        cuts.append(sorted(b for rank in range(world_size) for b in plan.micro_batches_of(0, rank, world_size)))
    assert cuts[0] == cuts[1] == cuts[2]
    assert {sum(sizes[i] for i in batch) for batch in cuts[0]} == {24, 25}  # of 97 in all


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 3), st.integers(1, 5), st.booleans())
def test_a_step_of_an_elastic_run_is_the_same_on_any_number_of_workers(
    num_groups: int, most: int, accumulation: int, micro: int, padded: bool
) -> None:
    values = {"num_workers": most, "gradient_accumulation_steps": accumulation, "micro_batch_size": micro, "epochs": 2}
    batching = "padded" if padded else "tree"
    fixed = TrainConfig(**values, batching=batching)
    elastic = fixed.model_copy(update={"min_workers": 1})
    sizes = [1 + (7 * index) % 11 for index in range(num_groups)]
    whole = StepPlan.of(fixed, sizes, most)
    for workers in range(1, most + 1):
        plan, turns = StepPlan.of(elastic, sizes, workers), at_size(elastic, workers).gradient_accumulation_steps
        assert (plan.groups_per_step, plan.total_steps) == (whole.groups_per_step, whole.total_steps)
        assert (turns - 1) * workers < most * accumulation <= turns * workers  # no turn too many
        for step in range(plan.total_steps):
            ranks = [plan.micro_batches_of(step, rank, workers) for rank in range(workers)]
            assert {len(batches) for batches in ranks} == {turns}
            assert max(len(batch) for batches in ranks for batch in batches) <= micro
            assert sorted(i for rank in ranks for batch in rank for i in batch) == sorted(whole.groups_of_step(step))
    assert at_size(fixed, 1) == fixed


def test_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="nothing"):
        StepPlan.of(TrainConfig(), [], 1)
