"""The meta-architecture ``Distiller`` in Detectron2's registry."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm

from afdcd.d2.modeling import build_student
from afdcd.d2.runtime import Detectron2Runtime
from afdcd.distill import Distiller
from afdcd.engine.recording import open_recording


def build_distiller(cfg: Any) -> Distiller:
    """A config's student with its teacher, or the record of one, on ``MODEL.DEVICE``.

    Its attribute ``recording`` is the record, or None.
    """
    run = Detectron2Runtime(cfg)
    student = build_student(cfg)
    recorded = bool(cfg.MODEL.DISTILLER.TEACHER.RECORD.FOLDER)
    recording = open_recording(run, run.training_records()) if recorded else None
    if recording is not None:
        # Other runs may be recording: all processes go by the one that saw the least.
        complete = all(comm.all_gather(recording.complete))
        recording.missing = 0 if complete else max(recording.missing, 1)
    part = comm.get_rank(), comm.get_world_size()
    distiller, _ = run.distiller(student, recording=recording, part=part)
    distiller.to(torch.device(cfg.MODEL.DEVICE))
    distiller.__dict__["recording"] = recording  # no module's part
    return distiller


META_ARCH_REGISTRY._do_register("Distiller", build_distiller)
