"""A training step in pieces: this package's own, the plain one, and the student's alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch import nn

from afdcd.benchmark.plain import PlainAfDCDLoss, plain_logit_kd, plain_teacher
from afdcd.benchmark.settings import Setting, Variant
from afdcd.config import merge_content
from afdcd.data.view_store import ViewStore
from afdcd.distill import Distiller, FeatureTaps, build_distiller
from afdcd.distill.encoding import Encoding
from afdcd.distill.record import TeacherRecord
from afdcd.distill.targets import Target
from afdcd.engine.build import SettingsReader
from afdcd.engine.optimizer import build_optimizer
from afdcd.engine.precision import autocast
from afdcd.engine.step import to_device
from afdcd.losses import AfDCDLoss
from afdcd.models import SemanticSegmentor, build_segmentor_from_config
from afdcd.utils.memory_format import format_module
from afdcd.utils.sample_keys import RECORDED, VIEW

RES5, LOGITS = "backbone.res5", "sem_seg_head.predictor"
Batch = list[dict[str, Any]]
Features = Mapping[str, torch.Tensor]


class Side(Protocol):
    """One way to compute a step.

    Attributes:
        model: everything that is trained.
        optimizer: over it.
        distils: whether there is a teacher. Without one, a step has neither the part of the teacher
            nor that of the losses, and `teacher` and `loss` aren't called.
    """

    distils: bool

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def teacher(self, batch: Batch) -> Features: ...

    def student(self, batch: Batch) -> tuple[dict[str, torch.Tensor], Features]: ...

    def loss(self, student: Features, teacher: Features) -> dict[str, torch.Tensor]: ...

    def clipped(self) -> list[nn.Parameter]: ...

    def precision(self) -> AbstractContextManager[Any]: ...


def build_networks(setting: Setting) -> tuple[SemanticSegmentor, SemanticSegmentor]:
    """Student and teacher, random but the same for the same setting, on the CPU."""
    torch.manual_seed(0)
    student = build_segmentor_from_config(setting.network(setting.student_depth))
    teacher = build_segmentor_from_config(setting.network(setting.teacher_depth))
    _settle(teacher, make_batch(replace(setting, crop=(64, 64), batch=2)))
    return student, teacher


def _settle(model: SemanticSegmentor, batch: Batch) -> None:
    """Give a random network's normalizations the statistics of a batch, as training would.

    With its initial statistics, features grow without bound over a hundred layers.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def build_side(setting: Setting, variant: Variant) -> Side:
    """A step of ``variant``; all variants of a setting start from the same weights."""
    if variant.plain:
        return _Plain(setting)
    if variant.recorded:
        return _Recorded(setting, variant)
    return _Alone(setting, variant) if variant.alone else _Ours(setting, variant)


def _config(setting: Setting, variant: Variant | None = None) -> Any:
    cfg = setting.network(setting.student_depth)
    cfg.MODEL.META_ARCHITECTURE = "Distiller"
    if variant is not None:
        dims = min(variant.dims, setting.feature_size[0])
        afdcd = {"DIMS": dims}
        merge_content(cfg, {"MODEL": {"DISTILLER": {"LOSSES": {"afdcd": afdcd}}}}, variant.name)
        _set_precision(cfg, variant)
    return cfg


def _set_precision(cfg: Any, variant: Variant) -> None:
    if variant.dtype != "float32":
        cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = True, variant.dtype


class _Ours:
    """The pieces of `Distiller.forward`."""

    distils = True

    def __init__(self, setting: Setting, variant: Variant) -> None:
        self.cfg = _config(setting, variant)
        self.device = torch.device(setting.device)
        torch.manual_seed(0)
        self.model: Distiller = build_distiller(self.cfg, *build_networks(setting))
        self.model.to(self.device).train()
        if variant.dims:
            with self.precision():
                self.model.fit_components([_on_device(make_batch(setting), self.device)])
        self.optimizer: torch.optim.Optimizer = build_optimizer(
            SettingsReader(self.cfg).optimizer(), self.model
        )

    def teacher(self, batch: Batch) -> Features:
        return self.model.targets(batch, self.model.distiller.targets)

    def student(self, batch: Batch) -> tuple[dict[str, torch.Tensor], Features]:
        paths = self.model.distiller.student_taps
        with FeatureTaps(self.model.student, paths) as taps:
            losses = dict(self.model.student(batch))
        return losses, {path: taps[path] for path in paths}

    def loss(self, student: Features, teacher: Features) -> dict[str, torch.Tensor]:
        return self.model.distiller(student, teacher)

    def clipped(self) -> list[nn.Parameter]:
        return list(self.model.distiller.parameters())

    def precision(self) -> AbstractContextManager[Any]:
        return autocast(SettingsReader(self.cfg).precision(), self.device)


class _Recorded(_Ours):
    """The teacher's targets are read, checked and decoded in the step, as loaders do beside it."""

    def __init__(self, setting: Setting, variant: Variant) -> None:
        super().__init__(setting, variant)
        self._folder = TemporaryDirectory(prefix="afdcd_record_")
        self._store = ViewStore(Path(self._folder.name))
        live = self.model
        channels = {t.name: t.dims or live.teacher_shapes[t.path].channels for t in _targets(live)}
        live.record = TeacherRecord(self._store, _targets(live), channels, Encoding())
        with self.precision():
            batch = _on_device(make_batch(setting), self.device)
            live.record_views({**item, VIEW: (n, 0)} for n, item in enumerate(batch))
        torch.manual_seed(0)
        student, _ = build_networks(setting)
        self.model = build_distiller(
            self.cfg, student, None, store=self._store, teacher_shapes=live.teacher_shapes
        )
        self.model.distiller.load_state_dict(live.distiller.state_dict())
        self.model.to(self.device).train()
        self.optimizer = build_optimizer(SettingsReader(self.cfg).optimizer(), self.model)

    def teacher(self, batch: Batch) -> Features:
        found = [{**item, RECORDED: self._store.read(n, 0)} for n, item in enumerate(batch)]
        return self.model.targets(_on_device(found, self.device), _targets(self.model))


