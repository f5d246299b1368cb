"""What Detectron2 does to logging, undone."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undone_log_handlers() -> Iterator[None]:
    """Undo what Detectron2, where it is installed, sets up for logging in a test.

    Each output folder adds a handler, to a stream that pytest closes after the test.
    """
    loggers = [logging.getLogger(name) for name in ("afdcd", "detectron2", "fvcore")]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, handlers, propagate in before:
        for handler in [h for h in logger.handlers if h not in handlers]:
            logger.removeHandler(handler)
        logger.propagate = propagate
    if importlib.util.find_spec("detectron2") is not None:
        from detectron2.utils.logger import setup_logger

        setup_logger.cache_clear()
