"""Batches that can't be shared out or normalized are refused before training."""

from __future__ import annotations

import re

import pytest

from afdcd.config import embedded_config
from afdcd.engine.build import SettingsReader


@pytest.mark.parametrize(
    ("images", "parts", "echo", "norm", "processes", "message"),
    [
        (8, 3, 1, "BN", 1, "IMS_PER_BATCH 8 can't be shared out evenly to 3 parts"),
        (16, 2, 1, "BN", 3, r"evenly to 2 parts \(SOLVER.ACCUMULATE\) in 3 processes"),
        (8, 8, 1, "BN", 1, "at least 16, since ASPPHead normalizes.*in each part.*; got 8"),
        (2, 1, 1, "BN", 2, "at least 4, since ASPPHead"),
        (1, 1, 1, "BN", 1, "at least 2, since ASPPHead.*takes two images; got 1"),
        (8, 0, 1, "BN", 1, "ACCUMULATE must be at least 1; got 0"),
        (8, 1, 0, "BN", 1, "ECHO must be at least 1; got 0"),
        (8, 8, 1, "FrozenBN", 1, ""),
        (8, 4, 2, "BN", 1, ""),
        (8, 2, 1, "BN", 2, ""),
    ],
)
def test_batches_are_refused(images, parts, echo, norm, processes, message):
    cfg = embedded_config()
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE, cfg.DATALOADER.ECHO = images, parts, echo
    cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.SEM_SEG_HEAD.NORM = "ASPPHead", norm
    problems = SettingsReader(cfg).training_problems(processes=processes)
    assert len(problems) == bool(message)
    if message:
        assert re.search(message, problems[0]), problems


def test_synchronised_statistics_take_two_images_of_all_processes():
    cfg = embedded_config()
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.SEM_SEG_HEAD.NORM = "PSPHead", "BN"
    (problem,) = SettingsReader(cfg).batch_problems(processes=2)
    assert "IMS_PER_BATCH must be at least 4, since PSPHead" in problem
    assert SettingsReader(cfg).batch_problems(processes=2, synchronised=True) == []
