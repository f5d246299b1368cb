"""Pictures and tables of results."""

from afdcd.analysis.confusion import confusion_picture, write_confusion
from afdcd.analysis.paired import PairedDifference, paired_difference
from afdcd.analysis.panels import comparison_panel
from afdcd.analysis.scores import class_table, write_evaluation
from afdcd.analysis.tables import comparison_table

__all__ = [
    "PairedDifference",
    "class_table",
    "comparison_panel",
    "comparison_table",
    "confusion_picture",
    "paired_difference",
    "write_confusion",
    "write_evaluation",
]
