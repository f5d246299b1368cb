"""What leaves this package runs in plain Detectron2."""

from __future__ import annotations

import logging

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from afdcd.d2 import get_cfg
from afdcd.embedded.runtime import configure as configure_embedded
from afdcd.models import build_segmentor_from_config, load_weights

from helpers.d2_runs import train_detectron2


def test_exported_student_in_a_vanilla_model(configs, tmp_path, caplog):
    run = tmp_path / "run"
    train_detectron2(configs / "distilled.yaml", run)
    cfg = get_cfg()
    cfg.merge_from_file(str(configs / "student.yaml"))
    model = build_model(cfg).eval()
    assert type(model).__module__.startswith("detectron2.")
    caplog.clear()  # of what the run has said of its data
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(model).load(str(run / "student_final.pth"))
    assert not caplog.records  # a missing or unexpected key would be a warning

    ours = build_segmentor_from_config(configure_embedded(str(configs / "student.yaml"), [])).eval()
    load_weights(ours, run / "student_final.pth", part="model")
    image = torch.randint(0, 256, (3, 48, 64), generator=torch.Generator().manual_seed(0))
    inputs = [{"image": image.to(torch.uint8), "height": 48, "width": 64}]
    with torch.no_grad():
        a, b = model(inputs)[0]["sem_seg"], ours(inputs)[0]["sem_seg"]
    # The heads resize in another order of operations.
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert torch.equal(a.argmax(0), b.argmax(0))
