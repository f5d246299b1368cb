"""Time and memory of a training step and its parts, beside the plain published formulation.

  step      the whole step by parts, in several precisions, with peak memory and arithmetic
  contrast  the contrast alone
  scaling   the step over crops, batches, channels or processes
  errors    what low precision costs on the weights of a config
  sampling  the variance that sampling patches adds to the gradient, on the weights of a config

Refuses to report where other processes take more than --max-load of the cores, unless --anyway
marks the result as measured on a loaded machine. Exit code 0: measured; 2: can't measure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from afdcd.benchmark import report
from afdcd.benchmark.contrast import contrast_calls, subtractions
from afdcd.benchmark.flops import DTYPES, at_rate, count_products
from afdcd.benchmark.loading import draw_files, measure
from afdcd.benchmark.machine import (
    MOST_LOAD,
    LoadMeter,
    describe_machine,
    idle_load,
    product_rate,
)
from afdcd.benchmark.memory import measure_contrast, measure_step
from afdcd.benchmark.plot import draw_bars
from afdcd.benchmark.processes import images_per_second
from afdcd.benchmark.settings import Setting, Variant, variants
from afdcd.benchmark.timing import time_calls, time_steps
from afdcd.commands.benchmark_trained import errors, sampling
from afdcd.commands.train_net import report_errors
from afdcd.config import ConfigError
from afdcd.data.cityscapes import ID_MAP
from afdcd.files import write_json
from afdcd.preflight import SetupError

SCALES: dict[str, tuple[Any, ...]] = {
    "crop": ((128, 256), (256, 512), (384, 768)),
    "batch": (2, 4, 8),
    "channels": (0.25, 0.5, 1.0),
    "processes": (1, 2),
}
# The load of the machine doesn't matter to these.
UNTIMED = {"errors": errors, "sampling": sampling}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="benchmark.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "what",
        nargs="?",
        default="step",
        choices=("step", "contrast", "scaling", *UNTIMED),
    )
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--threads", type=int, help="of PyTorch (its own choice)")
    p.add_argument("--crop", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    p.add_argument("--batch", type=int, default=2, help="images a step (2)")
    p.add_argument("--teacher", type=int, default=101, help="depth of its ResNet (101)")
    p.add_argument("--student", type=int, default=18, help="depth of its ResNet (18)")
    p.add_argument("--width", type=float, default=1.0, help="factor of all channels (1)")
    p.add_argument("--pool", type=int, default=4, help="of the contrast (4)")
    p.add_argument("--repeats", type=int, default=5, help="rounds that count (5)")
    p.add_argument("--only", nargs="+", metavar="NAME", help="variants beside the plain step")
    p.add_argument("--no-memory", action="store_true", help="times only")
    p.add_argument("--no-loader", action="store_true", help="leave out the loading of samples")
    p.add_argument(
        "--shape",
        type=int,
        nargs=4,
        default=(2, 2048, 64, 128),
        metavar=("N", "C", "H", "W"),
        help="contrast: of the maps (2 2048 64 128)",
    )
    p.add_argument("--over", choices=tuple(SCALES), default="crop", help="scaling: over what")
    p.add_argument("--values", nargs="+", help="scaling: e.g. 256x512 512x1024, or 2 4 8")
    p.add_argument("--config-file", metavar="FILE", help="errors, sampling: to distil by")
    p.add_argument("--weights", metavar="FILE", help="errors, sampling: a checkpoint of its run")
    p.add_argument(
        "--shares", type=float, nargs="+", default=(0.5, 0.25), help="sampling: (0.5 0.25)"
    )
    p.add_argument("--batches", type=int, default=16, help="sampling: how many (16)")
    p.add_argument("--max-load", type=float, default=MOST_LOAD, help=f"({MOST_LOAD:g})")
    p.add_argument("--anyway", action="store_true", help="report on a loaded machine, marked so")
    p.add_argument("--json", metavar="FILE", help="write the result as JSON")
    p.add_argument("--plot", metavar="FILE", help="step: draw the times (PNG)")
    p.add_argument("opts", nargs="*", metavar="KEY VALUE", help="errors, sampling: overrides")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    # Intermixed, since positional words (what, overrides) stand before and behind options.
    args = parser().parse_intermixed_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    if min(*args.crop, args.batch - 1, args.repeats, *args.shape) < 1:
        raise ConfigError("sizes and repeats are at least 1, --batch at least 2 (BatchNorm)")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SetupError(["--device cuda, but PyTorch sees no CUDA device: use --device cpu"])
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.what in UNTIMED:
        result, text = UNTIMED[args.what](args)
        result |= {"machine": describe_machine(args.device), "load": 0.0, "loaded": False}
    else:
        _refuse(idle_load(), args)
        meter = LoadMeter()
        measured = {"step": _step, "contrast": _contrast, "scaling": _scaling}[args.what](args)
        result, text = measured
        load = meter.others()
        _refuse(load, args)
        result |= {
            "machine": describe_machine(args.device),
            "load": load,
            "loaded": load > args.max_load,
        }
    print(text(result))
    if args.json:
        write_json(Path(args.json), result)


def _refuse(load: float, args: argparse.Namespace) -> None:
    if load > args.max_load and not args.anyway:
        raise SetupError(
            [
                f"other processes take {load:.0%} of the cores, more than --max-load "
                f"{args.max_load:.0%}: times would mean nothing. Stop them, or add --anyway to "
                "get a report that is marked as such"
            ]
        )


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
    plain, *others = variants(args.device)
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


def _step(args: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    setting, chosen = _setting(args), _chosen(args)
    times = time_steps(setting, chosen, repeats=args.repeats)
    rates = _rates(args)
    products = {variant.name: count_products(setting, variant) for variant in chosen}
    result = {
        "setting": vars(setting),
        "repeats": args.repeats,
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


def _loader(setting: Setting) -> dict[str, float]:
    """Seconds a batch in one process, from drawn PNG files of twice the crop's size."""
    size = (2 * setting.crop[0], 2 * setting.crop[1])
    with tempfile.TemporaryDirectory() as folder:
        records = draw_files(Path(folder), 2, size, "png")
        rates = measure(records, ID_MAP, setting.crop, 8, Path(folder))
    return {way: setting.batch / rate for way, rate in rates.items()}


def _contrast(args: argparse.Namespace) -> tuple[dict[str, Any], Any]:
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


def _scaling(args: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    setting = _setting(args)
    values = [_value(args.over, v) for v in args.values] if args.values else SCALES[args.over]
    rows: list[dict[str, Any]] = []
    for value in values:
        if args.over == "processes":
            rate = images_per_second(setting, variants(args.device)[1], value, args.repeats)
            rows.append({"processes": value, "images/s": rate})
            continue
        changed = {
            "crop": lambda v: replace(setting, crop=v),
            "batch": lambda v: replace(setting, batch=v),
            "channels": lambda v: replace(setting, width=v),
        }[args.over](value)
        chosen = [v for v in _chosen(args) if args.only or not v.recompute]
        times = time_steps(changed, chosen, repeats=args.repeats)
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


def _value(over: str, text: str) -> Any:
    try:
        if over == "crop":
            height, width = text.lower().split("x")
            return int(height), int(width)
        return float(text) if over == "channels" else int(text)
    except ValueError as error:
        raise ConfigError(f"--values {text}: not a value of {over}") from error


if __name__ == "__main__":
    sys.exit(main())
