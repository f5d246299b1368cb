"""What stops a run during training."""

from __future__ import annotations


class NonFiniteLoss(ArithmeticError):
    """A loss became infinite or NaN."""
