"""Optimizer and learning rate as a config describes them, for both runtimes."""

from afdcd.solver.optimizer import build_optimizer, set_lr
from afdcd.solver.schedule import learning_rate

__all__ = ["build_optimizer", "learning_rate", "set_lr"]
