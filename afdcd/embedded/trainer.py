"""The embedded runtime's training loop: one process, one device."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import nn

from afdcd.data.stream import SampleStream
from afdcd.distill import Distiller
from afdcd.embedded.evaluation import evaluate
from afdcd.embedded.loader import training_batches
from afdcd.embedded.metrics import RunMetrics
from afdcd.engine.checkpoints import BEST, EXPORT, Checkpoints, student_of
from afdcd.engine.interrupt import Interrupted, InterruptFlag
from afdcd.engine.loss_log import mean_losses
from afdcd.engine.optimizer import build_optimizer, clip_distiller, set_lr
from afdcd.engine.precision import autocast
from afdcd.engine.recording import Recording, prepare_targets
from afdcd.engine.schedule import learning_rate
from afdcd.engine.settings import TrainingSettings
from afdcd.engine.state import TrainingState
from afdcd.engine.step_cost import describe_cost
from afdcd.engine.step_runner import StepRunner
from afdcd.tasks import Task

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a model, or a distiller, and keeps everything that a resume needs.

    Args:
        settings: of the run.
        model: on its device.
        train: the task on the training set.
        test: the task on each data set of the evaluations; the first decides which model is best.
        seed: of the samples' order and augmentation, and of dropout.
        recording: of the teacher, if it is recorded.

    Attributes:
        state: what a checkpoint holds; ``state.teacher_figures``, where set, are printed beside
            the student's scores.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: nn.Module,
        train: Task,
        test: list[Task],
        *,
        seed: int,
        recording: Recording | None = None,
    ) -> None:
        self.recording = recording
        self.settings, self.model, self.train_task, self.test_tasks = settings, model, train, test
        self.device = next(model.parameters()).device
        self.optimizer = build_optimizer(settings.optimizer, model)
        clip_distiller(self.optimizer, model, settings.clip_distiller)
        self.checkpoints = Checkpoints(settings.output.folder, kept=settings.output.kept)
        self.steps = StepRunner(
            settings,
            model,
            self.optimizer,
            seed=seed,
            device=self.device,
            last_checkpoint=self.checkpoints.last,
        )
        self.state = TrainingState(
            model, self.optimizer, self.steps.scaler, max_iter=settings.max_iter, seed=seed
        )

    # --- loop -------------------------------------------------------------------------------

    def train(self) -> dict[str, float]:
        """Train to the end.

        Returns:
            the first test set's figures at the end.

        Raises:
            NonFiniteLoss: with the iteration and the terms; nothing is saved then.
            Interrupted: on Ctrl-C or SIGTERM, after saving.
            DataError: a file can't be used.
        """
        last = self.settings.max_iter
        self.steps.seed, self.steps.seconds = self.state.seed, self.state.seconds
        self._prepare_targets()
        metrics = RunMetrics(
            self.checkpoints.folder, first=self.state.iteration, last=last, title="training"
        )
        figures: dict[str, float] = {}
        try:
            with InterruptFlag() as stop:
                if self.settings.missed_evaluation(self.state.iteration, self.state.evaluated):
                    figures = self._evaluate(metrics)
                    self._save(metrics)
                batches = self._batches()
                self.model.train()
                while self.state.iteration < last:
                    times = self._step(batches)
                    done = self.state.iteration
                    metrics.step(done - 1)
                    if times is not None:
                        self._note_cost(times, metrics)
                    if self.steps.logs_after(done):
                        metrics.training(done - 1, self._flush())
                    # Before the evaluation, which may fail.
                    stopped, saved = stop.raised, self.settings.saves_after(done)
                    if stopped or saved:
                        self._save(metrics)
                    if stopped and done < last:
                        raise Interrupted(
                            f"stopped after iteration {done}; its state is saved: go on with "
                            "--resume"
                        )
                    if self.settings.evaluates_after(done):
                        figures = self._evaluate(metrics)
                        if saved:
                            self._save(metrics)  # with the scores
        finally:
            metrics.close()
        return figures or self._score(self.test_tasks[0])

    def _save(self, metrics: RunMetrics) -> None:
        """A checkpoint; at the end of the training the student alone, too.

        The losses since the last line of the log get a line of their own, since a resumed run
        doesn't know them any more; and so no weights after a non-finite loss are saved.
        """
        if figures := self._flush():
            metrics.training(self.state.iteration - 1, figures)
        final = self.state.iteration == self.settings.max_iter
        self.checkpoints.save(self.state.content(), final=final)
        if final:
            self.checkpoints.save_weights(EXPORT, self.model)

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        loading = self.settings.loading
        return iter(
            training_batches(
                self._stream(),
                batch_size=self.settings.batch.images,
                first=self.state.iteration,
                last=self.settings.max_iter,
                workers=loading.workers,
                pin_memory=self.device.type == "cuda",
                echo=loading.echo,
            )
        )

    def _stream(self) -> SampleStream:
        task, views = self.train_task, self.recording.views if self.recording else None
        return self.settings.loading.stream(
            task.dataset.records, task.targets(), self.state.seed, views
        )

    def _prepare_targets(self) -> None:
        """Fit the teacher's components, or read those of its record."""
        if not isinstance(self.model, Distiller) or self.state.iteration >= self.settings.max_iter:
            return
        with autocast(self.settings.precision, self.device):
            seconds = prepare_targets(self.model, self.recording, self._stream(), self.device)
        self.steps.seconds += seconds

    def _step(self, batches: Iterator[list[dict[str, Any]]]) -> float | None:
        """One step; what it cost, where `StepRunner.run` says so."""
        set_lr(self.optimizer, learning_rate(self.settings.schedule, self.state.iteration))
        times = self.steps.run(batches, self.state.iteration)
        self.state.iteration += 1
        self.state.seconds = self.steps.seconds
        return times

    # --- figures ----------------------------------------------------------------------------

    def _note_cost(self, times: float, metrics: RunMetrics) -> None:
        self.state.times_student = times
        logger.info("%s", describe_cost(times))
        metrics.write(self.state.iteration - 1, {"times_student": times})

    def _flush(self) -> dict[str, float]:
        """Mean of each loss since the last flush, learning rate, and times.

        Raises:
            NonFiniteLoss: a loss wasn't finite.
        """
        steps, speed = self.steps.flush()
        self.state.seconds = self.steps.seconds
        if self.recording is not None:
            self.recording.note_seconds(self.steps.recording_seconds)
            self.state.recording_seconds = self.recording.seconds
        if not steps:
            return {}
        return {
            **mean_losses(steps),
            "lr": learning_rate(self.settings.schedule, self.state.iteration - 1),
            "seconds_per_step": self.state.seconds / self.state.iteration,
            **speed,
        }

    # --- evaluation -------------------------------------------------------------------------

    def _score(self, task: Task) -> dict[str, float]:
        return evaluate(self.settings.evaluation, student_of(self.model), task)

    def _evaluate(self, metrics: RunMetrics) -> dict[str, float]:
        """Score on every test set; keep the weights that are best on the first."""
        main = self.test_tasks[0]
        scores = {task.dataset.spec.name: self._score(task) for task in self.test_tasks}
        for task, (name, figures) in zip(self.test_tasks, scores.items(), strict=True):
            teacher = self.state.teacher_figures.get(main.METRIC) if task is main else None
            logger.info(
                "iteration %d: %s: %s%s; %.0f s of training",
                self.state.iteration,
                name,
                task.describe(figures),
                "" if teacher is None else f" (teacher {teacher:.2f})",
                self.state.seconds,
            )
            metrics.write(
                self.state.iteration - 1,
                {f"{name}/{figure}": value for figure, value in figures.items()},
            )
        figures = scores[main.dataset.spec.name]
        self.state.evaluated = self.state.iteration
        if main.better(figures[main.METRIC], than=self.state.best.get("value")):
            self.state.note_score(main.METRIC, figures[main.METRIC])
            self.checkpoints.save_weights(BEST, self.model)
        metrics.scored(
            main.METRIC,
            figures[main.METRIC],
            best=self.state.best.get("value"),
            teacher=self.state.teacher_figures.get(main.METRIC),
        )
        return figures
