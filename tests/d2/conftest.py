"""Tests against the real Detectron2; without it they are left out, loudly."""

from __future__ import annotations

import importlib.util

import pytest

from helpers.logs import undone_log_handlers

MISSING = importlib.util.find_spec("detectron2") is None
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_terminal_summary(terminalreporter) -> None:
    if MISSING:
        terminalreporter.write_line(
            "SKIPPED: tests/d2, since this Python has no Detectron2", yellow=True, bold=True
        )


@pytest.fixture(autouse=True)
def own_log_handlers():
    """Detectron2's handlers end with the test."""
    with undone_log_handlers():
        yield
