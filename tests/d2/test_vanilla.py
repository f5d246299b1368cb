"""What leaves this package runs in plain Detectron2."""

from __future__ import annotations

import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from afdcd.d2 import get_cfg
from afdcd.distill import Distiller
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


def stock_model(config, *words) -> tuple:
    """As Detectron2's plain_train_net.py makes it, with `get_cfg` alone swapped."""
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    cfg.merge_from_list(list(words))
    return cfg, build_model(cfg)


def test_a_students_weights_reach_the_distillers_student(configs, tmp_path, caplog, monkeypatch):
    run = tmp_path / "run"
    train_detectron2(configs / "distilled.yaml", run)
    monkeypatch.chdir(tmp_path)  # the teacher's file is found beside the config
    _, model = stock_model(configs / "distilled.yaml", "SOLVER.MAX_ITER", 5)
    assert isinstance(model, Distiller)
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(model).load(str(run / "student_final.pth"))
    content = torch.load(run / "student_final.pth", weights_only=True)["model"]
    loaded = model.student.state_dict()
    assert loaded.keys() == content.keys()
    assert all(torch.equal(loaded[name], value) for name, value in content.items())

    # What stock scripts write goes on in them, and its names are the distiller's.
    DetectionCheckpointer(model, str(tmp_path)).save("stock")
    saved = torch.load(tmp_path / "stock.pth", weights_only=True)["model"]
    assert {name.partition(".")[0] for name in saved} == {"student", "distiller"}
    _, again = stock_model(configs / "distilled.yaml")
    DetectionCheckpointer(again).load(str(tmp_path / "stock.pth"))
    assert all(torch.equal(value, saved[name]) for name, value in again.state_dict().items())


def test_a_checkpoint_of_which_nothing_fits_is_refused(configs, tmp_path):
    _, model = stock_model(configs / "distilled.yaml")
    torch.save({"model": {"conv1.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"nothing of these 1 entries, such as conv1\.weight"):
        DetectionCheckpointer(model).load(str(tmp_path / "other.pth"))
