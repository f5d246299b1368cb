"""The report of several runs: their figures, and what their networks make of some images."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from afdcd.analysis.runs import Network, open_run, student_network, teacher_network
from afdcd.analysis.summary import summarize
from afdcd.config import ConfigError
from afdcd.data import DataError
from afdcd.data.images import read_image
from afdcd.data.listing import spread
from afdcd.data.spec import Record
from afdcd.engine.results import FinishedRun
from afdcd.engine.runtime import Runtime
from afdcd.report.page import Panel, render, tile
from afdcd.report.panels import difference
from afdcd.tasks import Task, task_of
from afdcd.utils.files import write_text
from afdcd.utils.problems import SetupError
from afdcd.utils.progress import progress

logger = logging.getLogger(__name__)


def write_report(
    ways: Mapping[str, Sequence[FinishedRun]],
    path: Path,
    runtime: type[Runtime],
    *,
    command: Sequence[str],
    images: int | None = 200,
    panels: int = 16,
) -> dict[str, Any]:
    """Write one HTML file that needs nothing beside it.

    Args:
        ways: finished runs by the way that they were trained: see `find_ways`.
        path: of the file.
        runtime: to open the runs with.
        command: words that made it, to show.
        images: of the test set, evenly spread, to choose the shown ones from; None for all.
        panels: images to show: of those, half that gained and half that lost most.

    Returns:
        the content of the JSON in it.

    Raises:
        SetupError: see `summarize`. Networks that can't be looked at are remarked on.
    """
    content = summarize(ways)
    content["made"] = datetime.now().astimezone().isoformat(timespec="minutes")
    content["command"] = shlex.join(command)
    networks, task = _networks(content, runtime)
    found: list[Panel] = []
    colors: dict[str, Any] = {}
    if networks and task is not None and panels:
        found = _panels(content, networks, task, images, panels)
        spec = task.dataset.spec
        colors = dict(zip(spec.classes, spec.colors, strict=True))
    content["images"] = [
        {"image": panel.title, "change": panel.change, "scores": panel.scores} for panel in found
    ]
    write_text(path, render(content, found, colors))
    return content


def _networks(
    content: dict[str, Any], runtime: type[Runtime]
) -> tuple[dict[str, Network], Task | None]:
    """The first network of each way, and the teacher, by name; what fails joins the remarks."""
    networks: dict[str, Network] = {}
    task, roles = None, {way["role"] for way in content["ways"]}
    for way in content["ways"]:
        try:
            run = open_run(Path(way["runs"][0]["folder"]), runtime)
            if run.distils and "teacher" not in roles:
                roles.add("teacher")
                try:
                    networks = {"teacher": teacher_network(run), **networks}
                except (SetupError, ConfigError, ValueError, OSError) as error:
                    content["remarks"].append(str(error))
            networks[way["name"]] = student_network(run)
            task = task or task_of(run.find_dataset(run.test_names[0]))
        except (SetupError, ConfigError, DataError, ValueError, OSError, KeyError) as error:
            content["remarks"].append(f"{way['name']}: no pictures, since {error}")
    return networks, task


def _panels(
    content: Mapping[str, Any],
    networks: Mapping[str, Network],
    task: Task,
    images: int | None,
    count: int,
) -> list[Panel]:
    by_role = {way["role"]: way["name"] for way in reversed(content["ways"])}
    pair = tuple(by_role[r] for r in ("alone", "distilled") if by_role.get(r) in networks)
    records = spread(task.dataset.records, images)
    chosen = list(range(len(records)))
    changes: dict[int, float] = {}
    if len(pair) == 2:
        for number, record in enumerate(progress(records, "choosing pictures")):
            before, after = (_score(task, networks[name], record)[1] for name in pair)
            change = (after - before) * (1 if task.HIGHER_IS_BETTER else -1)
            changes[number] = change if np.isfinite(change) else 0.0
        chosen.sort(key=lambda number: -changes[number])
    if len(chosen) > count and changes:
        chosen = chosen[: -(-count // 2)] + chosen[len(chosen) - count // 2 :]
    numbers = spread([{"number": n} for n in chosen], count)
    return [
        _panel(records[n], n, changes.get(n), networks, task, pair)
        for n in progress([item["number"] for item in numbers], "drawing")
    ]


def _score(task: Task, network: Network, record: Record) -> tuple[np.ndarray, float]:
    """A prediction as the task writes it, and its score by the task's metric."""
    output, _, _ = network.see(record)
    evaluator = task.evaluator()
    evaluator.process([record], [output])
    return task.decode(output), evaluator.evaluate()[task.METRIC]


def _panel(
    record: Record,
    number: int,
    change: float | None,
    networks: Mapping[str, Network],
    task: Task,
    pair: Sequence[str],
) -> Panel:
    target = task.targets()(record)
    image = read_image(record["file_name"], record.get("window"))
    name = str(record.get("image_id", Path(record["file_name"]).stem))
    tiles = [
        tile("input", f"image {name}", image, photo=True),
        tile("truth", f"the labels of image {name}", task.picture(target)),
    ]
    predictions, scores = {}, {}
    for title, network in networks.items():
        predictions[title], scores[title] = _score(task, network, record)
        alt = f"what {title} predicts of image {name}: {task.METRIC} {scores[title]:.3g}"
        tiles.append(tile(title, alt, task.picture(predictions[title])))
    if len(pair) == 2 and np.issubdtype(target.dtype, np.integer):
        before, after = (predictions[title] for title in pair)
        ignored = task.dataset.spec.ignore_label
        tiles.append(
            tile(
                f"{pair[0]} → {pair[1]}",
                f"where {pair[1]} is better or worse than {pair[0]} on image {name}",
                difference(target, before, after, ignore_label=ignored),
            )
        )
    return Panel(number, name, change, scores, tiles)
