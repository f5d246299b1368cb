"""Finished runs as networks that can be looked into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from afdcd.distill import FeatureTaps
from afdcd.distill.objectives import Objectives
from afdcd.embedded.checks import choose_device
from afdcd.engine.averaged_teacher import evaluated_teacher
from afdcd.engine.checkpoints import EXPORT, FINAL
from afdcd.engine.precision import autocast
from afdcd.engine.results import CONFIG_COPY
from afdcd.engine.runtime import Runtime
from afdcd.engine.settings import EvaluationSettings
from afdcd.evaluation import predict
from afdcd.models.weights import is_address, read_checkpoint
from afdcd.tasks import Task, task_of
from afdcd.utils.problems import SetupError

TEACHER, ALONE, DISTILLED = "teacher", "student alone", "distilled"


@dataclass(frozen=True)
class Network:
    """A trained network, as it is evaluated.

    Attributes:
        model: predicts, on its device; of an averaged teacher all of it.
        settings: of its evaluation.
        tapped: the network whose maps are looked at: ``model``, or the first of several.
    """

    model: nn.Module
    settings: EvaluationSettings
    tapped: nn.Module

    def see(
        self, record: dict[str, Any], paths: Sequence[str] = ()
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor], tuple[int, int]]:
        """What it makes of an image.

        Returns:
            its output, its maps [1, C, h, w] by path, in float32, and the height and width that it
            saw the image at.

        Raises:
            TapError: there is no such module.
        """
        batch = [self.settings.loading.evaluation_mapper()(record)]
        device = next(self.model.parameters()).device
        maps: dict[str, torch.Tensor] = {}
        with torch.no_grad(), autocast(self.settings.precision, device):
            if paths:
                with FeatureTaps(self.tapped, paths) as taps:
                    outputs = self.tapped(batch)
                maps = {path: taps[path].float() for path in paths}
            if not (paths and self.tapped is self.model and self.settings.inference.plain):
                outputs = predict(self.settings.inference, self.model, batch)
        height, width = batch[0]["image"].shape[-2:]
        return outputs[0], maps, (height, width)


@dataclass(frozen=True)
class Subject:
    """What an analysis compares.

    Attributes:
        networks: by title: `TEACHER`, `ALONE` (where there is one) and `DISTILLED`.
        objectives: the distilled run's losses, with their layers as trained.
        trained: whether these layers were found; else their values mean nothing.
        task: on the data set to look at.
        folders: of the runs, by title.
    """

    networks: dict[str, Network]
    objectives: Objectives
    trained: bool
    task: Task
    folders: dict[str, str]


def open_run(folder: Path, runtime: type[Runtime], *, teacher_weights: str = "") -> Runtime:
    """The config of a finished run, by its folder.

    Args:
        folder: ``OUTPUT_DIR`` of a training, wherever it lies now.
        runtime: to read it with.
        teacher_weights: where the teacher's weights are now; empty for where the config says.

    Raises:
        SetupError, ConfigError: it isn't a run's folder, or its config can't be read.
    """
    path = folder / CONFIG_COPY
    if not path.is_file():
        raise SetupError(
            [f"{folder} holds no {CONFIG_COPY}: name a run's folder (OUTPUT_DIR of a training)"]
        )
    run = runtime.configure(str(path), [])
    run.cfg.OUTPUT_DIR = str(folder)
    if teacher_weights:
        run.cfg.MODEL.DISTILLER.TEACHER.WEIGHTS = teacher_weights
    if not run.own_mapper:
        raise SetupError([f"{path}: INPUT.MAPPER must be scale_crop; got {run.cfg.INPUT.MAPPER}"])
    return run


def student_network(run: Runtime) -> Network:
    """The network that a run trained.

    Raises:
        SetupError, CheckpointError, ValueError: its weights are gone, or don't fit.
    """
    exported = run.output / EXPORT
    path = str(exported) if exported.is_file() else run.result_weights.path
    if not path:
        raise SetupError([f"{run.output} holds no {EXPORT}: has the training come to its end?"])
    model = run.build()
    run.load(model, path, complete=True)
    model.to(choose_device(run.device, None)).eval()
    return Network(model, run.evaluation_settings(), model)


def teacher_network(run: Runtime) -> Network:
    """The teacher of a run that distils, live or recorded.

    Raises:
        SetupError: its weights are gone.
        ConfigError, CheckpointError, ValueError: its config is gone, or its weights don't fit.
    """
    sides = run.all_teachers()
    for path in [path for side in sides for path in side.weight_files]:
        if not is_address(path) and not Path(path).is_file():
            raise SetupError(
                [
                    f"the teacher of {run.output} can't be looked at: its weights "
                    f"{path or '(none named)'} are gone. Put them back, or say where they "
                    "are: --teacher-weights FILE"
                ]
            )
    device = choose_device(run.device, None)
    models = [side.build_teacher().to(device).eval() for side in sides]
    settings, model = evaluated_teacher(run, sides, models)
    return Network(model, settings, models[0])


def is_teacher_of(run: Runtime, distilled: Runtime) -> bool:
    """Whether a run trained another one's teacher."""
    weights = distilled.cfg.MODEL.DISTILLER.TEACHER.WEIGHTS
    return bool(weights) and Path(weights).resolve().parent == run.output.resolve()


def subject_of(runs: Sequence[Runtime]) -> Subject:
    """The first run that distils, its teacher, and the student alone.

    The student alone is the first run without a teacher, on the same test set, that isn't the
    teacher itself.

    Raises:
        SetupError: no run distils.
        ConfigError, CheckpointError, ValueError: see `student_network` and `teacher_network`.
    """
    distilled = next((run for run in runs if run.distils), None)
    if distilled is None:
        tried = ", ".join(str(run.output) for run in runs)
        raise SetupError([f"none of {tried} distils: name a run with a teacher, too"])
    alone = [
        run
        for run in runs
        if not run.distils
        and run.test_names == distilled.test_names
        and not is_teacher_of(run, distilled)
    ]
    networks = {TEACHER: teacher_network(distilled)}
    folders = {TEACHER: distilled.teacher().weights, DISTILLED: str(distilled.output)}
    if alone:
        networks[ALONE] = student_network(alone[0])
        folders[ALONE] = str(alone[0].output)
    networks[DISTILLED] = student_network(distilled)
    objectives = distilled.pair(
        distilled.build(), distilled.teacher(), networks[TEACHER].tapped
    ).distiller
    path = distilled.output / FINAL
    content = read_checkpoint(path) if path.is_file() else {}
    trained = "distiller" in content
    if trained:
        objectives.load_state_dict(content["distiller"])
    task = task_of(distilled.find_dataset(distilled.test_names[0]))
    device = next(networks[DISTILLED].model.parameters()).device
    return Subject(networks, objectives.to(device).eval(), trained, task, folders)
