"""Learning rate schedules against transformers' own, step by step."""

import pytest
import torch
from transformers import get_scheduler

from mapl_ray.training.schedule import Schedule, lr_schedule, lr_share

NAMES: dict[Schedule, str] = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (3, 20), (20, 20), (0, 1)])
@pytest.mark.parametrize("schedule", list(NAMES))
def test_same_rates_as_transformers(schedule: Schedule, warmup: int, total: int) -> None:
    def rates(make: object) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        scheduler = (
            lr_schedule(schedule, optimizer, warmup, total)
            if make is lr_schedule
            else get_scheduler(NAMES[schedule], optimizer, warmup, total)
        )
        seen = []
        for _ in range(total + 2):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return seen

    assert rates(lr_schedule) == rates(get_scheduler)


def test_share_of_the_peak() -> None:
    def share(schedule: Schedule, step: int) -> float:
        return lr_share(step, schedule=schedule, warmup_steps=2, total_steps=10)

    assert [share("constant", step) for step in (0, 1, 2, 9)] == [0.0, 0.5, 1.0, 1.0]
    assert [share("linear", step) for step in (2, 6, 10)] == [1.0, 0.5, 0.0]
    assert share("cosine", 6) == pytest.approx(0.5)
