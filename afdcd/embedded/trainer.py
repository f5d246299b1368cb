"""The embedded runtime's training loop: one process, one device."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from afdcd.data import Dataset
from afdcd.data.from_config import training_mapper
from afdcd.distill import Distiller
from afdcd.embedded.evaluation import describe, evaluate
from afdcd.embedded.loader import training_batches
from afdcd.embedded.metrics import RunMetrics
from afdcd.engine.checkpoints import BEST, EXPORT, Checkpoints, student_of
from afdcd.engine.interrupt import Interrupted, InterruptFlag
from afdcd.engine.loss_log import LossLog, mean_losses
from afdcd.engine.optimizer import build_optimizer, set_lr
from afdcd.engine.precision import autocast, gradient_scaler
from afdcd.engine.schedule import learning_rate
from afdcd.engine.state import TrainingState
from afdcd.engine.step import accumulate
from afdcd.engine.throughput import Throughput
from afdcd.utils.seeds import DROPOUT, stream_seed

logger = logging.getLogger(__name__)

LOG_PERIOD = 20


class Trainer:
    """Trains a model, or a distiller, and keeps everything that a resume needs.

    Args:
        cfg: the config.
        model: on its device.
        train: the training set.
        test: the data sets of the evaluations; the first one decides which model is best.
        seed: of the samples' order and augmentation, and of dropout.

    Attributes:
        state: what a checkpoint holds; ``state.teacher_figures``, where set, are printed beside
            the student's scores.
    """

    def __init__(
        self,
        cfg: Any,
        model: nn.Module,
        train: Dataset,
        test: list[Dataset],
        *,
        seed: int,
    ) -> None:
        self.cfg, self.model, self.train_set, self.test_sets = cfg, model, train, test
        self.device = next(model.parameters()).device
        self.optimizer = build_optimizer(cfg, model)
        self.scaler = gradient_scaler(cfg, self.device)
        self.checkpoints = Checkpoints(Path(cfg.OUTPUT_DIR), kept=cfg.SOLVER.CHECKPOINTS_KEPT)
        self.state = TrainingState(
            model, self.optimizer, self.scaler, max_iter=cfg.SOLVER.MAX_ITER, seed=seed
        )
        self._losses = LossLog(self.checkpoints.last)
        self._window = Throughput()

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
        last, solver = self.cfg.SOLVER.MAX_ITER, self.cfg.SOLVER
        metrics = RunMetrics(
            self.checkpoints.folder, first=self.state.iteration, last=last, title="training"
        )
        figures: dict[str, float] = {}
        try:
            with InterruptFlag() as stop:
                batches = self._batches()
                self.model.train()
                while self.state.iteration < last:
                    self._timed_step(batches)
                    done = self.state.iteration
                    metrics.step(done - 1)
                    if done % LOG_PERIOD == 0 or done == last:
                        metrics.training(done - 1, self._flush())
                    if done == last or _due(self.cfg.TEST.EVAL_PERIOD, done):
                        figures = self._evaluate(metrics)
                    if done == last or stop.raised or _due(solver.CHECKPOINT_PERIOD, done):
                        self._flush()  # no weights after a non-finite loss are saved
                        self.checkpoints.save(self.state.content(), final=done == last)
                    if stop.raised and done < last:
                        raise Interrupted(
                            f"stopped after iteration {done}; its state is saved: go on with "
                            "--resume"
                        )
        finally:
            metrics.close()
        self.checkpoints.save_weights(EXPORT, self.model)
        return figures or self._scores()

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        return iter(
            training_batches(
                self.train_set.records,
                training_mapper(self.cfg, self.train_set.label_map),
                batch_size=self.cfg.SOLVER.IMS_PER_BATCH,
                seed=self.state.seed,
                first=self.state.iteration,
                last=self.cfg.SOLVER.MAX_ITER,
                workers=self.cfg.DATALOADER.NUM_WORKERS,
                pin_memory=self.device.type == "cuda",
                echo=self.cfg.DATALOADER.ECHO,
            )
        )

    def _timed_step(self, batches: Iterator[list[dict[str, Any]]]) -> None:
        start = time.perf_counter()
        batch = next(batches)
        loaded = time.perf_counter()
        self._step(batch)
        self.state.iteration += 1
        end = time.perf_counter()
        self.state.seconds += end - start
        self._window.add(steps=1, waited=loaded - start, seconds=end - start)

    def _step(self, batch: list[dict[str, Any]]) -> None:
        set_lr(self.optimizer, learning_rate(self.cfg, self.state.iteration))
        torch.manual_seed(stream_seed(self.state.seed, DROPOUT, 0, self.state.iteration))
        self.optimizer.zero_grad()
        losses = accumulate(
            self.model,
            batch,
            parts=self.cfg.SOLVER.ACCUMULATE,
            precision=lambda: autocast(self.cfg, self.device),
            scaler=self.scaler,
            device=self.device,
        )
        self._losses.note(self.state.iteration, losses)
        clip = self.cfg.MODEL.DISTILLER.CLIP_GRADIENTS
        if isinstance(self.model, Distiller) and clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.distiller.parameters(), clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    # --- figures ----------------------------------------------------------------------------

    def _flush(self) -> dict[str, float]:
        """Mean of each loss since the last flush, learning rate, and times.

        Raises:
            NonFiniteLoss: a loss wasn't finite.
        """
        start = time.perf_counter()
        steps = self._losses.read()  # waits for a GPU: a part of the training's time
        self._window.add(seconds=time.perf_counter() - start)
        self.state.seconds += time.perf_counter() - start
        if not steps:
            return {}
        figures = {
            **mean_losses(steps),
            "lr": learning_rate(self.cfg, self.state.iteration - 1),
            "seconds_per_step": self.state.seconds / self.state.iteration,
            **self._window.figures(self.cfg.SOLVER.IMS_PER_BATCH),
        }
        self._window = Throughput()
        return figures

    # --- evaluation -------------------------------------------------------------------------

    def _scores(self) -> dict[str, float]:
        return evaluate(self.cfg, student_of(self.model), self.test_sets[0])

    def _evaluate(self, metrics: RunMetrics) -> dict[str, float]:
        """Score on every test set; keep the weights that are best on the first."""
        scores = {}
        for dataset in self.test_sets:
            figures = evaluate(self.cfg, student_of(self.model), dataset)
            scores[dataset.spec.name] = figures
            beside = ""
            if dataset is self.test_sets[0] and self.state.teacher_figures:
                beside = f" (teacher {self.state.teacher_figures['mIoU']:.2f})"
            logger.info(
                "iteration %d: %s: %s%s; %.0f s of training",
                self.state.iteration,
                dataset.spec.name,
                describe(figures),
                beside,
                self.state.seconds,
            )
            metrics.write(
                self.state.iteration - 1,
                {f"{dataset.spec.name}/{name}": value for name, value in figures.items()},
            )
        figures = scores[self.test_sets[0].spec.name]
        if figures["mIoU"] > self.state.best["miou"]:
            self.state.best = {"miou": figures["mIoU"], "iteration": self.state.iteration - 1}
            self.checkpoints.save_weights(BEST, self.model)
        return figures


def _due(period: int, done: int) -> bool:
    return period > 0 and done % period == 0
