"""Check the images and depth maps of a data set, all or a sample."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from afdcd.data.datasets import Dataset
from afdcd.data.depth import DepthReader, DepthSpec
from afdcd.data.description import Description
from afdcd.data.images import examine_image
from afdcd.data.labels import DataError
from afdcd.data.listing import spread
from afdcd.data.spec import Record
from afdcd.data.targets import size_problem
from afdcd.utils.findings import Report
from afdcd.utils.problems import first_few, raise_problems

# Half of what a camera sees is nearer than the first and farther than the second, in metres, only
# if the scale is wrong.
NEAREST, FARTHEST = 0.02, 1000.0


@dataclass
class DepthScan:
    """What was found in some files of a data set.

    Attributes:
        files: pairs that were opened.
        problems: a sentence for each pair that can't be used.
        damaged: a sentence for each image that can be read in part only.
        empty: depth maps without any depth.
        constant: depth maps with one depth everywhere.
        ranges: (nearest, median, farthest) depth of each map that has some.
        counted, pixels: pixels with a depth, and all.
    """

    files: int
    problems: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    ranges: list[tuple[float, float, float]] = field(default_factory=list)
    counted: int = 0
    pixels: int = 0


def scan_depths(dataset: Dataset, *, limit: int | None = None, workers: int = 4) -> DepthScan:
    """Open image and depth map of records, in parallel.

    Args:
        dataset: whose files to open.
        limit: number of records, evenly spread; None for all.
        workers: threads.
    """
    assert isinstance(dataset.spec, DepthSpec)
    reader, records = DepthReader(dataset.spec.form), spread(dataset.records, limit)
    scan = DepthScan(len(records))
    with ThreadPoolExecutor(workers) as pool:
        opened = pool.map(lambda record: _open(record, reader), records)
        for record, item in zip(records, opened, strict=True):
            if isinstance(item, str):
                scan.problems.append(item)
                continue
            depths, counted, pixels, damage = item
            scan.counted += counted
            scan.pixels += pixels
            if damage:
                scan.damaged.append(damage)
            if depths is None:
                scan.empty.append(record["sem_seg_file_name"])
                continue
            scan.ranges.append(depths)
            if depths[0] == depths[2]:
                scan.constant.append(record["sem_seg_file_name"])
    return scan


def _open(
    record: Record, reader: DepthReader
) -> str | tuple[tuple[float, float, float] | None, int, int, str]:
    """A problem, or the range of depths, pixels with a depth, all pixels, the image's damage."""
    try:
        depth = reader(record)
        image, damage = examine_image(record["file_name"], record.get("window"))
    except DataError as error:
        return str(error)
    except Exception as error:  # one file must not prevent the check of the others
        return f"{record['file_name']}: {type(error).__name__}: {error}"
    if problem := size_problem(record, image, depth):
        return problem
    found = depth[depth > 0]
    if not found.size:
        return None, 0, depth.size, damage
    depths = float(found.min()), float(np.median(found)), float(found.max())
    return depths, found.size, depth.size, damage


def judge_depths(dataset: Dataset, *, limit: int | None, training: bool, report: Report) -> None:
    """Open files and judge what they hold.

    Args:
        dataset: whose files to open.
        limit: number of records, evenly spread; None for all.
        training: whether it is trained on.
        report: takes what is found.
    """
    scan = scan_depths(dataset, limit=limit)
    assert isinstance(dataset.spec, DepthSpec)
    name, form, usable = dataset.spec.name, dataset.spec.form, scan.files - len(scan.problems)
    facts = report.facts[f"files of {name}"] = {
        "opened": scan.files,
        "of": len(dataset.records),
        "unusable": len(scan.problems),
        "pixels with a depth": scan.counted / scan.pixels if scan.pixels else 0.0,
    }
    report.fix("file", *first_few(scan.problems, of=name))
    # Those of a published data set are as they are.
    say = report.fix if dataset.spec.expected is None else report.note
    say("damaged-image", *first_few(scan.damaged, of=name))
    if not usable:
        return
    stated = f"labels.scale {form.scale:g} and labels.invalid {list(form.invalid)}"
    if scan.empty:
        text = f"{name}: {len(scan.empty)} of {usable} depth maps have no depth in any pixel"
        advice = f"leave such images out of the listing, or look at {stated}"
        if len(scan.empty) == usable:
            advice = f"there is nothing to learn: look at {stated}"
        say = report.fix if len(scan.empty) > usable / 10 else report.note
        say("no-depth", f"{text}, e.g. {scan.empty[0]}: {advice}")
    if not scan.ranges:
        return
    if training and len(scan.constant) > len(scan.ranges) / 2:
        report.fix(
            "constant-depth",
            f"{name}: {len(scan.constant)} of {usable} depth maps hold one depth everywhere, e.g. "
            f"{scan.constant[0]}: there is nothing to learn",
        )
    nearest, farthest = min(q[0] for q in scan.ranges), max(q[2] for q in scan.ranges)
    middle = float(np.median([q[1] for q in scan.ranges]))
    ends = ("nearest", "farthest")
    if dataset.spec.task == "relative_disparity":  # stored from far to near
        nearest, farthest = nearest - form.offset * form.scale, farthest - form.offset * form.scale
        middle, ends = middle - form.offset * form.scale, ("smallest", "largest")
    facts |= {ends[0]: nearest, "median": middle, ends[1]: farthest}
    if dataset.spec.task == "depth" and not NEAREST <= middle <= FARTHEST:
        report.fix(
            "depth-scale",
            f"{name}: the median depth is {middle:.4g} m (from {nearest:.4g} to {farthest:.4g} m), "
            f"which no camera sees: {stated} must make metres of the stored values (0.001 where "
            "they are millimetres). If they have no known unit, labels.encoding is relative_depth",
        )


def check_splits(path: Path, description: Description, limit: int | None) -> str:
    """Open files of each split of a description, for ``register_dataset.py``.

    Args:
        path: of the description.
        description: of depth maps.
        limit: number of records of each split, evenly spread; None for all.

    Returns:
        what was found, for a person.

    Raises:
        SetupError: what is to be fixed, all of it.
    """
    report = Report()
    for split in description.splits:
        name = f"{path}:{split}"
        try:
            dataset = Dataset(description.spec(split, name), *description.load(split=split))
        except DataError as error:
            report.fix("dataset", str(error))
            continue
        judge_depths(dataset, limit=limit, training=True, report=report)
    raise_problems([finding.text for finding in report.to_fix])
    return report.text()
