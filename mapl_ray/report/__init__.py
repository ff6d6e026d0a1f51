"""One self-contained HTML report a run."""

from mapl_ray.report.page import build_report

__all__ = ["build_report"]
