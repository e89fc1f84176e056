"""What runs leave for people: tables, pictures, curves and reports over many results."""

from utils.report.curves import save_curves
from utils.report.reliability import save_reliability_pictures
from utils.report.tables import format_table, reliability_table, results_table

__all__ = [
    "format_table",
    "reliability_table",
    "results_table",
    "save_curves",
    "save_reliability_pictures",
]
