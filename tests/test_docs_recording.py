"""What docs/recording.md says of the size of records is what the configs take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from afdcd.distill import distiller_settings, training_size
from afdcd.distill.encoding import Encoding
from afdcd.distill.targets import Target
from afdcd.embedded.runtime import configure

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "Cityscapes": "cityscapes",
    "Pascal VOC": "voc",
    "ADE20K": "ade20k",
    "COCO-Stuff": "coco_stuff",
    "CamVid": "camvid",
}
RES5, LOGITS = "backbone.res5", Target("sem_seg_head.predictor")


def rows() -> dict[str, list[str]]:
    text = (ROOT / "docs/recording.md").read_text()
    found = re.findall(r"^\| ([\w -]+), \d+x\d+ \|(.*)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found}


@pytest.mark.parametrize("title", FOLDERS)
def test_bytes_of_a_view(title: str):
    cfg = configure(str(ROOT / "configs" / FOLDERS[title] / "recorded_deeplabv3_r18.yaml"), [])
    settings = distiller_settings(cfg)
    assert [loss.dims for loss in settings.losses] == [0, 256]
    assert settings.teacher.record.folder == f"output/{FOLDERS[title]}/record"
    height, width = (-(-side // 8) for side in training_size(cfg))
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    full, top = Encoding("int8"), Encoding("int8", top_classes=8)
    sizes = [full.bytes_of(Target(RES5, dims), dims, height, width) for dims in (64, 128, 256)]
    sizes += [each.bytes_of(LOGITS, classes, height, width) for each in (full, top)]
    written = rows()[title]
    assert written[0] == f"{height}x{width}"
    assert written[1:] == [f"{size / 2**20:.2f}" for size in sizes]