def _targets(model: Distiller) -> list[Target]:
    return model.distiller.targets


def _on_device(batch: Batch, device: torch.device) -> Batch:
    return [to_device(item, device) for item in batch]


class _Plain:
    """See `afdcd.benchmark.plain`."""

    distils = True

    def __init__(self, setting: Setting) -> None:
        cfg = _config(setting)
        self.cfg, self.device = cfg, torch.device(setting.device)
        student, teacher = build_networks(setting)
        self.teacher_model = teacher.to(self.device).eval().requires_grad_(False)
        torch.manual_seed(0)
        channels = setting.feature_size[0]
        width = student.backbone.output_shape()["res5"].channels
        exact = AfDCDLoss(width, channels, pool=setting.pool)
        exact.projector.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        loss = PlainAfDCDLoss(exact.align, exact.projector, pool=setting.pool)
        self.model: nn.Module = nn.ModuleDict({"student": student, "distiller": loss})
        self.model.to(self.device).train()
        self.optimizer: torch.optim.Optimizer = build_optimizer(
            SettingsReader(cfg).optimizer(), self.model
        )

    def teacher(self, batch: Batch) -> Features:
        return plain_teacher(self.teacher_model, batch)

    def student(self, batch: Batch) -> tuple[dict[str, torch.Tensor], Features]:
        student = self.model["student"]  # type: ignore[index]
        with FeatureTaps(student, [RES5, LOGITS]) as taps:
            losses = dict(student(batch))
        return losses, {path: taps[path] for path in (RES5, LOGITS)}

    def loss(self, student: Features, teacher: Features) -> dict[str, torch.Tensor]:
        terms = self.model["distiller"](student[RES5], teacher[RES5])  # type: ignore[index]
        return {
            "loss_logit_kd": plain_logit_kd(student[LOGITS], teacher[LOGITS]),
            "loss_reconstruction": AfDCDLoss.TERMS["reconstruction"] * terms["reconstruction"],
            "loss_contrast": AfDCDLoss.TERMS["contrast"] * terms["contrast"],
        }

    def clipped(self) -> list[nn.Parameter]:
        return list(self.model["distiller"].parameters())  # type: ignore[index]

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, enabled=False)


class _Alone:
    """The student without a teacher, as either runtime trains it."""

    distils = False

    def __init__(self, setting: Setting, variant: Variant) -> None:
        cfg = setting.network(setting.student_depth)
        _set_precision(cfg, variant)
        self.reader, self.device = SettingsReader(cfg), torch.device(setting.device)
        student, _ = build_networks(setting)
        self.model: nn.Module = format_module(student.to(self.device)).train()
        self.optimizer: torch.optim.Optimizer = build_optimizer(self.reader.optimizer(), self.model)

    def teacher(self, batch: Batch) -> Features:
        raise NotImplementedError("the student alone has no teacher")

    def student(self, batch: Batch) -> tuple[dict[str, torch.Tensor], Features]:
        return dict(self.model(batch)), {}

    def loss(self, student: Features, teacher: Features) -> dict[str, torch.Tensor]:
        raise NotImplementedError("the student alone has nothing to compare with a teacher")

    def clipped(self) -> list[nn.Parameter]:
        return []

    def precision(self) -> AbstractContextManager[Any]:
        return autocast(self.reader.precision(), self.device)


def make_batch(setting: Setting) -> Batch:
    """Random images and labels, on the CPU as a loader gives them."""
    generator = torch.Generator().manual_seed(0)
    height, width = setting.crop
    return [
        {
            "image": torch.randint(
                0, 256, (3, height, width), generator=generator, dtype=torch.uint8
            ),
            "sem_seg": torch.randint(0, setting.classes, (height, width), generator=generator),
            "height": height,
            "width": width,
        }
        for _ in range(setting.batch)
    ]


Mark = Callable[[str], None]


def run_step(side: Side, batch: Batch, mark: Mark) -> dict[str, torch.Tensor]:
    """Take one step; ``mark`` is called with the name of each part when it ends.

    Without a teacher the parts are ``student forward``, ``backward`` and ``optimizer``.

    Returns:
        the losses, detached.
    """
    with side.precision():
        teacher: Features = {}
        if side.distils:
            teacher = side.teacher(batch)
            mark("teacher")
        losses, student = side.student(batch)
        if side.distils:
            mark("student forward")
            losses = {**losses, **side.loss(student, teacher)}
        total = torch.stack([value.float() for value in losses.values()]).sum()
        del teacher, student
        mark("loss forward" if side.distils else "student forward")
    side.optimizer.zero_grad()
    total.backward()
    mark("backward")
    nn.utils.clip_grad_norm_(side.clipped(), 15.0)
    side.optimizer.step()
    mark("optimizer")
    return {name: value.detach() for name, value in losses.items()}
