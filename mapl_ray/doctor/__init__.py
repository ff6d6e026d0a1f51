"""`mapl doctor`: what this machine can do, what a config asks of it, and what is missing, each with a cure."""

from mapl_ray.doctor.checks import diagnose, findings_text
from mapl_ray.doctor.finding import Finding

__all__ = ["Finding", "diagnose", "findings_text"]
