"""Finished runs looked into: features, gains and losses by class, hard cases; and one report."""

from afdcd.analysis.analyze import analyze
from afdcd.analysis.report import write_report
from afdcd.analysis.runs import open_run, subject_of
from afdcd.analysis.summary import find_ways

__all__ = ["analyze", "find_ways", "open_run", "subject_of", "write_report"]
