"""`mapl plan`: time, GPU hours, memory and storage of a run, worked out from its config and measured unit rates."""

from mapl_ray.planning.plan import GPUS, PAIRS, RunPlan, make_plan
from mapl_ray.planning.rates import load_rates
from mapl_ray.planning.table import render, to_json

__all__ = ["GPUS", "PAIRS", "RunPlan", "load_rates", "make_plan", "render", "to_json"]
