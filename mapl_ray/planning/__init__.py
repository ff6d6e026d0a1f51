"""`mapl plan`: estimates of time, GPU hours, memory and storage of a run, from its config and measured unit rates."""

from mapl_ray.planning.plan_output import plan_text, to_json
from mapl_ray.planning.rates import load_rates
from mapl_ray.planning.run_plan import GPUS, PAIRS, RunPlan, make_plan

__all__ = ["GPUS", "PAIRS", "RunPlan", "load_rates", "make_plan", "plan_text", "to_json"]
