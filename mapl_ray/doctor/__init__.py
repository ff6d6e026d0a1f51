"""`mapl doctor`: check what this machine can run, what a config needs and what is missing, each with a fix."""

from mapl_ray.doctor.checks import diagnose, findings_text
from mapl_ray.doctor.finding import Finding

__all__ = ["Finding", "diagnose", "findings_text"]
