"""``benchmark.py step``, ``contrast`` and ``scaling``: what a step and the contrast cost."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from afdcd.benchmark import report
from afdcd.benchmark.contrast import contrast_calls, subtractions
from afdcd.benchmark.flops import DTYPES, at_rate, count_products
from afdcd.benchmark.loading import draw_files, measure
from afdcd.benchmark.machine import product_rate
from afdcd.benchmark.memory import measure_contrast, measure_step
from afdcd.benchmark.plot import draw_bars
from afdcd.benchmark.processes import images_per_second
from afdcd.benchmark.report import Text
from afdcd.benchmark.settings import Setting, Variant, variants, with_student_alone
from afdcd.benchmark.timing import Times, time_calls, time_steps
from afdcd.config import ConfigError
from afdcd.data.cityscapes import ID_MAP

SCALES: dict[str, tuple[Any, ...]] = {
    "crop": ((128, 256), (256, 512), (384, 768)),
    "batch": (2, 4, 8),
    "channels": (0.25, 0.5, 1.0),
    "processes": (1, 2),
}


def step(args: argparse.Namespace) -> tuple[dict[str, Any], Text]:
    """The whole step, by parts: the result, and what makes a text of it."""
    setting, chosen = _setting(args), with_student_alone(_chosen(args))
    times = time_steps(setting, chosen, repeats=args.repeats)
    rates = _rates(args)
    products = {variant.name: count_products(setting, variant) for variant in chosen}
    result = {
        "setting": vars(setting),
        "repeats": args.repeats,
        "variants": in_times_of_the_student(chosen, times),
        "times": {name: found.summary() for name, found in times.items()},
        "product rates": rates,
        "products": products,
        "floor": {
            variant.name: sum(products[variant.name].values()) / at_rate(variant.dtype, rates)
            for variant in chosen
        },
        "memory": {}
        if args.no_memory
        else {variant.name: measure_step(setting, variant) for variant in chosen},
        "loader": {} if args.no_loader else _loader(setting),
    }
    if args.plot:
        rows = {
            name: {part: row["median"] for part, row in found.items() if part != "total"}
            for name, found in result["times"].items()
        }
        title = f"seconds of a step: {setting.batch} images of {setting.crop[0]}x{setting.crop[1]}"
        draw_bars(Path(args.plot), title, rows)
    return result, report.step_text


def in_times_of_the_student(
    chosen: Sequence[Variant], times: Mapping[str, Times]
) -> list[dict[str, Any]]:
    """What each variant's step costs in times the student's own, in the same precision.

    Args:
        chosen: with the student alone in each of their precisions.
        times: of each of them, in turns.

    Returns:
        rows of ``name``, ``student_alone`` (the name of the student's own step) and
        ``times_student``, the ratio of both medians.
    """
    medians = {name: found.summary()["total"]["median"] for name, found in times.items()}
    names = {variant.name: variant.student_alone.name for variant in chosen}
    return [
        {"name": name, "student_alone": own, "times_student": medians[name] / medians[own]}
        for name, own in names.items()
    ]


def contrast(args: argparse.Namespace) -> tuple[dict[str, Any], Text]:
    """The contrast alone: the result, and what makes a text of it."""
    shape = (args.shape[0], args.shape[1], args.shape[2], args.shape[3])
    calls = contrast_calls(shape, args.device)
    times = time_calls(calls, args.device, repeats=args.repeats)
    rate = product_rate(args.device, torch.float32)
    count = subtractions(shape)
    result = {
        "shape": shape,
        "repeats": args.repeats,
        "times": {name: found.summary() for name, found in times.items()},
        "memory": {}
        if args.no_memory
        else {name: measure_contrast(shape, name, args.device) for name in calls},
        "subtractions": count,
        "floor": {"operations a second": rate, "seconds": 2 * 3 * count / rate},
    }
    return result, report.calls_text


def scaling(args: argparse.Namespace) -> tuple[dict[str, Any], Text]:
    """The step over sizes or processes: the result, and what makes a text of it."""
    setting = _setting(args)
    values = [_value(args.over, v) for v in args.values] if args.values else SCALES[args.over]
    rows: list[dict[str, Any]] = []
    for value in values:
        if args.over == "processes":
            rate = images_per_second(
                setting, variants(args.device, args.dims)[1], value, args.repeats
            )
            rows.append({"processes": value, "images/s": rate})
            continue
        changed = {
            "crop": lambda v: replace(setting, crop=v),
            "batch": lambda v: replace(setting, batch=v),
            "channels": lambda v: replace(setting, width=v),
        }[args.over](value)
        times = time_steps(changed, _chosen(args), repeats=args.repeats)
        medians = {name: found.summary()["total"]["median"] for name, found in times.items()}
        plain = next(iter(medians.values()))
        label = "x".join(map(str, value)) if isinstance(value, tuple) else value
        row: dict[str, Any] = {args.over: label}
        for name, seconds in medians.items():
            row[f"{name}, s"] = seconds
            if seconds is not plain:
                row[f"{name}, times plain"] = plain / seconds
        rows.append(row)
    result = {"setting": vars(setting), "repeats": args.repeats, "over": args.over, "rows": rows}
    return result, lambda found: report.rows_text(found, f"over {args.over}, medians")


def _setting(args: argparse.Namespace) -> Setting:
    return Setting(
        crop=(args.crop[0], args.crop[1]),
        batch=args.batch,
        teacher_depth=args.teacher,
        student_depth=args.student,
        width=args.width,
        pool=args.pool,
        device=args.device,
    )


def _chosen(args: argparse.Namespace) -> list[Variant]:
    plain, *others = variants(args.device, args.dims)
    if args.only is None:
        return [plain, *others]
    names = {variant.name: variant for variant in others}
    if unknown := [name for name in args.only if name not in names]:
        raise ConfigError(
            f"--only takes some of {', '.join(map(repr, names))}; got {', '.join(unknown)}"
        )
    return [plain, *(names[name] for name in args.only)]


def _rates(args: argparse.Namespace) -> dict[str, float]:
    return {name: product_rate(args.device, DTYPES[name]) for name in ("float32", "bfloat16")}


def _loader(setting: Setting) -> dict[str, float]:
    """Seconds a batch in one process, from drawn PNG files of twice the crop's size."""
    size = (2 * setting.crop[0], 2 * setting.crop[1])
    with tempfile.TemporaryDirectory() as folder:
        records = draw_files(Path(folder), 2, size, "png")
        rates = measure(records, ID_MAP, setting.crop, 8, Path(folder))
    return {way: setting.batch / rate for way, rate in rates.items()}


def _value(over: str, text: str) -> Any:
    try:
        if over == "crop":
            height, width = text.lower().split("x")
            return int(height), int(width)
        return float(text) if over == "channels" else int(text)
    except ValueError as error:
        raise ConfigError(f"--values {text}: not a value of {over}") from error
