"""The table and the file of an evaluation."""

from __future__ import annotations

import json

import numpy as np

from afdcd.evaluation import SegmentationEvaluator
from afdcd.evaluation.scores import class_table, write_evaluation

LABELS = np.array([[0, 0, 1, 255]], np.uint8)


def evaluator(prediction: list[int]) -> SegmentationEvaluator:
    import torch

    scores = SegmentationEvaluator(["a", "b", "c"], lambda record: LABELS)
    logits = torch.nn.functional.one_hot(torch.tensor([prediction]), 3).permute(2, 0, 1)
    scores.process([{}], [{"sem_seg": logits}])
    return scores


def test_table_worked_by_hand():
    """Class a: 1 right of a union of 2; b: 1 of 2; c never occurs."""
    lines = class_table(evaluator([0, 1, 1, 2]).evaluate()).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert rows["a"][0] == "50.00" and rows["a"][2] == "50.00"
    assert rows["b"][0] == "50.00" and rows["b"][2] == "100.00"
    assert rows["c"] == ["-", "-", "-"]
    assert rows["mean"][0] == "50.00" and rows["mean"][2] == "75.00"


def test_file_has_nulls_for_what_does_not_exist(tmp_path):
    figures = {"data": {"sem_seg": evaluator([0, 1, 1, 2]).evaluate()}}
    path = write_evaluation(tmp_path / "new", "x.pth", figures)
    content = json.loads(path.read_text())
    assert content["weights"] == "x.pth"
    assert content["figures"]["data"]["sem_seg"]["mIoU"] == 50
    assert content["figures"]["data"]["sem_seg"]["IoU-c"] is None
