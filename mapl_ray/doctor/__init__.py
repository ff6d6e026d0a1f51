"""`mapl doctor`: what this machine can do, what a config asks of it, and what is missing, each with a cure."""

from mapl_ray.doctor.finding import Finding
from mapl_ray.doctor.findings import diagnose, render

__all__ = ["Finding", "diagnose", "render"]
