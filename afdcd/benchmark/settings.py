"""What is measured: a pair of networks, a crop, a batch, and a way to compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from afdcd.config import embedded_config, merge_content

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Setting:
    """DeepLabV3 on ResNets, distilled with the paper's losses and settings.

    Attributes:
        crop: height and width of the images.
        batch: images in a step.
        teacher_depth, student_depth: of the ResNets.
        width: factor of all their channels.
        classes: of the labels.
        pool: of the contrast; a small crop's feature map may need less than the paper's 4.
        device: ``cpu`` or ``cuda``.
    """

    crop: tuple[int, int] = (256, 512)
    batch: int = 2
    teacher_depth: int = 101
    student_depth: int = 18
    width: float = 1.0
    classes: int = 19
    pool: int = 4
    device: str = "cpu"

    def network(self, depth: int, aux_weight: float = 0.4) -> Any:
        """The config of one of the networks."""
        cfg = embedded_config()
        model = cfg.MODEL
        model.META_ARCHITECTURE, model.DEVICE = "SemanticSegmentor", self.device
        model.BACKBONE.NAME, model.BACKBONE.FREEZE_AT = "build_dilated_resnet_backbone", 0
        wide = depth >= 50
        resnet = model.RESNETS
        resnet.DEPTH, resnet.NORM, resnet.OUT_FEATURES = depth, "BN", ["res4", "res5"]
        resnet.STEM_OUT_CHANNELS = self._channels(128)
        resnet.RES2_OUT_CHANNELS = self._channels(256 if wide else 64)
        head = model.SEM_SEG_HEAD
        head.NAME, head.IN_FEATURES, head.NORM = "ASPPHead", ["res5"], "BN"
        head.NUM_CLASSES, head.CONVS_DIM = self.classes, self._channels(256 if wide else 128)
        head.ASPP_DILATIONS, head.AUX_WEIGHT = [12, 24, 36], aux_weight
        cfg.INPUT.SCALE_CROP.SIZE = list(self.crop)
        cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.BASE_LR = 0, 0.02
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.WEIGHT_DECAY_NORM = self.batch, 1e-4
        losses = {"logit_kd": {}, "afdcd": {"POOL": self.pool}}
        merge_content(cfg, {"MODEL": {"DISTILLER": {"LOSSES": losses}}}, "benchmark")
        return cfg

    def _channels(self, published: int) -> int:
        return max(8, round(published * self.width))

    @property
    def feature_size(self) -> tuple[int, int, int]:
        """Channels, height and width of the teacher's feature map."""
        channels = self._channels(256 if self.teacher_depth >= 50 else 64) * 8
        return channels, (self.crop[0] - 1) // 8 + 1, (self.crop[1] - 1) // 8 + 1


@dataclass(frozen=True)
class Variant:
    """A way to compute a step.

    Attributes:
        name: for tables.
        plain: the published formulation; else this package's.
        dtype: of autocast; ``float32`` for none.
        tf32: whether float32 products on a GPU are rounded to TensorFloat-32.
        alone: the student without a teacher.
        dims: principal components of the teacher's map; 0 for the map (this package's only).
        recorded: whether the teacher's targets are read from files, in int8 (this package's only).
    """

    name: str
    plain: bool = False
    dtype: str = "float32"
    tf32: bool = False
    alone: bool = False
    dims: int = 0
    recorded: bool = False

    @property
    def student_alone(self) -> Variant:
        """The student's own step in this variant's precision."""
        single = "TF32" if self.tf32 else "fp32"
        precision = {"float32": single, "bfloat16": "bf16", "float16": "fp16"}[self.dtype]
        name = f"student alone, {precision}"
        return Variant(name, dtype=self.dtype, tf32=self.tf32, alone=True)


def with_student_alone(chosen: Sequence[Variant]) -> list[Variant]:
    """Some variants, and behind them the student alone in each of their precisions."""
    return list(dict.fromkeys([*chosen, *(variant.student_alone for variant in chosen)]))


def variants(device: str, dims: int = 256) -> list[Variant]:
    """The plain step, which the others are compared with, first.

    Args:
        device: ``cpu`` or ``cuda``.
        dims: of the compact and recorded variants.
    """
    gpu = device == "cuda"
    plain = Variant("plain, TF32" if gpu else "plain, fp32", plain=True, tf32=gpu)
    return [
        plain,
        Variant("exact fp32"),
        Variant("bf16", dtype="bfloat16", tf32=gpu),
        Variant("compact fp32", dims=dims),
        Variant("compact bf16", dtype="bfloat16", tf32=gpu, dims=dims),
        Variant("recorded fp32", dims=dims, recorded=True),
        Variant("recorded bf16", dtype="bfloat16", tf32=gpu, dims=dims, recorded=True),
    ]
