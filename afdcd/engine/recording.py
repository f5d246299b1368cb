"""The recorded teacher of a run: how much is there, and its components."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from afdcd.config import differing
from afdcd.data.build import loading_settings
from afdcd.data.spec import Record
from afdcd.data.stream import RecordedViews, SampleStream
from afdcd.data.view_store import ViewStore
from afdcd.data.views import ViewPlan, spread_views
from afdcd.distill import Distiller, distiller_settings
from afdcd.distill.plan import target_shape
from afdcd.distill.record import SecondsLog
from afdcd.engine.record_manifest import (
    KEY,
    MANIFEST,
    read_manifest,
    record_contents,
    refuse_differences,
    spare_targets,
    versions,
)
from afdcd.engine.runtime import Runtime
from afdcd.engine.step import to_device
from afdcd.engine.steps_in_use import StepsInUse
from afdcd.losses.registry import TapShape
from afdcd.utils.files import write_atomically, write_json
from afdcd.utils.folders import folder_problems
from afdcd.utils.problems import SetupError, raise_problems
from afdcd.utils.progress import byte_count
from afdcd.utils.sample_keys import UNLABELED

logger = logging.getLogger(__name__)

COMPONENTS, FIGURES = "components.safetensors", "teacher.json"
# Views that components are fitted to.
FIT_VIEWS = 64
# Showing a view more often than this is remarked on: docs/results.md has what 8 times cost.
OFTEN = 4


@dataclass
class Recording:
    """A run's record.

    Attributes:
        folder: ``MODEL.DISTILLER.TEACHER.RECORD.FOLDER``.
        plan: its views.
        contents: everything that what is stored depends on, by name.
        images: numbers of the training images that are compared with the teacher.
        shapes: of the teacher's taps for a training image, by path; empty until the teacher has
            run once.
        missing: views of the plan that aren't recorded, when it was opened.
        used: the samples that need a view; all by default.
    """

    folder: Path
    plan: ViewPlan
    contents: dict[str, Any]
    images: range
    shapes: dict[str, TapShape] = field(default_factory=dict)
    missing: int = 0
    used: StepsInUse | None = None
    _fitting: float = 0.0

    def __post_init__(self) -> None:
        self._log = SecondsLog(self.folder)

    @property
    def store(self) -> ViewStore:
        """Where views are."""
        return ViewStore(self.folder / "views")

    @property
    def views(self) -> RecordedViews:
        """What a stream of samples reads."""
        return RecordedViews(self.plan, self.store, self.used)

    @property
    def complete(self) -> bool:
        """Whether the run can do without its teacher."""
        return self.missing == 0 and bool(self.shapes) and (self.folder / COMPONENTS).is_file()

    @property
    def total(self) -> int:
        """Views of the plan."""
        return len(self.images) * self.plan.count

    def missing_views(self) -> list[tuple[int, int]]:
        """(image, view) of those that aren't recorded; first every image's first view."""
        there = set(self.store.there())
        return [
            (image, view)
            for view in range(self.plan.count)
            for image in self.images
            if (image, view) not in there
        ]

    def teacher_figures(self, data_set: str) -> dict[str, float]:
        """The recorded teacher's scores on a data set; empty where they aren't known."""
        try:
            content = json.loads((self.folder / FIGURES).read_text(encoding="utf-8"))
            return {str(name): float(value) for name, value in content[data_set].items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return {}

    def note_teacher_figures(self, data_set: str, figures: Mapping[str, float]) -> None:
        """Keep the teacher's scores for runs that don't load it."""
        write_json(self.folder / FIGURES, {data_set: dict(figures)})

    def note_seconds(self, seconds: float) -> None:
        """Say how many seconds this process has spent on recording so far."""
        self._log.note(self._fitting + seconds)

    @property
    def seconds(self) -> float:
        """All that the record took so far, in all processes together."""
        return self._log.total()

    # --- before the first step --------------------------------------------------------------

    def bind(self, distiller: Distiller, stream: SampleStream, device: torch.device) -> None:
        """Bring a distiller and the record together, before the first step.

        The record's components become the distiller's; where it has none yet, they are fitted (or
        those of the checkpoint taken), and stored with the manifest.

        Args:
            distiller: of the run.
            stream: of the training samples.
            device: of the teacher.

        Raises:
            SetupError: the record's components aren't those that the run was trained with, the
                disk has no room, or the folder can't be written.
        """
        path = self.folder / COMPONENTS
        fresh = {target.name for target in distiller.distiller.unfitted()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Fitting takes all processes; the first to be done mustn't keep the others from it.
            if _in_any_process(not path.is_file()):
                if not path.is_file() and next(self.store.there(), None) is not None:
                    raise SetupError(
                        [
                            f"{self.folder} holds views, but no {COMPONENTS}: delete it, or name "
                            f"another folder ({KEY}.FOLDER)"
                        ]
                    )
                start = time.perf_counter()
                fit(distiller, stream, device)
                self._fitting = time.perf_counter() - start
                _write_once(path, save(_components(distiller)))
            self._take_components(distiller, path, fresh)
            if not self.shapes:
                self.shapes = dict(distiller.teacher_shapes)
                _write_once(self.folder / MANIFEST, self._manifest())
                # Another process may have been the first.
                refuse_differences(self.folder, self.contents, read_manifest(self.folder))
        except OSError as error:
            raise SetupError([f"{KEY}.FOLDER {self.folder}: {error.strerror or error}"]) from error
        self._say(distiller)

    def bytes_per_view(self, distiller: Distiller) -> int:
        """Of the tensors of a view of the training size."""
        assert distiller.record is not None
        total = 0
        for target in distiller.distiller.targets:
            shape = target_shape(self.shapes[target.path], target)
            encoding = distiller.record.encoding
            total += encoding.bytes_of(target, shape.channels, shape.height, shape.width)
        return total

    def _say(self, distiller: Distiller) -> None:
        each = self.bytes_per_view(distiller)
        free = shutil.disk_usage(self.folder).free
        logger.info(
            "Recorded teacher in %s: %d of %d views (%d of each of %d images), %s each%s",
            self.folder,
            self.total - self.missing,
            self.total,
            self.plan.count,
            len(self.images),
            byte_count(each),
            "" if distiller.has_teacher else "; the teacher isn't loaded",
        )
        shown = self.used.echo * self.used.samples / self.total if self.used and self.total else 0.0
        if shown > OFTEN:
            logger.warning(
                "Each recorded view will be shown about %.1f times. Students learn a few views by "
                "heart, which can cost more than the teacher gives: take more VIEWS, or use the "
                "losses in each second step alone (SCHEDULE: {EVERY: 2}), between which images are "
                "augmented anew (docs/recording.md)",
                shown,
            )
        if each * self.missing > free:
            raise SetupError(
                [
                    f"{KEY}.FOLDER {self.folder}: the {self.missing} missing views take about "
                    f"{byte_count(each * self.missing)}, but the disk has {byte_count(free)}: "
                    "make room, take fewer VIEWS or DIMS, DTYPE int8, or, for logits, TOP_CLASSES "
                    "or LOGITS_STRIDE (docs/recording.md)"
                ]
            )

    def _take_components(self, distiller: Distiller, path: Path, fresh: Container[str]) -> None:
        """Read the components, which another process may have written.

        Args:
            distiller: changed.
            path: of the file.
            fresh: names of the targets that no checkpoint had components of.
        """
        objectives = distiller.distiller
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise SetupError([f"{path} can't be read ({error}): delete {self.folder}"]) from error
        for target in objectives.targets:
            if not target.dims:
                continue
            module = objectives.components_of(target)
            for name, buffer in module.named_buffers():
                value = stored.get(f"{target.name}.{name}")
                if value is None or value.shape != buffer.shape:
                    raise SetupError([f"{path} holds no components of {target.name}: delete it"])
                if target.name not in fresh and not torch.equal(value, buffer.cpu()):
                    raise SetupError(
                        [
                            f"the run was trained with other components of {target.name} than "
                            f"those in {self.folder}: name its own record ({KEY}.FOLDER), or an "
                            "empty folder, or start a new run"
                        ]
                    )
                buffer.copy_(value)

    def _manifest(self) -> bytes:
        shapes = {path: list(shape) for path, shape in self.shapes.items()}
        content = {**self.contents, "shapes": shapes, "versions": versions()}
        return json.dumps(content).encode()


def _write_once(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content), keep=True)


def _in_any_process(condition: bool) -> bool:
    """Whether something holds in one of the processes that train together, or in this one alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return condition
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, condition)
    return any(found)


