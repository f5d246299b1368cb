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
from afdcd.embedded.checkpoints import BEST, EXPORT, Checkpoints, cpu_state, student_of
from afdcd.embedded.errors import Interrupted, NonFiniteLoss
from afdcd.embedded.evaluate import describe, evaluate
from afdcd.embedded.interrupt import InterruptFlag
from afdcd.embedded.loader import training_batches
from afdcd.embedded.metrics import RunMetrics
from afdcd.embedded.precision import autocast, gradient_scaler
from afdcd.seeds import stream_seed
from afdcd.solver import build_optimizer, learning_rate, set_lr

logger = logging.getLogger(__name__)

LOG_PERIOD = 20
# Tells dropout's stream from the others of a run's seed.
DROPOUT = 2


class Trainer:
    """Trains a model, or a distiller, and keeps everything that a resume needs.

    Args:
        cfg: the config.
        model: on its device.
        train: the training set.
        test: the data sets of the evaluations; the first one decides which model is best.
        seed: of the samples' order and augmentation, and of dropout.
        teacher_figures: of the teacher on the first test set, to print beside the student's.
    """

    def __init__(
        self,
        cfg: Any,
        model: nn.Module,
        train: Dataset,
        test: list[Dataset],
        *,
        seed: int,
        teacher_figures: dict[str, float] | None = None,
    ) -> None:
        self.cfg, self.model, self.train_set, self.test_sets = cfg, model, train, test
        self.seed = seed
        self.device = next(model.parameters()).device
        self.optimizer = build_optimizer(cfg, model)
        self.scaler = gradient_scaler(cfg, self.device)
        self.checkpoints = Checkpoints(Path(cfg.OUTPUT_DIR), kept=cfg.SOLVER.CHECKPOINTS_KEPT)
        self.iteration = 0  # the next one to do
        self.seconds = 0.0  # of training, evaluations and checkpoints aside
        self.best = {"miou": -1.0, "iteration": -1}
        self.teacher_figures = teacher_figures or {}
        self._pending: list[tuple[int, list[str], torch.Tensor]] = []

    # --- state ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that the next iteration depends on. ``iteration`` is the last one done."""
        content: dict[str, Any] = {
            "model": cpu_state(student_of(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "iteration": self.iteration - 1,
            "schedule": {"max_iter": self.cfg.SOLVER.MAX_ITER, "base_lr": self.cfg.SOLVER.BASE_LR},
            "random": {"seed": self.seed},
            "progress": {
                "seconds": self.seconds,
                "best": dict(self.best),
                "teacher": self.teacher_figures,
            },
        }
        if isinstance(self.model, Distiller):
            content["distiller"] = self.model.distiller.state_dict()
        return content

    def load_state(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint's content.

        Raises:
            RuntimeError, KeyError, ValueError: it is of another model or optimizer.
        """
        student_of(self.model).load_state_dict(content["model"])
        if isinstance(self.model, Distiller):
            self.model.distiller.load_state_dict(content["distiller"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.iteration = content["iteration"] + 1
        self.seed = content["random"]["seed"]
        progress = content["progress"]
        self.seconds, self.best = progress["seconds"], dict(progress["best"])
        self.teacher_figures = progress["teacher"]

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
            self.checkpoints.folder, first=self.iteration, last=last, title="training"
        )
        figures: dict[str, float] = {}
        try:
            with InterruptFlag() as stop:
                batches = self._batches()
                self.model.train()
                while self.iteration < last:
                    self._timed_step(batches)
                    done = self.iteration
                    metrics.step(done - 1)
                    if done % LOG_PERIOD == 0 or done == last:
                        metrics.training(done - 1, self._flush())
                    if done == last or _due(self.cfg.TEST.EVAL_PERIOD, done):
                        figures = self._evaluate(metrics)
                    if done == last or stop.raised or _due(solver.CHECKPOINT_PERIOD, done):
                        self._flush()  # no weights after a non-finite loss are saved
                        self.checkpoints.save(self.state(), final=done == last)
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
                seed=self.seed,
                first=self.iteration,
                last=self.cfg.SOLVER.MAX_ITER,
                workers=self.cfg.DATALOADER.NUM_WORKERS,
                pin_memory=self.device.type == "cuda",
            )
        )

    def _timed_step(self, batches: Iterator[list[dict[str, Any]]]) -> None:
        start = time.perf_counter()
        self._step(next(batches))
        self.iteration += 1
        self.seconds += time.perf_counter() - start

    def _step(self, batch: list[dict[str, Any]]) -> None:
        set_lr(self.optimizer, learning_rate(self.cfg, self.iteration))
        torch.manual_seed(stream_seed(self.seed, DROPOUT, 0, self.iteration))
        with autocast(self.cfg, self.device):
            losses = self.model(batch)
        total = torch.stack([value.float() for value in losses.values()]).sum()
        self._note(losses, total)
        self.optimizer.zero_grad()
        self.scaler.scale(total).backward()
        clip = self.cfg.MODEL.DISTILLER.CLIP_GRADIENTS
        if isinstance(self.model, Distiller) and clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.distiller.parameters(), clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    # --- losses -----------------------------------------------------------------------------

    def _note(self, losses: dict[str, torch.Tensor], total: torch.Tensor) -> None:
        """Keep the losses on the device: reading them would make a GPU wait every step."""
        values = torch.stack([v.detach().float() for v in (*losses.values(), total)])
        self._pending.append((self.iteration, [*losses, "total_loss"], values))
        if self.device.type == "cpu":
            self._check_finite()

    def _check_finite(self) -> None:
        for iteration, names, values in self._pending:
            if not torch.isfinite(values).all():
                terms = ", ".join(
                    f"{name} = {value:g}"
                    for name, value in zip(names, values.tolist(), strict=True)
                )
                bad = [
                    name
                    for name, value in zip(names, values, strict=True)
                    if not torch.isfinite(value) and name != "total_loss"
                ]
                last = self.checkpoints.last()
                raise NonFiniteLoss(
                    f"{', '.join(bad) or 'total_loss'} is not finite at iteration {iteration} "
                    f"({terms}). Lower SOLVER.BASE_LR or that term's weight, or add "
                    "SOLVER.WARMUP_ITERS"
                    + (f"; {last} is from before" if last else "; no checkpoint was saved yet")
                )

    def _flush(self) -> dict[str, float]:
        """Mean of each loss since the last flush, learning rate and seconds a step."""
        if not self._pending:
            return {}
        if self.device.type == "cuda":
            stacked = torch.stack([values for _, _, values in self._pending]).cpu()
            self._pending = [
                (i, names, values)
                for (i, names, _), values in zip(self._pending, stacked, strict=True)
            ]
        self._check_finite()
        names = self._pending[-1][1]
        mean = torch.stack([values for _, _, values in self._pending]).mean(0)
        self._pending.clear()
        return {
            **dict(zip(names, mean.tolist(), strict=True)),
            "lr": learning_rate(self.cfg, self.iteration - 1),
            "seconds_per_step": self.seconds / self.iteration,
        }

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
            if dataset is self.test_sets[0] and self.teacher_figures:
                beside = f" (teacher {self.teacher_figures['mIoU']:.2f})"
            logger.info(
                "iteration %d: %s: %s%s; %.0f s of training",
                self.iteration,
                dataset.spec.name,
                describe(figures),
                beside,
                self.seconds,
            )
            metrics.write(
                self.iteration - 1,
                {f"{dataset.spec.name}/{name}": value for name, value in figures.items()},
            )
        figures = scores[self.test_sets[0].spec.name]
        if figures["mIoU"] > self.best["miou"]:
            self.best = {"miou": figures["mIoU"], "iteration": self.iteration - 1}
            self.checkpoints.save_weights(BEST, self.model)
        return figures


def _due(period: int, done: int) -> bool:
    return period > 0 and done % period == 0
