"""Compare ways of training over several seeds: means, and whether they differ by more than chance.

A way is NAME=FOLDERS, the output folders of its runs: several after commas, or with * and ?. The
first is what the others are compared with, over the seeds that both were run with, e.g.

    tools/compare.py student='output/student_s*' afdcd='output/distilled_s*'

Where two ways are the student alone in schedules of different length, what a distilled way gains is
also given as the time that the student alone would need to gain as much.
"""

from __future__ import annotations

import argparse


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("ways", nargs="+", metavar="NAME=FOLDERS", help="the first is the baseline")
    p.add_argument("--metric", help="a figure of results.json, e.g. PQ (the runs' own)")
    p.add_argument("--data-set", metavar="NAME", help="which, if the runs were tested on several")
    return p
