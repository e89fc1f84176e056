"""What runs leave for people: tables, curves and reports over many results."""

from utils.report.curves import save_curves
from utils.report.tables import format_table, results_table

__all__ = ["format_table", "results_table", "save_curves"]
