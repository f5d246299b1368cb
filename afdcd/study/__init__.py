"""Many runs as one: statistics of paired runs."""

from afdcd.study.paired import PairedDifference, paired_difference

__all__ = ["PairedDifference", "paired_difference"]
