"""Reports of a run and of its data: one self-contained HTML file each, and a data card."""

from mapl_ray.report.data_card import build_data_card
from mapl_ray.report.data_page import build_data_report
from mapl_ray.report.page import build_report

__all__ = ["build_data_card", "build_data_report", "build_report"]