def fit(distiller: Distiller, stream: SampleStream, device: torch.device) -> None:
    """Fit a distiller's components that aren't known, to views of the training images, and say so.

    Args:
        distiller: of the run.
        stream: of the training samples.
        device: of the teacher.
    """
    if not distiller.distiller.unfitted():
        return
    plan = stream.views.plan if stream.views else ViewPlan(stream.seed, 1)
    chosen = spread_views(len(stream.records), FIT_VIEWS)
    samples = (stream.view(plan, image, view) for image, view in chosen)
    # Files that can't be used are named where they are trained on.
    batches = ([to_device(sample, device)] for sample in samples if "error" not in sample)
    for name, kept in distiller.fit_components(batches).items():
        logger.info("Components of the teacher's %s keep %.1f %% of the variance", name, 100 * kept)


def prepare_targets(
    distiller: Distiller, recording: Recording | None, stream: SampleStream, device: torch.device
) -> float:
    """All that stands between a distiller's weights being loaded and its first step.

    To be called in the precision of the steps, by all processes.

    Args:
        distiller: on its device.
        recording: of the run's teacher, if there is one.
        stream: of the training samples.
        device: of the distiller.

    Returns:
        seconds of it that are a part of the training's: where nothing is recorded.

    Raises:
        SetupError: see `Recording.bind`.
    """
    start = time.perf_counter()
    if recording is not None:
        recording.bind(distiller, stream, device)
        return 0.0
    fit(distiller, stream, device)
    return time.perf_counter() - start


