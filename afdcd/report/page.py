"""One HTML file of several runs, with all that it shows inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from afdcd.report.charts import bar, line_chart, swatches, table
from afdcd.report.panels import BETTER, IGNORED_COLOR, RIGHT, WORSE, WRONG
from afdcd.utils.files import json_text

# Longer sides of pictures, in pixels, and characters that all of them may take in the file.
LONGEST, ROOM = 512, 7_000_000
# Of a photo, from 0 to 100; above it nothing is lost.
QUALITY, LOSSLESS = 80, 101


@dataclass(frozen=True)
class Tile:
    """A picture: its title, what it shows for those who don't see it, WebP in base64, its size."""

    title: str
    alt: str
    data: str
    width: int
    height: int
    photo: bool


@dataclass(frozen=True)
class Panel:
    """What is shown of an image.

    Attributes:
        number: of the image.
        title: its name.
        change: points that it gained; None where two networks aren't compared.
        scores: by network.
        tiles: pictures.
    """

    number: int
    title: str
    change: float | None
    scores: Mapping[str, float]
    tiles: Sequence[Tile]


def tile(title: str, alt: str, picture: np.ndarray, *, photo: bool = False) -> Tile:
    """Encode a BGR picture [H, W, 3]: a photo with losses, colours that mean something without.

    Raises:
        OSError: it can't be encoded.
    """
    height, width = picture.shape[:2]
    if max(height, width) > LONGEST:
        scale = LONGEST / max(height, width)
        how = cv2.INTER_AREA if photo else cv2.INTER_NEAREST
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=how)
        height, width = picture.shape[:2]
    quality = QUALITY if photo else LOSSLESS
    done, data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise OSError(f"can't encode the picture {title!r}")
    return Tile(title, alt, base64.b64encode(data.tobytes()).decode(), width, height, photo)


def render(
    content: Mapping[str, Any], panels: Sequence[Panel], colors: Mapping[str, Sequence[int]]
) -> str:
    """The whole page.

    Args:
        content: of its JSON: see `afdcd.analysis.summary.summarize`.
        panels: images, in order; those beyond `ROOM` are left out.
        colors: (red, green, blue) by class, for the pictures.
    """
    folder = Path(__file__).parent
    parts = [_scores(content), _curves(content), _costs(content), _classes(content)]
    parts += [_pictures(panels, colors), _settings(content), _origin(content)]
    names = ", ".join(way["name"] for way in content["ways"])
    return Template((folder / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{names}: {content['metric']}"),
        style=(folder / "page.css").read_text(encoding="utf-8"),
        script=(folder / "page.js").read_text(encoding="utf-8"),
        body="".join(parts),
        # "</script>" in a name would end it.
        json=json_text(content).replace("<", "\\u003c"),
    )


def _section(name: str, title: str, *parts: str) -> str:
    inside = "".join(parts)
    if not inside:
        return ""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{title}</h2>{inside}</section>'
    )


def _number(value: float | None, pattern: str = "{:.2f}") -> str:
    return "-" if value is None else escape(pattern.format(value))


def _scores(content: Mapping[str, Any]) -> str:
    metric, ways = content["metric"], content["ways"]
    largest = max((way["score"]["mean"] for way in ways), default=0.0)
    rows = []
    for kind, way in enumerate(ways):
        score, gain = way["score"], way["gain"]
        text = f"{score['mean']:.4g}"
        between = "one seed"
        if score["low"] is not None:
            between = f"{score['low']:.4g} to {score['high']:.4g} ({score['seeds']} seeds)"
        said = "-"
        if gain:
            said = f"{gain['mean']:+.3g} over {gain['over']}"
            if gain["error"] is not None:
                said += f", standard error {gain['error']:.2g}, p = {gain['p']:.2g}"
        bars = bar(score["mean"], largest, kind, text)
        rows.append([escape(way["name"]), bars, escape(between), escape(said)])
    head = ["way", metric, "95 % interval of the mean", "change"]
    remarks = "".join(f"<li>{escape(text)}</li>" for text in content["remarks"])
    known = [w for w in ways if w["role"] == "distilled" and w["runs"][0]["teacher"] is not None]
    teacher = ""
    if known and all(way["role"] != "teacher" for way in ways):
        value = known[0]["runs"][0]["teacher"]
        teacher = f"<p>The teacher of {escape(known[0]['name'])}: {metric} {value:.4g}.</p>"
    single = any(way["score"]["seeds"] == 1 for way in ways)
    caution = "<p>One seed says little: what another seed would change isn't known.</p>" * single
    return _section(
        "scores",
        "Scores",
        table(head, rows, f"{metric} at the end of training"),
        teacher,
        caution,
        f"<ul>{remarks}</ul>" if remarks else "",
    )


def _curves(content: Mapping[str, Any]) -> str:
    found: dict[str, list[tuple[str, int, list[list[float]]]]] = {}
    for kind, way in enumerate(content["ways"]):
        for run in way["runs"]:
            for name, points in run["curves"].items():
                found.setdefault(name, []).append((way["name"], kind, points))
    charts = [line_chart(series, name) for name, series in sorted(found.items(), key=_first_scores)]
    return _section(
        "curves", "Training", f'<div class="charts">{"".join(charts)}</div>' * bool(charts)
    )


