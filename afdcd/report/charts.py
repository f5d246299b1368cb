"""Charts as inline SVG and tables as HTML, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

# Kinds of line in page.css.
KINDS = 6
WIDTH, HEIGHT, LEFT, BOTTOM = 360, 210, 44, 24


def line_chart(series: Sequence[tuple[str, int, Sequence[Sequence[float]]]], title: str) -> str:
    """A chart of lines, with its legend.

    Args:
        series: name, number of its kind of line, and [x, y] points; those of one name share an
            entry of the legend.
        title: above it.
    """
    points = [point for _, _, line in series for point in line]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right, low, high = 0.0, max(xs), min(0.0, *ys), max(ys)
    across, up = (right - left) or 1.0, (high - low) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        inner = WIDTH - LEFT - 8, HEIGHT - BOTTOM - 8
        return LEFT + (x - left) / across * inner[0], 8 + (high - y) / up * inner[1]

    parts = []
    for share in (0.0, 0.5, 1.0):
        x, y = at(left + share * across, low + share * up)
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        value, iteration = low + share * up, left + share * across
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{iteration:.0f}</text>'
        )
    for _, kind, line in series:
        places = [at(x, y) for x, y in line]
        if len(places) == 1:
            x, y = places[0]
            parts.append(f'<circle class="dot k{kind % KINDS}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="k{kind % KINDS}" points="{path}"/>')
    ends = "; ".join(f"{name} ends at {line[-1][1]:.3g}" for name, _, line in series)
    legend = "".join(
        f'<li><svg width="24" height="10" aria-hidden="true"><line class="k{kind % KINDS}" x1="0" '
        f'x2="24" y1="5" y2="5"/></svg> {escape(name)}</li>'
        for name, kind in {name: kind for name, kind, _ in series}.items()
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}, by iteration</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: '
        f'{escape(ends)}">{"".join(parts)}</svg><ul class="legend">{legend}</ul></figure>'
    )


def bar(value: float, largest: float, kind: int, text: str) -> str:
    """A number as a bar with its text; bars of one table have one ``largest``."""
    share = 100 * max(value, 0.0) / largest if largest > 0 else 0.0
    return (
        f'<span class="bar k{kind % KINDS}" style="width:{min(share, 100):.1f}%"></span>'
        f'<span class="value">{escape(text)}</span>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table whose first column names its rows.

    Args:
        head: titles of the columns, as text.
        rows: cells as HTML.
        caption: as text.
    """
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def swatches(colors: Mapping[str, Sequence[int]]) -> str:
    """Names with their colours (red, green, blue)."""
    items = "".join(
        f'<li><span class="swatch" style="background:rgb({r},{g},{b})"></span> {escape(name)}</li>'
        for name, (r, g, b) in colors.items()
    )
    return f'<ul class="legend">{items}</ul>'
