"""A dry run of a config: what is wrong with data, weights, taps, losses and memory, and the fix."""

from afdcd.doctor.diagnose import diagnose
from afdcd.doctor.report import Finding, Report

__all__ = ["Finding", "Report", "diagnose"]
