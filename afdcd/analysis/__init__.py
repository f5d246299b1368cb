"""Pictures and tables of results."""

from afdcd.analysis.panels import comparison_panel
from afdcd.analysis.tables import comparison_table

__all__ = ["comparison_panel", "comparison_table"]
