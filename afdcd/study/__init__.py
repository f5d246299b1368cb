"""Studies of several runs: statistics of paired runs, scores by class, and what a gain costs."""

from afdcd.study.classes import at_zero, class_table, classes_of
from afdcd.study.cost import basis, cost_lines
from afdcd.study.paired import PairedDifference, paired_difference
from afdcd.study.runs import Way, changes, figure, read_runs

__all__ = [
    "PairedDifference",
    "Way",
    "at_zero",
    "basis",
    "changes",
    "class_table",
    "classes_of",
    "cost_lines",
    "figure",
    "paired_difference",
    "read_runs",
]
