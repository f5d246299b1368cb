"""Detectron2's trainer for plain models and distillers."""

from __future__ import annotations

import logging
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultTrainer, TrainerBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.modeling import build_model
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from torch import nn

from afdcd.checks.unlabeled import describe_training_images
from afdcd.checks.weights import class_differences
from afdcd.d2.datasets import find_dataset
from afdcd.d2.evaluation import build_evaluator, evaluate
from afdcd.d2.hooks import PolynomialLR, SaveAndEvaluate
from afdcd.d2.loader import (
    detectron2_training_loader,
    evaluation_loader,
    training_loader,
)
from afdcd.d2.runtime import Detectron2Runtime
from afdcd.d2.scores import main_alone, main_score
from afdcd.d2.step_trainer import StepTrainer
from afdcd.d2.teacher_scores import teacher_scores
from afdcd.d2.weights import load_model_weights
from afdcd.data.stream import RecordedViews
from afdcd.distill import Distiller
from afdcd.engine.build import SettingsReader
from afdcd.engine.checkpoints import BEST, EXPORT, Checkpoints, student_of
from afdcd.engine.optimizer import build_optimizer, clip_distiller
from afdcd.engine.precision import autocast
from afdcd.engine.recording import Recording, prepare_targets
from afdcd.engine.state import TrainingState
from afdcd.engine.step_runner import LOG_PERIOD, StepRunner
from afdcd.models.adapters.timm_backbone import synchronised
from afdcd.models.weights import CheckpointError
from afdcd.tasks import task_of
from afdcd.utils.files import drop_later_lines
from afdcd.utils.memory_format import format_module

logger = logging.getLogger(__name__)


class StudentCheckpointer(DetectionCheckpointer):
    """Detectron2's, of the student alone; what it saves isn't what ``--resume`` goes on from."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Nothing: ``last_checkpoint`` names the run's own."""


