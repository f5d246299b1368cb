"""Hooks of the trainer."""

from __future__ import annotations

import math

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from afdcd.engine.interrupt import Interrupted, InterruptFlag
from afdcd.engine.optimizer import set_lr
from afdcd.engine.schedule import learning_rate
from afdcd.engine.settings import ScheduleSettings, TrainingSettings

# Processes ask each other every so often whether one of them was told to stop.
STOP_PERIOD = 10


class PolynomialLR(HookBase):
    """Sets the published learning rate before each step."""

    def __init__(self, schedule: ScheduleSettings) -> None:
        self.schedule = schedule

    def before_step(self) -> None:
        set_lr(self.trainer.optimizer, learning_rate(self.schedule, self.trainer.iter))

    def after_step(self) -> None:
        lr = learning_rate(self.schedule, self.trainer.iter)
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)


class SaveAndEvaluate(HookBase):
    """Saves, evaluates, and saves again with the scores: a failing evaluation costs no weights.

    At the ends of the periods and of the training, and when told to stop (Ctrl-C, SIGTERM).
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self._stop = InterruptFlag()

    def before_train(self) -> None:
        self._stop.__enter__()
        state = self.trainer.state
        if self.settings.missed_evaluation(state.iteration, state.evaluated):
            self._evaluate()
            self.trainer.save()

    def after_train(self) -> None:
        self._stop.__exit__(None, None, None)

    def after_step(self) -> None:
        trainer = self.trainer
        done, last = trainer.iter + 1, trainer.max_iter
        stop, save = self._told_to_stop(done), self.settings.saves_after(done)
        if stop or save:
            trainer.save()
        comm.synchronize()
        if stop and done < last:
            raise Interrupted(
                f"stopped after iteration {done}; its state is saved: go on with --resume"
            )
        if self.settings.evaluates_after(done):
            self._evaluate()
            if save:
                trainer.save()

    def _evaluate(self) -> None:
        flat = flatten_results_dict(self.trainer.evaluate_student())
        self.trainer.storage.put_scalars(
            # Classes that never occur have no score, and NaN is no JSON.
            **{name: float(value) for name, value in flat.items() if not math.isnan(value)},
            smoothing_hint=False,
        )

    def _told_to_stop(self, done: int) -> bool:
        if comm.get_world_size() == 1:
            return self._stop.raised
        return done % STOP_PERIOD == 0 and any(comm.all_gather(self._stop.raised))
