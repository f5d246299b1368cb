"""A subclass of `DistillTrainer` behaves as a subclass of `DefaultTrainer` does."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest
import torch
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.evaluation import SemSegEvaluator, verify_results

from afdcd.d2 import DistillTrainer, get_cfg
from afdcd.d2.loader import evaluation_loader, training_loader
from afdcd.data import load_dataset
from afdcd.tasks import task_of

from helpers.logs import undone_log_handlers

STEPS, PERIOD = 4, 2


class Backwards(HookBase):
    """Counts the calls of after_backward."""

    calls = 0

    def after_backward(self) -> None:
        self.calls += 1


class Remembers(HookBase):
    """Counts steps over resumes."""

    steps = 0

    def after_step(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]


def counting(base: type, calls: Counter) -> type:
    """A subclass that overrides everything there is, and counts the calls."""

    class Trainer(base):
        @classmethod
        def build_model(cls, cfg):
            calls["build_model"] += 1
            return super().build_model(cfg)

        @classmethod
        def build_optimizer(cls, cfg, model):
            calls["build_optimizer"] += 1
            return super().build_optimizer(cfg, model)

        @classmethod
        def build_lr_scheduler(cls, cfg, optimizer):
            calls["build_lr_scheduler"] += 1
            return super().build_lr_scheduler(cfg, optimizer)

        @classmethod
        def build_train_loader(cls, cfg):
            calls["build_train_loader"] += 1
            return training_loader(cfg, task_of(load_dataset("camvid_train")), seed=3, first=0)

        @classmethod
        def build_test_loader(cls, cfg, dataset_name):
            calls["build_test_loader"] += 1
            return evaluation_loader(cfg, dataset_name)

        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            calls["build_evaluator"] += 1
            return SemSegEvaluator(dataset_name)

        @classmethod
        def test(cls, cfg, model, evaluators=None):
            calls["test"] += 1
            return super().test(cfg, model, evaluators)

        def build_hooks(self):
            calls["build_hooks"] += 1
            return [*super().build_hooks(), Remembers()]

        def build_writers(self):
            calls["build_writers"] += 1
            return super().build_writers()

        def run_step(self):
            calls["run_step"] += 1
            super().run_step()

        def before_step(self):
            calls["before_step"] += 1
            super().before_step()

    return Trainer


@pytest.fixture
def config(configs, tmp_path, monkeypatch):
    monkeypatch.setattr(SemSegEvaluator, "encode_json_sem_seg", lambda *_: [])

    def make(name: str, file: str = "student", *words: str):
        cfg = get_cfg()
        cfg.merge_from_file(str(configs / f"{file}.yaml"))
        cfg.OUTPUT_DIR = str(tmp_path / name)
        cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
        cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD = STEPS, PERIOD
        cfg.SOLVER.CHECKPOINT_PERIOD = PERIOD
        cfg.merge_from_list(list(words))
        (tmp_path / name).mkdir(exist_ok=True)
        return cfg

    with undone_log_handlers():
        yield make


def test_every_override_is_called_as_often_as_by_default_trainer(config):
    found = {}
    for base in (DefaultTrainer, DistillTrainer):
        calls: Counter = Counter()
        trainer = counting(base, calls)(config(base.__name__))
        backwards = Backwards()
        trainer._trainer.register_hooks([backwards])
        trainer.resume_or_load(resume=False)
        trainer.train()
        calls["after_backward"] = backwards.calls
        found[base] = calls
    assert found[DefaultTrainer] == found[DistillTrainer]
    assert found[DistillTrainer]["test"] == 2 and found[DistillTrainer]["after_backward"] == STEPS


def test_the_distillers_trainer_too(config):
    calls: Counter = Counter()
    trainer = counting(DistillTrainer, calls)(config("distilled", "distilled"))
    backwards = Backwards()
    trainer._trainer.register_hooks([backwards])
    trainer.resume_or_load(resume=False)
    figures = trainer.train()
    assert backwards.calls == STEPS and calls["test"] == 2 and calls["build_train_loader"] == 1
    assert figures["camvid_val"]["sem_seg"]["mIoU"] >= 0


def test_hooks_states_are_kept(config):
    steps = {}
    for base in (DefaultTrainer, DistillTrainer):
        for last in (PERIOD, STEPS):
            cfg = config(f"hooks{base.__name__}", "student", "SOLVER.MAX_ITER", str(last))
            trainer = counting(base, Counter())(cfg)
            trainer.resume_or_load(resume=last == STEPS)
            assert trainer.start_iter == (PERIOD if last == STEPS else 0)
            trainer.train()
        (hook,) = [h for h in trainer._hooks if isinstance(h, Remembers)]
        steps[base] = hook.steps
    # The hook comes after the one that saves, so that its second step wasn't kept, in either.
    assert steps == {DefaultTrainer: STEPS - 1, DistillTrainer: STEPS - 1}


def test_the_checkpointer_saves_the_student_alone(config, tmp_path):
    trainer = DistillTrainer(config("named", "distilled"))
    trainer.register_hooks(
        [hooks.BestCheckpointer(PERIOD, trainer.checkpointer, "camvid_val/sem_seg/mIoU")]
    )
    trainer.resume_or_load(resume=False)
    trainer.train()
    trainer.checkpointer.save("mine")
    content = torch.load(tmp_path / "named/mine.pth", weights_only=True)["model"]
    assert content.keys() == trainer.state.model.student.state_dict().keys()
    # The run's own is what it goes on from.
    assert (tmp_path / "named/last_checkpoint").read_text() == "model_final.pth"


@pytest.mark.parametrize("base", [DefaultTrainer, DistillTrainer])
def test_expected_results(config, base: type):
    cfg = config(f"expected{base.__name__}")
    cfg.TEST.EXPECTED_RESULTS = [["sem_seg", "mIoU", 200.0, 1.0]]
    trainer = counting(base, Counter())(cfg)
    trainer.resume_or_load(resume=False)
    with pytest.raises(SystemExit):
        trainer.train()


def test_test_returns_what_default_trainers_does(config):
    cfg = config("test")
    model = DistillTrainer.build_model(cfg)
    found = DistillTrainer.test(cfg, model)
    assert set(found) == {"sem_seg"} and verify_results(cfg, found)
    evaluators = [SemSegEvaluator("camvid_val")]
    again = DistillTrainer.test(cfg, model, evaluators=evaluators)
    assert again["sem_seg"]["mIoU"] == pytest.approx(found["sem_seg"]["mIoU"])
    with pytest.raises(ValueError, match="take as many evaluators; got 2"):
        DistillTrainer.test(cfg, model, evaluators=evaluators * 2)


def test_nothing_keeps_the_model_once_the_trainer_is_gone(config):
    """Left to the interpreter's end, it would end processes that communicate with an abort."""
    gc.collect()
    gc.disable()
    try:
        trainer = DistillTrainer(config("gone", "distilled"))
        model = weakref.ref(trainer.state.model)
        del trainer
        assert model() is None
    finally:
        gc.enable()