class DistillTrainer(DefaultTrainer):
    """`DefaultTrainer` for the configs of this package.

    Differs from it where an exact resume, a checkpoint whose ``model`` is the student alone, and
    the published optimizer ask for it: the order of samples, their augmentation and dropout are
    functions of seed and iteration; checkpoints are those of the embedded runtime, written whole or
    not at all; the distillation modules' gradients alone are clipped.

    Args:
        cfg: a config of `afdcd.d2.get_cfg`.

    A subclass may override what it may of `DefaultTrainer`: docs/detectron2.md says what differs.

    Attributes:
        state: what a checkpoint holds.
        checkpointer: for hooks and scripts that save the student's weights under a name of their
            own; the run's own checkpoints are in ``checkpoints``.
    """

    def __init__(self, cfg: Any) -> None:
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.cfg.SEED = seed
        self.cfg.freeze()
        self.settings = settings = SettingsReader(self.cfg).training(
            processes=comm.get_world_size(),
            synchronised=cfg.MODEL.SYNC_BN and torch.device(cfg.MODEL.DEVICE).type == "cuda",
        )
        self.max_iter = settings.max_iter
        torch.manual_seed(seed)
        model = self.build_model(self.cfg)
        self.recording: Recording | None = getattr(model, "recording", None)
        self.checkpoints = Checkpoints(settings.output.folder, kept=settings.output.kept)
        optimizer = self.build_optimizer(self.cfg, model)
        steps = StepRunner(
            settings,
            self._distribute(model),
            optimizer,
            seed=seed,
            device=torch.device(cfg.MODEL.DEVICE),
            rank=comm.get_rank(),
            last_checkpoint=self.checkpoints.last,
        )
        self._trainer = self.step_trainer = StepTrainer(steps, None)
        # Weakly, as Detectron2's hooks know their trainer: a circle would keep the model, and with
        # it the communication of several processes, until the interpreter ends.
        steps.after_backward = partial(StepTrainer.after_backward, weakref.proxy(self.step_trainer))
        self.checkpointer = StudentCheckpointer(student_of(model), str(settings.output.folder))
        self.state = TrainingState(
            model, optimizer, steps.scaler, max_iter=self.max_iter, seed=seed
        )
        self.start_iter = 0
        self.figures: dict[str, Any] = {}
        self._writing = False
        self.scheduler = self.build_lr_scheduler(self.cfg, optimizer)
        self.register_hooks(self.build_hooks())

    # --- parts ------------------------------------------------------------------------------

    @classmethod
    def build_model(cls, cfg: Any) -> nn.Module:
        """The plain model or the distiller, on its device."""
        model = build_model(cfg)
        if cfg.INPUT.MAPPER == "scale_crop":
            task_of(find_dataset((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)[0])).bind(
                student_of(model)
            )
        if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
            # As a distiller's student: the baseline gets what makes a step faster too.
            format_module(model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
        """SGD as in the embedded runtime; each step clips the distillation modules.

        After Detectron2's own clipping of everything (``SOLVER.CLIP_GRADIENTS``), where it is on.
        """
        plain = build_optimizer(SettingsReader(cfg).optimizer(), model)
        optimizer = maybe_add_gradient_clipping(cfg, plain)
        clip_distiller(optimizer, model, cfg.MODEL.DISTILLER.CLIP_GRADIENTS)
        return optimizer

    @classmethod
    def build_lr_scheduler(cls, cfg: Any, optimizer: Any) -> Any:
        """None for ``WarmupPolyLR``, which `PolynomialLR` sets; else Detectron2's."""
        if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupPolyLR":
            return None
        return super().build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        """Training batches from the first one on: see `_training_loader`."""
        return cls._training_loader(cfg, seed=max(cfg.SEED, 0), first=0)

    @classmethod
    def _training_loader(
        cls, cfg: Any, *, seed: int, first: int, views: RecordedViews | None = None
    ) -> Any:
        """Training batches from iteration ``first`` on, in an order that a resume repeats."""
        if cfg.INPUT.MAPPER != "scale_crop":
            return detectron2_training_loader(cfg, seed=seed, first=first, views=views)
        task = task_of(Detectron2Runtime(cfg).training_dataset())
        logger.info("%s", describe_training_images(task.dataset.records))
        return training_loader(cfg, task, seed=seed, first=first, views=views)

    @classmethod
    def build_test_loader(cls, cfg: Any, dataset_name: str) -> Any:
        """Whole images of a data set, in batches of one."""
        return evaluation_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> DatasetEvaluator:
        """By the data set's task."""
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: Any, model: nn.Module, evaluators: Any = None) -> Any:
        """Score a model, or a distiller's student, on ``DATASETS.TEST``.

        Args:
            cfg: the config.
            model: not wrapped.
            evaluators: one for each data set, or one alone; by default `build_evaluator`'s.

        Returns:
            as `DefaultTrainer.test`: figures by task; of several data sets, by data set and task.
        """
        names = list(cfg.DATASETS.TEST)
        if evaluators is not None:
            given = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
            if len(given) != len(names):
                raise ValueError(
                    f"{len(names)} data sets take as many evaluators; got {len(given)}"
                )

        def evaluator_of(cfg: Any, name: str) -> DatasetEvaluator:
            if evaluators is not None:
                return given[names.index(name)]
            return cls.build_evaluator(cfg, name)

        figures = evaluate(
            cfg, student_of(model), loader_of=cls.build_test_loader, evaluator_of=evaluator_of
        )
        return figures if len(names) > 1 else figures[names[0]]

    def _scores(self) -> dict[str, Any]:
        """What `test` says of the student, by data set and task."""
        found = self.test(self.cfg, student_of(self.state.model)) or {}
        names = self.cfg.DATASETS.TEST
        return dict(found) if len(names) > 1 else {names[0]: dict(found)}

    def build_hooks(self) -> list[Any]:
        """Timing, learning rate, evaluation with checkpoints, writers."""
        found: list[Any] = [hooks.IterationTimer()]
        found.append(
            PolynomialLR(self.settings.schedule) if self.scheduler is None else hooks.LRScheduler()
        )
        found.append(SaveAndEvaluate(self.settings))
        return found

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's; what a crash left behind of iterations to come is dropped first."""
        folder = Path(self.cfg.OUTPUT_DIR)
        drop_later_lines(folder / "metrics.json", self.start_iter)
        return [
            CommonMetricPrinter(self.max_iter),
            JSONWriter(str(folder / "metrics.json")),
            TensorboardXWriter(str(folder), purge_step=self.start_iter),
        ]

    def _distribute(self, model: nn.Module) -> nn.Module:
        if comm.get_world_size() == 1:
            return model
        on_gpu = torch.device(self.cfg.MODEL.DEVICE).type == "cuda"
        student = student_of(model)
        if self.cfg.MODEL.SYNC_BN and on_gpu:
            converted = synchronised(student)
            if isinstance(model, Distiller):
                model.student = converted
            else:
                model = converted
        elif self.cfg.MODEL.SYNC_BN:
            logger.warning("BatchNorm is not synchronised: PyTorch does that on GPUs only")
        return create_ddp_model(
            model,
            broadcast_buffers=False,
            device_ids=[comm.get_local_rank()] if on_gpu else None,
        )

    # --- running ----------------------------------------------------------------------------

    def resume_or_load(self, resume: bool = True, *, content: dict[str, Any] | None = None) -> None:
        """Go on from the last checkpoint, or load ``MODEL.WEIGHTS``.

        Args:
            resume: whether to go on from the last checkpoint, where there is one.
            content: of the checkpoint to go on from, where it is read already; ``resume`` doesn't
                matter then.

        Raises:
            CheckpointError: the checkpoint can't be read or is of another model.
        """
        if content is None and resume and self.checkpoints.last() is not None:
            content = self.checkpoints.read_last()
        if content is not None:
            try:
                self.state.load(content)
                self._load_hooks(content.get("hooks", {}))
                if self.scheduler is not None:
                    self.scheduler.load_state_dict(content["scheduler"])
            except (RuntimeError, KeyError, ValueError) as error:
                raise CheckpointError(
                    f"{self.checkpoints.last()} is of another model than this config describes: "
                    f"{str(error)[:500]}"
                ) from error
            self.start_iter = self.state.iteration
            logger.info("Resuming at iteration %d of %d", self.start_iter, self.max_iter)
        elif self.cfg.MODEL.WEIGHTS:
            load_model_weights(student_of(self.state.model), self.cfg.MODEL.WEIGHTS, complete=False)

    def train(self) -> dict[str, Any]:
        """Train to the end.

        Returns:
            figures by data set and task, on the main process.

        Raises:
            NonFiniteLoss: with the iteration and the terms; nothing is saved then.
            Interrupted: on Ctrl-C or SIGTERM, after saving.
            DataError: a file can't be used.
        """
        if self.start_iter == 0 and isinstance(self.state.model, Distiller):
            self._score_teacher()
        seed, first = self.state.seed, self.start_iter
        self._prepare_targets()
        self.step_trainer.steps.seed = seed
        kinds = type(self).__mro__
        subclasses = kinds[: kinds.index(DistillTrainer)]
        if any("build_train_loader" in vars(kind) for kind in subclasses):
            loader = self.build_train_loader(self.cfg)
            if first:
                logger.warning("The loader is a subclass's: its order starts anew")
        else:
            views = self.recording.views if self.recording else None
            loader = self._training_loader(self.cfg, seed=seed, first=first, views=views)
        self.step_trainer.data_loader = loader
        self.step_trainer.steps.seconds = self.state.seconds
        self.step_trainer.times_student = self.state.times_student
        if comm.is_main_process() and not self._writing:
            self.register_hooks([hooks.PeriodicWriter(self.build_writers(), period=LOG_PERIOD)])
        self._writing = True
        TrainerBase.train(self, self.start_iter, self.max_iter)
        if not self.figures:  # a finished run was resumed
            self.figures = self._scores()
        if self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            names = self.cfg.DATASETS.TEST
            figures = self.figures if len(names) > 1 else self.figures[names[0]]
            verify_results(self.cfg, figures)
        return self.figures

    def _prepare_targets(self) -> None:
        """Fit the teacher's components, or read those of its record."""
        model = self.state.model
        if not isinstance(model, Distiller) or self.start_iter >= self.max_iter:
            return
        if self.recording is None and not model.distiller.unfitted():
            return
        views = self.recording.views if self.recording else None
        stream = Detectron2Runtime(self.cfg).training_stream(seed=self.state.seed, views=views)
        device = torch.device(self.cfg.MODEL.DEVICE)
        with autocast(self.settings.precision, device):
            seconds = prepare_targets(model, self.recording, stream, device)
        self.state.seconds += seconds

    def run_step(self) -> None:
        """One step; `state` then says that it is done."""
        super().run_step()
        self.state.iteration = self.iter + 1
        self.state.seconds = self.step_trainer.steps.seconds
        self.state.times_student = self.step_trainer.times_student

    def flush(self) -> None:
        """See `StepTrainer.flush`."""
        self.step_trainer.flush()
        self.state.seconds = self.step_trainer.steps.seconds
        if self.recording is not None:
            self.recording.note_seconds(self.step_trainer.steps.recording_seconds)
            self.state.recording_seconds = self.recording.seconds

    def evaluate_student(self) -> dict[str, Any]:
        """Score the student, keep it if it is the best so far, and print the teacher beside it."""
        self.flush()  # the best student is saved
        self.figures = self._scores()
        self.state.evaluated = self.state.iteration
        if comm.is_main_process():
            score = main_score(self.cfg, self.figures)
            teacher = self.state.teacher_figures.get(score.metric)
            logger.info(
                "iteration %d: %s %.2f%s; %.0f s of training",
                self.state.iteration,
                score.metric,
                score.value,
                "" if teacher is None else f" (teacher {teacher:.2f})",
                self.state.seconds,
            )
            if score.better(self.state.best.get("value")):
                self.state.note_score(score.metric, score.value)
                self.checkpoints.save_weights(BEST, self.state.model)
        return self.figures

    def save(self) -> None:
        """Write a checkpoint, and at the end the student alone, on the main process."""
        self.flush()  # no weights after a non-finite loss are saved
        if comm.is_main_process():
            content = self.state.content()
            if self.scheduler is not None:
                content["scheduler"] = self.scheduler.state_dict()
            if states := self._hook_states():
                content["hooks"] = states
            final = self.state.iteration == self.max_iter
            self.checkpoints.save(content, final=final)
            if final:
                self.checkpoints.save_weights(EXPORT, self.state.model)

    def _hook_states(self) -> dict[str, Any]:
        """What hooks want kept, by their classes' names; the scheduler's is kept on its own."""
        states = {
            type(hook).__qualname__: hook.state_dict()
            for hook in self._hooks
            if not isinstance(hook, hooks.LRScheduler)
        }
        return {name: state for name, state in states.items() if state}

    def _load_hooks(self, states: dict[str, Any]) -> None:
        for hook in self._hooks:
            if (state := states.pop(type(hook).__qualname__, None)) is not None:
                hook.load_state_dict(state)
        if states:
            logger.warning(
                "The checkpoint holds states of hooks that there are none of: %s", states
            )

    def _score_teacher(self) -> None:
        model = self.state.model
        assert isinstance(model, Distiller)
        own = Detectron2Runtime(self.cfg)
        teacher, name = own.teacher(), self.cfg.DATASETS.TEST[0]
        if differences := class_differences(own, teacher):
            logger.info("The teacher isn't scored: %s", differences[0])
            return
        found: dict[str, float] = {}
        if self.recording is not None:  # as the first process finds it, lest they disagree
            found = comm.all_gather(self.recording.teacher_figures(name))[0]
        if model.has_teacher and not found:
            scores = teacher_scores(own, teacher, model)
            if comm.is_main_process():
                score = main_score(self.cfg, scores)
                found = {score.metric: score.value}
                if self.recording is not None:
                    self.recording.note_teacher_figures(name, found)
        if comm.is_main_process():
            self.state.teacher_figures = found
            for metric, value in main_alone(self.cfg, name, found).items():
                logger.info("Teacher on %s: %s %.2f", name, metric, value)
