"""The first signal asks a run to stop, the second one stops it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from afdcd.engine.interrupt import InterruptFlag


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_a_flag_then_an_exception(number: signal.Signals):
    before = signal.getsignal(number)
    with InterruptFlag() as flag:
        assert not flag.raised
        os.kill(os.getpid(), number)
        assert flag.raised
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_in_another_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with InterruptFlag() as flag:
            seen.append((flag.raised, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
