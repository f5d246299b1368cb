"""Hooks of the trainer."""

from __future__ import annotations

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


class EvaluateAndSave(HookBase):
    """Evaluates, then saves, so that a checkpoint knows the scores of its iteration.

    At the ends of the periods and of the training, and when told to stop (Ctrl-C, SIGTERM).
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self._stop = InterruptFlag()

    def before_train(self) -> None:
        self._stop.__enter__()

    def after_train(self) -> None:
        self._stop.__exit__(None, None, None)

    def after_step(self) -> None:
        trainer = self.trainer
        done, last = trainer.iter + 1, trainer.max_iter
        stop = self._told_to_stop(done)
        if self.settings.evaluates_after(done):
            figures = trainer.evaluate_student()
            flat = flatten_results_dict(figures)
            trainer.storage.put_scalars(
                **{name: float(value) for name, value in flat.items()}, smoothing_hint=False
            )
        if stop or self.settings.saves_after(done):
            trainer.save(final=done == last)
        comm.synchronize()
        if stop and done < last:
            raise Interrupted(
                f"stopped after iteration {done}; its state is saved: go on with --resume"
            )

    def _told_to_stop(self, done: int) -> bool:
        if comm.get_world_size() == 1:
            return self._stop.raised
        return done % STOP_PERIOD == 0 and any(comm.all_gather(self._stop.raised))
