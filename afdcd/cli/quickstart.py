"""A first look: a teacher, a student alone, and a distilled student, in minutes on a CPU."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from afdcd.analysis import write_report
from afdcd.cli.arguments.quickstart import parser
from afdcd.cli.common import report_errors
from afdcd.data import Dataset, load_dataset, read_labels
from afdcd.data.images import read_image
from afdcd.embedded.build import load_for_evaluation
from afdcd.embedded.loader import evaluation_batches
from afdcd.embedded.run import run
from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.engine.checkpoints import EXPORT
from afdcd.engine.results import read_run
from afdcd.evaluation.predict import predict
from afdcd.models import count_multiply_adds, count_parameters
from afdcd.report import comparison_panel
from afdcd.tasks import task_of
from afdcd.utils.files import write_json, write_png
from afdcd.utils.tables import comparison_table

logger = logging.getLogger(__name__)

# Role -> config.
ROLES = {"teacher": "teacher.yaml", "student": "student.yaml", "distilled": "afdcd.yaml"}
PANELS = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit codes as train_net's."""
    words = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(words)
    return report_errors(lambda: _main(args.configs, args.output, args.opts, words))


def _main(configs: Path, output: Path, overrides: Sequence[str], words: Sequence[str]) -> None:
    start = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    runs: dict[str, EmbeddedRuntime] = {}
    for number, (role, file) in enumerate(ROLES.items(), 1):
        setup = EmbeddedRuntime.configure(
            str(configs / file),
            [
                *overrides,
                *("OUTPUT_DIR", str(output / role)),
                *("MODEL.DISTILLER.TEACHER.WEIGHTS", str(output / "teacher/student_final.pth")),
                *("MODEL.DISTILLER.TEACHER.RECORD.FOLDER", str(output / "record")),
            ],
        )
        logger.info("--- %d of %d: %s ---", number, len(ROLES), role)
        runs[role] = setup
        results[role] = _result(setup, run(setup.cfg, resume=True))
    write_json(output / "results.json", results)
    panels = _draw_panels(runs, output)
    report = output / "report.html"
    command = ["python", "tools/quickstart.py", *words]
    ways = {role: [read_run(setup.output)] for role, setup in runs.items()}
    write_report(ways, report, EmbeddedRuntime, command=command)
    print()
    print(comparison_table(results))
    print()
    print(_in_words(results))
    print(f"Figures:  {output / 'results.json'}")
    print(f"Pictures: {panels[0].parent}/ ({len(panels)} of the validation set, by number)")
    print(f"Report:   {report} (open it in a browser)")
    print(f"Total:    {time.monotonic() - start:.0f} s")


def _result(setup: EmbeddedRuntime, outcome: dict[str, Any]) -> dict[str, Any]:
    (figures,) = outcome["figures"].values()
    model = load_for_evaluation(setup, setup.output / EXPORT)
    record = load_dataset(setup.test_names[0]).records[0]
    return {
        "miou": figures["mIoU"],
        "boundary_iou": figures["mBoundaryIoU"],
        "params": count_parameters(model),
        "macs": count_multiply_adds(model, record["height"], record["width"]),
        "seconds_per_step": outcome["seconds_per_step"],
        "seconds": outcome["seconds"],
        "seconds_recording": outcome["seconds_recording"],
        "times_student": outcome["times_student"],
        "iterations": outcome["iterations"],
        "seed": outcome["seed"],
    }


def _in_words(results: dict[str, dict[str, Any]]) -> str:
    teacher, student, distilled = (results[role] for role in ROLES)
    gain = distilled["miou"] - student["miou"]
    measured, recording = distilled["times_student"], distilled["seconds_recording"]
    if measured is None:  # too few steps
        measured = distilled["seconds_per_step"] / student["seconds_per_step"]
    recorded = f", and recording the teacher took {recording:.0f} s" if recording else ""
    return (
        f"At equal iterations ({student['iterations']}), seed and initialization, Af-DCD changed "
        f"the student's mIoU by {gain:+.2f} points (teacher {teacher['miou']:.2f}). A distilled "
        f"step cost {measured:.1f} times the student's own step{recorded}: at equal time, the "
        "comparison is another one. One seed says little: see docs/results.md for several."
    )


def _draw_panels(runs: dict[str, EmbeddedRuntime], output: Path) -> list[Path]:
    """Write a PNG an image, evenly spread over the validation set."""
    dataset = load_dataset(runs["teacher"].test_names[0])
    records = dataset.records[:: max(1, len(dataset.records) // PANELS)][:PANELS]
    chosen = Dataset(dataset.spec, records, dataset.label_map)
    titles = {"teacher": "teacher", "student": "student alone", "distilled": "distilled"}
    predictions = {titles[role]: _predict(setup, chosen) for role, setup in runs.items()}
    folder = output / "panels"
    paths = []
    for index, record in enumerate(records):
        panel = comparison_panel(
            read_image(record["file_name"]),
            read_labels(record["sem_seg_file_name"], dataset.label_map),
            {title: maps[index] for title, maps in predictions.items()},
            dataset.spec.colors,
            compare=("student alone", "distilled"),
            scale=2,
        )
        path = folder / f"{record['image_id']}.png"
        write_png(path, panel)
        paths.append(path)
    return paths


def _predict(setup: EmbeddedRuntime, dataset: Dataset) -> list[Any]:
    """Predicted classes [H, W] of each image."""
    model = load_for_evaluation(setup, setup.output / EXPORT).eval()
    settings, task = setup.evaluation_settings(), task_of(dataset)
    mapper = settings.loading.evaluation_mapper()
    with torch.no_grad():
        return [
            task.decode(predict(settings.inference, model, batch)[0])
            for batch in evaluation_batches(dataset.records, mapper)
        ]


if __name__ == "__main__":
    sys.exit(main())
