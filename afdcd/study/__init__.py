"""Studies of several runs: statistics of paired runs."""

from afdcd.study.paired import PairedDifference, paired_difference

__all__ = ["PairedDifference", "paired_difference"]
