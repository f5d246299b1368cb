"""Tests against the real Detectron2; without it they are left out, loudly."""

from __future__ import annotations

import importlib.util
import logging

import pytest

MISSING = importlib.util.find_spec("detectron2") is None
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_terminal_summary(terminalreporter) -> None:
    if MISSING:
        terminalreporter.write_line(
            "SKIPPED: tests/d2, since this Python has no Detectron2", yellow=True, bold=True
        )


@pytest.fixture(autouse=True)
def own_log_handlers():
    """Undo what Detectron2 sets up for logging in a test.

    Each output folder adds a handler, to a stream that pytest closes after the test.
    """
    loggers = [logging.getLogger(name) for name in ("afdcd", "detectron2", "fvcore")]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, handlers, propagate in before:
        for handler in [h for h in logger.handlers if h not in handlers]:
            logger.removeHandler(handler)
        logger.propagate = propagate
    if not MISSING:
        from detectron2.utils.logger import setup_logger

        setup_logger.cache_clear()
