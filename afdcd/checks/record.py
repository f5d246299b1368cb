"""Whether the record that a config names fits it, and how much of it is there."""

from __future__ import annotations

from collections.abc import Sequence

from afdcd.data.spec import Record
from afdcd.engine.recording import open_recording
from afdcd.engine.runtime import Runtime
from afdcd.utils.findings import Report
from afdcd.utils.problems import SetupError


def check_record(run: Runtime, records: Sequence[Record], report: Report) -> None:
    """Compare a folder's record with a config. Nothing is recorded.

    Args:
        run: of the student.
        records: of all training images, in the order that they are trained on.
        report: takes what was found.
    """
    try:
        recording = open_recording(run, records)
    except SetupError as error:
        report.fix_problems(error.problems, "record")
        return
    if recording is not None:
        there = recording.total - recording.missing
        report.facts["recorded teacher"] = {"views": there, "of": recording.total}
