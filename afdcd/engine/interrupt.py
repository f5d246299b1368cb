"""Stopping between two iterations when asked to."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """A run was asked to stop and has saved its state. Like KeyboardInterrupt, no error."""


class InterruptFlag:
    """Turns the first SIGINT (Ctrl-C) or SIGTERM into a flag; a second one stops at once.

    A context manager. Outside the main thread, where Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.raised = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptFlag:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True
