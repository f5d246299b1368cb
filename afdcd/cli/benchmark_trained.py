"""Benchmarks of a distillation config on the weights of its training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from afdcd.benchmark import report
from afdcd.benchmark.errors import precision_errors
from afdcd.benchmark.report import Text
from afdcd.config import ConfigError
from afdcd.data import load_dataset
from afdcd.data.build import loading_settings
from afdcd.data.stream import SampleStream
from afdcd.distill import Distiller
from afdcd.embedded.build import build_for_training
from afdcd.embedded.runtime import EmbeddedRuntime, configure
from afdcd.models import load_weights
from afdcd.models.weights import read_checkpoint
from afdcd.tasks import task_of


def errors(args: argparse.Namespace) -> tuple[dict[str, Any], Text]:
    """What low precision costs: the result, and what makes a text of it."""
    model, batch = _trained(args)
    deviations = precision_errors(model, batch)
    rows = [{"deviation from float64": name, **row} for name, row in deviations.items()]
    result = {"config": args.config_file, "batch": len(batch), "rows": rows}
    return result, lambda found: report.rows_text(found, "relative, of the L2 norm")


def _trained(args: argparse.Namespace) -> tuple[Distiller, list[dict[str, Any]]]:
    """The model with its weights, on its device, and the first training batch."""
    if not args.config_file:
        raise ConfigError(
            f"{args.what} needs --config-file: a distillation config with trained weights"
        )
    cfg = configure(args.config_file, [*args.opts, "MODEL.DEVICE", args.device])
    if cfg.MODEL.META_ARCHITECTURE != "Distiller":
        raise ConfigError(f"{args.config_file} distils nothing: {args.what} needs a Distiller")
    if not cfg.DATASETS.TRAIN:
        raise ConfigError(f"{args.what} takes labelled images, but DATASETS.TRAIN is empty")
    try:
        task = task_of(load_dataset(cfg.DATASETS.TRAIN[0]))
    except KeyError as error:
        raise ConfigError(error.args[0]) from error
    model, _ = build_for_training(EmbeddedRuntime(cfg), max(cfg.SEED, 0), task, None)
    assert isinstance(model, Distiller)
    if args.weights:
        load_weights(model.student, args.weights, part="model")
        content = read_checkpoint(Path(args.weights))
        if "distiller" in content:
            model.distiller.load_state_dict(content["distiller"])
    mapper = loading_settings(cfg).training_mapper(task.targets())
    stream = SampleStream(task.dataset.records, mapper, 0)
    return model.to(args.device), [stream[n] for n in range(cfg.SOLVER.IMS_PER_BATCH)]
