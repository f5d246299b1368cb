"""Finished runs looked into: features, gains and losses by class, hard cases; and one report."""

from afdcd.analysis.analyze import analyze
from afdcd.analysis.report import write_report
from afdcd.analysis.runs import open_run, subject_of

__all__ = ["analyze", "open_run", "subject_of", "write_report"]
