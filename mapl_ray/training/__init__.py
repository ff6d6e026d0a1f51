"""Training of reward models and DPO policies: one readable step and loop, without ray.

`train` itself is in `mapl_ray.training.loop`, which loads DeepSpeed; what is here does not, and serves a driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapl_ray.lazy import lazy_names

if TYPE_CHECKING:
    from mapl_ray.training.engine_config import check_sizes, inlined
    from mapl_ray.training.loggers import check_loggers
    from mapl_ray.training.lora import check_quantize
    from mapl_ray.training.result import TrainResult, finished_result, other_result, run_fingerprint
    from mapl_ray.training.stop import Wish, sigterm_watch

__all__ = [
    "TrainResult",
    "Wish",
    "check_loggers",
    "check_quantize",
    "check_sizes",
    "finished_result",
    "inlined",
    "other_result",
    "run_fingerprint",
    "sigterm_watch",
]

__getattr__ = lazy_names(__name__, __file__)