def open_recording(run: Runtime, records: Sequence[Record]) -> Recording | None:
    """The record that a config names, if it names one.

    Args:
        run: of the student.
        records: of all training images, in the order that the stream has them in.

    Raises:
        SetupError: the folder can't be made; its record is of something else (names what differs);
            or it has other targets beside those of this run, and isn't complete.
    """
    if not run.distils:
        return None
    settings = distiller_settings(run.cfg)
    record = settings.teacher.record
    if not record.folder:
        return None
    alone = settings.unlabeled_only
    labeled = sum(not image.get(UNLABELED) for image in records)
    recording = Recording(
        Path(record.folder),
        ViewPlan(record.seed, record.views),
        record_contents(run, records),
        range(labeled if alone else 0, len(records)),
        used=StepsInUse(
            tuple(loss.schedule for loss in settings.losses),
            run.cfg.SOLVER.MAX_ITER,
            run.cfg.SOLVER.IMS_PER_BATCH,
            run.cfg.DATALOADER.ECHO,
            loading_settings(run.cfg).mix if alone else None,
        ),
    )
    found = read_manifest(recording.folder)
    if not found:
        raise_problems(_new_folder_problems(recording.folder))
    else:
        refuse_differences(recording.folder, recording.contents, found, spare=True)
        recording.shapes = {path: TapShape(*shape) for path, shape in found["shapes"].items()}
        if changed := differing(found.get("versions", {}), versions()):
            words = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in changed.items())
            logger.warning(
                "%s was recorded with other versions (%s): what is recorded from now on may be "
                "rounded otherwise",
                recording.folder,
                words,
            )
    recording.missing = len(recording.missing_views())
    if recording.missing and (spare := spare_targets(recording.contents, found)):
        raise SetupError(
            [
                f"{KEY}.FOLDER {recording.folder} holds {', '.join(spare)} too, of which this run "
                f"would record nothing, and {recording.missing} of its {recording.total} views are "
                "missing: complete it by tools/record_teacher.py with the config that it was begun "
                "with, or name another folder"
            ]
        )
    return recording


def _new_folder_problems(folder: Path) -> list[str]:
    """What keeps a record from being begun in a folder."""
    if folder.is_dir():
        # Another process may be beginning it right now.
        own = (MANIFEST, COMPONENTS, FIGURES, "seconds", "views")
        other = [path.name for path in folder.iterdir() if path.name not in own]
        if named := sorted(name for name in other if not name.startswith(".")):
            return [
                f"{KEY}.FOLDER {folder} holds {named[0]}, and no record: name an empty folder, or "
                "a new one"
            ]
    return folder_problems(folder, f"{KEY}.FOLDER")


def _components(distiller: Distiller) -> dict[str, torch.Tensor]:
    objectives = distiller.distiller
    return {
        f"{target.name}.{name}": buffer.cpu()
        for target in objectives.targets
        if target.dims
        for name, buffer in objectives.components_of(target).named_buffers()
    }
