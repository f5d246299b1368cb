"""What a person looks at: panels of pictures."""

from afdcd.report.panels import comparison_panel

__all__ = ["comparison_panel"]
