"""Bars: on a terminal alone, with the scores, and not where nobody wants them."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from afdcd.cli.train_net import main
from afdcd.embedded.metrics import RunMetrics
from afdcd.utils.progress import counted, progress, silence


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def look(monkeypatch) -> Terminal:
    """A terminal in the place of standard error; not a fixture, which pytest would undo."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_bars_are_for_terminals(monkeypatch):
    terminal = look(monkeypatch)
    assert list(progress(iter("ab"), "checking x", total=2)) == ["a", "b"]
    assert "checking x:" in terminal.getvalue() and "0/2" in terminal.getvalue()
    quiet = io.StringIO()
    monkeypatch.setattr(sys, "stderr", quiet)
    assert list(progress([1], "checking x")) == [1]
    assert quiet.getvalue() == ""


def test_without_a_terminal_the_log_says_how_far_it_is(monkeypatch, caplog):
    """Once a minute, the time that is left at the rate so far."""
    clock = iter([0.0, 30.0, 70.0, 100.0, 131.0])
    monkeypatch.setattr("afdcd.utils.progress.time.monotonic", lambda: next(clock))
    caplog.set_level(logging.INFO)
    assert list(progress(range(4), "recording")) == [0, 1, 2, 3]
    assert caplog.messages == ["recording: 2 of 4, 0:01:10 left", "recording: 4 of 4, 0:00:00 left"]


def test_one_process_of_several_speaks(monkeypatch, caplog):
    monkeypatch.setattr("afdcd.utils.progress.PERIOD", 0.0)
    caplog.set_level(logging.INFO)
    for place in (0, 1):
        with counted("recording", None, place=place) as done:
            done()
    assert caplog.messages == ["recording: 1 done"]


def test_silence(monkeypatch):
    terminal = look(monkeypatch)
    silence()
    try:
        assert list(progress([1], "checking x")) == [1]
    finally:
        silence(False)
    assert terminal.getvalue() == ""


def test_training_bar_has_scores_and_losses(monkeypatch, tmp_path):
    look(monkeypatch)
    metrics = RunMetrics(tmp_path, first=0, last=10, title="training")
    metrics.step(0)
    metrics.training(0, {"loss_sem_seg": 1.5, "total_loss": 2.5, "lr": 0.1, "data_time": 0.1})
    metrics.scored("mIoU", 39.8, best=40.12, teacher=None)
    metrics.step(1)
    assert metrics._bar is not None
    said = str(metrics._bar)
    metrics.close()
    assert "mIoU 39.8 (best 40.12)  sem_seg 1.5  total_loss 2.5" in said and "2/10" in said
    assert "lr" not in said and "data_time" not in said


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet(configs, tmp_path, monkeypatch, caplog, capsys, quiet: bool):
    """The same run; with --quiet there are no bars, and no messages but warnings."""
    caplog.set_level(logging.INFO)
    terminal = look(monkeypatch)
    words = ["--config-file", str(configs / "distilled.yaml"), "--runtime", "embedded"]
    words += ["--quiet"] * quiet
    assert main([*words, "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(tmp_path / "run")]) == 0
    bars = ["evaluating", "checking camvid_train", "training"]
    assert [bar for bar in bars if bar in terminal.getvalue()] == ([] if quiet else bars)
    assert capsys.readouterr().out == ""
    levels = {record.levelno for record in caplog.records}
    assert (logging.INFO in levels) == (not quiet)
    assert logging.getLogger().level == logging.INFO  # as before
