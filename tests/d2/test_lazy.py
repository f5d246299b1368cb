"""The Python config of a distillation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import SimpleTrainer, hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.utils.events import EventStorage

from afdcd.config import ConfigError, ConfigKeyError
from afdcd.d2.config import configure
from afdcd.d2.shapes import register_shapes
from afdcd.distill import Distiller
from afdcd.losses import AfDCDLoss

from helpers.shapes_runs import CONFIGS


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """The config, its networks and images made small; no weights are fetched."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_shapes()
    cfg = LazyConfig.load(str(CONFIGS / "lazy/afdcd_panoptic_fpn_r18.py"))
    cfg.model.student_weights = cfg.model.teacher_weights = ""
    cfg.model.image_size = [96, 96]
    afdcd = cfg.model.settings.DISTILLER.LOSSES.afdcd
    afdcd.POOL = 0
    afdcd.TAPS = afdcd.TAPS[:2]
    afdcd.WEIGHT = [0.5, 1.0]
    for side in (cfg.model.student, cfg.model.teacher):
        side.roi_heads.num_classes = 2
        side.sem_seg_head.num_classes = 3
        side.backbone.bottom_up.freeze_at = 0
        side.proposal_generator.pre_nms_topk = (100, 50)
        side.proposal_generator.post_nms_topk = (50, 20)
        side.roi_heads.batch_size_per_image = 16
    cfg.model.teacher.backbone.bottom_up.stages.depth = 50  # cheaper than 101
    train = cfg.dataloader.train
    train.dataset.names = "shapes_train_panoptic_separated"
    train.mapper.augmentations[0].short_edge_length = [96]
    train.total_batch_size, train.num_workers = 2, 0
    test = cfg.dataloader.test
    test.dataset.names, test.num_workers = "shapes_val_panoptic_separated", 0
    test.mapper.augmentations[0].short_edge_length = 96
    return cfg


def stock(cfg, output, last: int, *, resume: bool = False) -> tuple[Any, dict]:
    """What Detectron2's lazyconfig_train_net.py does: train, save every iteration, evaluate.

    Returns:
        the trainer, and the scores.
    """
    torch.manual_seed(1)
    output.mkdir(exist_ok=True)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), instantiate(cfg.optimizer))
    checkpointer = DetectionCheckpointer(model, str(output), trainer=trainer)
    trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, period=1)])
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    first = trainer.iter + 1 if resume and checkpointer.has_checkpoint() else 0
    model.train()
    trainer.train(first, last)
    loader = instantiate(cfg.dataloader.test)
    scores = inference_on_dataset(model.eval(), loader, instantiate(cfg.dataloader.evaluator))
    return trainer, scores


def test_a_step(cfg):
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    assert isinstance(model, Distiller) and not any("teacher" in n for n in model.state_dict())
    assert model._teacher.flip_channels
    cfg.optimizer.params.model = model
    cfg.optimizer.lr = 1e-4
    optimizer = instantiate(cfg.optimizer)
    theirs = {id(p) for p in model.teacher.parameters()}
    assert not theirs & {id(p) for group in optimizer.param_groups for p in group["params"]}
    weight = model.student.backbone.fpn_output4.weight
    before = weight.detach().clone()
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    model.train()
    with EventStorage(0) as storage:
        trainer.storage, trainer.iter = storage, 0
        trainer.run_step()
        terms = {name: value for name, (value, _) in storage.latest().items() if "loss" in name}
    for name in ("logit_kd", "reconstruction_fpn_output4", "contrast_fpn_output3"):
        assert terms[f"loss_{name}"] > 0, terms
    assert all(math.isfinite(value) for value in terms.values()), terms
    # Means over channels and positions. Their values have no bound: the untrained teacher's
    # normalizations, which are frozen, let its activations grow to thousands.
    losses = [m for m in model.distiller.modules() if isinstance(m, AfDCDLoss)]
    assert len(losses) == 2 and all(loss.settings.reduction == "mean" for loss in losses)
    assert not torch.equal(weight, before)


def test_trains_evaluates_and_resumes_in_a_stock_script(cfg, tmp_path):
    cfg.optimizer.lr = 1e-4
    cfg.model.student.roi_heads.num_classes = cfg.model.teacher.roi_heads.num_classes = 2
    trainer, scores = stock(cfg, tmp_path / "run", 2)
    assert set(scores) == {"bbox", "segm", "sem_seg", "panoptic_seg"}
    assert {"PQ", "PQ_th", "PQ_st"} <= set(scores["panoptic_seg"])
    content = torch.load(tmp_path / "run/model_0000001.pth", weights_only=False)
    assert content["iteration"] == 1
    assert not any("teacher" in name for name in content["model"])
    again, _ = stock(cfg, tmp_path / "run", 3, resume=True)
    assert again.start_iter == 2 and again.iter == 3
    # The distillation's own state came back, too: it has done three steps, not one.
    assert again.model.distiller.get_extra_state()["steps"] == 3
    assert trainer.model.distiller.get_extra_state()["steps"] == 2


def test_the_same_distillation_as_the_yaml_config():
    lazy = LazyConfig.load(str(CONFIGS / "lazy/afdcd_panoptic_fpn_r18.py"))
    cfg = configure(str(CONFIGS / "coco/afdcd_panoptic_fpn_r18.yaml"), [])
    yaml_model, settings = cfg.MODEL, lazy.model.settings

    def compare(node, content) -> None:
        for key, value in content.items():
            if hasattr(value, "items"):
                compare(node[key], value)
            else:
                assert node[key] == value, key

    compare(yaml_model, settings)
    assert lazy.model.teacher_weights == yaml_model.DISTILLER.TEACHER.WEIGHTS
    assert lazy.model.student_weights == yaml_model.WEIGHTS
    assert lazy.model.student.pixel_std == yaml_model.PIXEL_STD
    assert lazy.model.student_format == cfg.INPUT.FORMAT


def test_a_misspelt_setting(cfg):
    cfg.model.settings.DISTILLER.LOSSES.afdcd.CONTRASTS_WEIGHT = 1.0
    with pytest.raises(ValueError, match=r"afdcd\.CONTRASTS_WEIGHT; did you mean CONTRAST_WEIGHT"):
        instantiate(cfg.model)
    del cfg.model.settings.DISTILLER.LOSSES.afdcd.CONTRASTS_WEIGHT
    cfg.model.settings.DISTILLER.LOSS = {}
    with pytest.raises(ConfigKeyError, match=r"no key MODEL\.DISTILLER\.LOSS; did you mean"):
        instantiate(cfg.model)


def test_settings_that_take_another_trainer(cfg):
    cfg.model.settings.DISTILLER.TEACHER = {"RECORD": {"FOLDER": "record"}}
    with pytest.raises(ConfigError, match="RECORD takes the loader"):
        instantiate(cfg.model)
    cfg.model.settings.DISTILLER.TEACHER = {"MATCH_CLASSES": True}
    with pytest.raises(ConfigError, match="are of YAML configs"):
        instantiate(cfg.model)


def test_a_schedule_takes_the_length(cfg):
    cfg.model.settings.DISTILLER.LOSSES.afdcd.SCHEDULE = {"END": 0.5}
    with pytest.raises(ValueError, match="number of the run's steps"):
        instantiate(cfg.model)
    cfg.model.max_iter = 10
    model = instantiate(cfg.model)
    assert [o.schedule.end for o in model.distiller.objectives] == [1.0, 0.5, 0.5]
