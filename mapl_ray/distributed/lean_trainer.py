"""Ray Train's trainer without the processes that these trainings do not need: each takes seconds of a core to start.

A training starts a controller, an actor for collectives, and its ranks. By itself Ray Train adds an actor that splits
Ray Data sets, of which there are none here, and one that frees a placement group whose controller has died alone.
"""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback


class LeanTrainer(TorchTrainer):
    """Takes no `datasets`. For a trainer that is the driver's own: its placement group goes with the job."""

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, self._unneeded)]

    _unneeded: tuple[type, ...] = (DatasetsCallback, PlacementGroupCleanerCallback)


class LeanTrialTrainer(LeanTrainer):
    """For one in a trial of a search: a trial that is stopped ends its controller alone, and the job goes on."""

    _unneeded = (DatasetsCallback,)
