"""Training of reward models and DPO policies: one readable step and loop, without ray."""

from mapl_ray.training.loggers import check_loggers
from mapl_ray.training.loop import train
from mapl_ray.training.result import TrainResult, finished_result, run_fingerprint

__all__ = ["TrainResult", "check_loggers", "finished_result", "run_fingerprint", "train"]