def _first_scores(item: tuple[str, Any]) -> tuple[int, str]:
    name = item[0]
    return (2 if name.startswith("loss_") else int(name == "total_loss")), name


def _costs(content: Mapping[str, Any]) -> str:
    rows = []
    for way in content["ways"]:
        cost = way["cost"]
        recording = cost["seconds_recording"]
        rows.append(
            [
                escape(way["name"]),
                str(cost["iterations"]),
                _number(cost["seconds"], "{:.0f} s"),
                _number(recording, "{:.0f} s") if recording else "-",
                _number(cost["seconds_per_step"], "{:.3f} s"),
                _number(cost["times_student"], "{:.2f}"),
                _number(cost["times_alone"], "{:.2f}"),
            ]
        )
    head = ["way", "iterations", "training", "recording the teacher", "a step"]
    head += [
        "a step, in times the student's own",
        "in all, in times the student alone",
    ]
    return _section("cost", "Cost", table(head, rows, "Seconds are medians over the runs"))


def _classes(content: Mapping[str, Any]) -> str:
    ways = [way for way in content["ways"] if way["classes"]]
    names = dict.fromkeys(name for way in ways for name in way["classes"])
    pair = [next((w for w in ways if w["role"] == role), None) for role in ("alone", "distilled")]
    before, after = (way["classes"] if way else {} for way in pair)
    rows = []
    for name in names:
        cells = [
            bar(value, 100, content["ways"].index(way), f"{value:.1f}")
            if (value := way["classes"].get(name)) is not None
            else "-"
            for way in ways
        ]
        if before and after:
            cells.append(f"{after[name] - before[name]:+.1f}" if name in before else "-")
        rows.append([escape(name), *cells])
    head = ["class", *(way["name"] for way in ways)]
    if before and after:
        head.append("change")
    return _section("classes", "Classes", table(head, rows, "IoU in percent") if rows else "")


def _pictures(panels: Sequence[Panel], colors: Mapping[str, Sequence[int]]) -> str:
    items, used = [], 0
    for panel in panels:
        used += sum(len(tile.data) for tile in panel.tiles)
        if used > ROOM:
            break
        figures = "".join(
            f'<figure><img src="data:image/webp;base64,{t.data}" alt="{escape(t.alt)}" '
            f'width="{t.width}" height="{t.height}"{"" if t.photo else " class=map"}>'
            f"<figcaption>{escape(t.title)}{_score_of(panel, t.title)}</figcaption></figure>"
            for t in panel.tiles
        )
        change = "" if panel.change is None else f": {panel.change:+.3g} points"
        items.append(
            f'<li class="panel" data-change="{panel.change or 0:.6f}" data-number="{panel.number}">'
            f'<h3>Image {escape(panel.title)}{change}</h3><div class="tiles">{figures}</div></li>'
        )
    if not items:
        return ""
    meaning = {
        "only the second is right": BETTER,
        "only the first is right": WORSE,
        "both are right": RIGHT,
        "neither is": WRONG,
        "doesn't count": IGNORED_COLOR,
    }
    left_out = len(panels) - len(items)
    note = f"<p>{left_out} more images would have made this file too large.</p>" * bool(left_out)
    controls = (
        '<div class="controls" hidden><label for="order">Order</label> <select id="order">'
        '<option value="gain">most gained first</option><option value="loss">most lost first'
        '</option><option value="number">by number</option></select> '
        '<button type="button" id="previous">Previous</button> <output id="place"></output> '
        '<button type="button" id="next">Next</button> '
        '<button type="button" id="all" aria-pressed="false">Show all</button></div>'
    )
    return _section(
        "pictures",
        "Pictures",
        controls,
        f'<ol id="panels">{"".join(items)}</ol>',
        note,
        swatches(colors) if len(colors) <= 40 else "",
        # BGR, as OpenCV has it.
        "<p>Where two differ:</p>",
        swatches({name: color[::-1] for name, color in meaning.items()}),
    )


def _score_of(panel: Panel, title: str) -> str:
    return f" {panel.scores[title]:.3g}" if title in panel.scores else ""


def _settings(content: Mapping[str, Any]) -> str:
    rows = [
        [_code(key), *("-" if value in (None, "") else _code(str(value)) for value in values)]
        for key, values in content["settings"].items()
    ]
    head = ["setting", *(way["name"] for way in content["ways"])]
    found = table(head, rows, "Of each way's first run") if rows else ""
    return _section("settings", "Settings that differ", found)


def _code(text: str) -> str:
    """Code that may break after dots and slashes."""
    return f"<code>{escape(text).replace('.', '.<wbr>').replace('/', '/<wbr>')}</code>"


def _origin(content: Mapping[str, Any]) -> str:
    runs = [
        [escape(way["name"]), str(run["seed"]), _code(run["folder"])]
        for way in content["ways"]
        for run in way["runs"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return _section(
        "origin",
        "Where this comes from",
        table(["way", "seed", "folder, with config.yaml"], runs, "Runs"),
        f"<p>Made at {escape(content['made'])} by</p>",
        f"<pre>{escape(content['command'])}</pre>",
        f"<p>With {escape(versions)}.</p>",
    )
