"""The teacher that is distilled from, as it is scored: its resolution, scales and companions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from afdcd.distill import distiller_settings
from afdcd.engine.runtime import Runtime
from afdcd.engine.settings import EvaluationSettings
from afdcd.evaluation import predict
from afdcd.evaluation.settings import InferenceSettings


def evaluated_teacher(
    run: Runtime, sides: Sequence[Runtime], models: Sequence[nn.Module]
) -> tuple[EvaluationSettings, nn.Module]:
    """How the teacher of a run is scored, and what is scored.

    Where classes are matched by name, its logits of the student's classes are, in their order.

    Args:
        run: the student's config.
        sides: the configs of the teacher and of the others that its logits are averaged with.
        models: of these.

    Returns:
        settings, as the teacher's own config has them, but for what
        ``MODEL.DISTILLER.TEACHER`` says of resolution, scales and mirror images; and the model.
    """
    settings, teacher = sides[0].evaluation_settings(), distiller_settings(run.cfg).teacher
    if teacher.resolution != 1 and run.cfg.INPUT.MIN_SIZE_TEST:
        side = round(run.cfg.INPUT.MIN_SIZE_TEST * teacher.resolution)
        settings = replace(settings, loading=replace(settings.loading, test_short_side=side))
    inference = settings.inference
    if teacher.flip or teacher.scales != (1.0,):
        inference = replace(inference, scales=teacher.scales, flip=teacher.flip)
    matching = run.class_matching(sides[0])
    if len(models) == 1 and matching is None:
        return replace(settings, inference=inference), models[0]
    reverse = [side.image_format != sides[0].image_format for side in sides]
    channels = matching.teacher_channels if matching is not None else ()
    together = _Together(models, reverse, inference, channels).eval()  # as frozen teachers are
    return replace(settings, inference=InferenceSettings()), together


def in_students_order(
    run: Runtime, side: Runtime, teacher: nn.Module
) -> tuple[EvaluationSettings, nn.Module]:
    """How a teacher alone is scored as its own config says, and what is scored.

    Args:
        run: the student's config.
        side: the teacher's.
        teacher: which knows all of the student's classes.
    """
    settings, matching = side.evaluation_settings(), run.class_matching(side)
    if matching is None:
        return settings, teacher
    model = _Together([teacher], [False], settings.inference, matching.teacher_channels).eval()
    return replace(settings, inference=InferenceSettings()), model


class _Together(nn.Module):
    """One or several models whose logits at the images' size are averaged, perhaps some channels.

    Raises:
        ValueError: in forward, if a model's output hasn't the channels.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        reverse: Sequence[bool],
        inference: InferenceSettings,
        channels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.reverse, self.inference, self.channels = list(reverse), inference, list(channels)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for model, reverse in zip(self.models, self.reverse, strict=True):
            inputs = batched_inputs
            if reverse:
                inputs = [{**item, "image": item["image"].flip(0)} for item in batched_inputs]
            found.append(predict(self.inference, model, inputs))
        means = [
            torch.stack([output["sem_seg"].float() for output in outputs]).mean(0)
            for outputs in zip(*found, strict=True)
        ]
        return [{"sem_seg": logits[self.channels] if self.channels else logits} for logits in means]
