"""Tables and facts of a measurement, for people and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tabulate import tabulate

LOADED = "MEASURED ON A LOADED MACHINE: not to be quoted"

# Formats a result as text.
Text = Callable[[dict[str, Any]], str]


def table(rows: list[list[Any]], headers: list[str]) -> str:
    """Format rows in columns, with numbers as they are written."""
    return tabulate(rows, headers=headers, disable_numparse=True)


def step_text(result: dict[str, Any]) -> str:
    """The result of ``benchmark.py step``."""
    times, memory = result["times"], result["memory"]
    own = {row["name"]: row for row in result["variants"]}
    base = next(iter(times))
    parts = [part for part in times[base] if part != "total"]
    rows = []
    for name, row in times.items():
        total = row["total"]
        ratio = times[base]["total"]["median"] / total["median"]
        rows.append(
            [name]
            + [f"{row[part]['median']:.3g}" if part in row else "-" for part in parts]
            + [f"{total['median']:.3g}", f"{total['least']:.3g}-{total['most']:.3g}"]
            + [f"{ratio:.2f}", f"{own[name]['times_student']:.2f}"]
        )
    headers = ["seconds (medians)", *parts, "total", "least-most", "times plain"]
    texts = [heading(result), table(rows, [*headers, "times student's own"])]
    if memory:
        rows = [
            [name, *_memory_cells(row, memory[base], memory[own[name]["student_alone"]])]
            for name, row in memory.items()
        ]
        texts.append(table(rows, ["peak memory, MiB", *_memory_headers(memory[base])]))
    if result["products"]:
        rows = []
        for name, counts in result["products"].items():
            floor = result["floor"][name]
            rows.append(
                [name, f"{sum(counts.values()) / 1e9:.0f}", f"{floor:.3g}"]
                + [f"{floor / times[name]['total']['median']:.0%}"]
            )
        texts.append(table(rows, ["arithmetic", "GFLOP of products", "floor, s", "reached"]))
    if result["loader"]:
        rows = [[name, f"{seconds:.3g}"] for name, seconds in result["loader"].items()]
        texts.append(table(rows, ["loader, one process", "seconds per batch"]))
    return "\n\n".join(texts)


def _memory_headers(row: dict[str, float]) -> list[str]:
    headers = []
    for name in row:
        headers += [name, "of plain", "of student's own"]
    return headers


def _memory_cells(
    row: dict[str, float], plain: dict[str, float], own: dict[str, float]
) -> list[str]:
    cells = []
    for name, value in row.items():
        cells += [f"{value / 2**20:.0f}", f"{value / plain[name]:.2f}", f"{value / own[name]:.2f}"]
    return cells


def calls_text(result: dict[str, Any]) -> str:
    """The result of ``benchmark.py contrast``."""
    times, memory = result["times"], result["memory"]
    base = next(iter(times))
    rows = []
    for name, row in times.items():
        total = row["total"]
        cells = [f"{total['median']:.3g}", f"{total['least']:.3g}-{total['most']:.3g}"]
        cells.append(f"{times[base]['total']['median'] / total['median']:.2f}")
        if memory:
            cells += [f"{memory[name]['tensors'] / 2**20:.0f}"]
            cells += [f"{memory[base]['tensors'] / memory[name]['tensors']:.1f}"]
        rows.append([name, *cells])
    headers = ["contrast", "seconds", "least-most", "times plain"]
    headers += ["peak above its inputs, MiB", "times less"] if memory else []
    text = [heading(result), table(rows, headers)]
    floor = result["floor"]
    text.append(
        f"{result['subtractions'] / 1e9:.1f} G differences of values, needed twice: "
        f"{floor['seconds']:.3g} s at the {floor['operations a second'] / 1e9:.0f} GFLOP/s of a "
        "matrix product"
    )
    return "\n\n".join(text)


def rows_text(result: dict[str, Any], first: str) -> str:
    """Any list of flat dicts as a table."""
    rows = result["rows"]
    headers = list(rows[0])
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    return f"{heading(result)}\n\n{first}\n{table(cells, headers)}"


def heading(result: dict[str, Any]) -> str:
    """The machine that was measured, and its load."""
    machine = result["machine"]
    name = machine.get("gpu", machine["processor"])
    text = f"{name}, {machine['cores']} cores, {machine['threads']} threads, "
    text += f"torch {machine['torch']}; others took {result['load']:.0%} of the cores"
    return f"{LOADED}\n{text}" if result["loaded"] else text
