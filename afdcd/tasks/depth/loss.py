"""Losses of depths that are known in metres, up to a factor, or up to a factor and an offset."""

from __future__ import annotations

import torch

from afdcd.losses.precision import at_least_float32, no_autocast
from afdcd.models.heads.segmentation_head import upsample


def scale_invariant_log(
    prediction: torch.Tensor, target: torch.Tensor, *, invariance: float
) -> torch.Tensor:
    """Scale-invariant log error of Eigen et al.

    "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network", NIPS 2014
    (arXiv 1406.2283), equation 4. With d the predicted less the true log depth, over the n pixels
    of an image that have a depth::

        1 / n * sum of d^2 - invariance / n^2 * (sum of d)^2

    averaged over the images with such a pixel: per pixel within an image, then per image. It is
    computed as variance(d) + (1 - invariance) * mean(d)^2, the same without cancellation.

    Args:
        prediction: natural logarithms of depths, [N, 1, h, w]; upsampled bilinearly with
            ``align_corners=True``, in float32 at least, whatever the autocast.
        target: depths [N, H, W]; pixels of 0 don't count.
        invariance: lambda in the paper. 0: the squared log error. 1: a factor common to an image's
            depths makes no difference. 0.5 in the paper's training.

    Returns:
        scalar, at least 0; 0 (with a zero gradient) where no pixel has a depth.
    """
    with no_autocast(prediction):
        size = (target.shape[-2], target.shape[-1])
        log_depth = upsample(at_least_float32(prediction), size)[:, 0]
        counted = target > 0
        log_truth = torch.where(counted, target, 1).to(log_depth.dtype).log()
        difference = torch.where(counted, log_depth - log_truth, 0)
        pixels = counted.sum((1, 2))
        divisor = pixels.clamp(min=1)
        mean = difference.sum((1, 2)) / divisor
        centred = torch.where(counted, difference - mean[:, None, None], 0)
        variance = centred.square().sum((1, 2)) / divisor
        each = variance + (1 - invariance) * mean.square()
        return each.sum() / (pixels > 0).sum().clamp(min=1)


# The largest errors of an image that don't count, as a share of its pixels.
TRIMMED = 0.2
_SMALLEST_SCALE = 1e-6


def scale_and_shift_invariant(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Trimmed absolute error of disparities, each image's brought to median 0 and scale 1.

    Ranftl et al., "Towards Robust Monocular Depth Estimation: Mixing Datasets for Zero-shot
    Cross-dataset Transfer", TPAMI 2022 (arXiv 1907.01341), equations 5 to 7. Over the M pixels of
    an image that have a disparity, with m their median::

        normalized(d) = (d - m(d)) / (1 / M * sum of |d - m(d)|)
        1 / (2 * M) * sum of the M - floor(M / 5) smallest |normalized(y) - normalized(t)|

    averaged over the images with at least two different disparities; the others don't count.

    Args:
        prediction: natural logarithms of depths, [N, 1, h, w], so that disparities are exp of
            minus it; upsampled as for `scale_invariant_log`.
        target: disparities [N, H, W], each image's up to a factor above 0 and an offset; pixels of
            0 don't count.

    Returns:
        scalar, at least 0; 0 (with a zero gradient) where no image counts.
    """
    with no_autocast(prediction):
        size = (target.shape[-2], target.shape[-1])
        log_depth = upsample(at_least_float32(prediction), size)[:, 0]
        # A factor makes no difference; without one, exp could overflow.
        middle = log_depth.detach().flatten(1).median(1).values[:, None, None]
        disparity = (middle - log_depth).exp()
        losses = []
        for found, truth in zip(disparity, target.to(disparity.dtype), strict=True):
            counted = truth > 0
            truth = truth[counted]
            if truth.numel() == 0 or bool(truth.min() == truth.max()):
                continue
            error = (_normalized(found[counted]) - _normalized(truth)).abs()
            kept = error.numel() - int(TRIMMED * error.numel())
            losses.append(error.sort().values[:kept].sum() / (2 * error.numel()))
        return torch.stack(losses).mean() if losses else 0 * prediction.sum()


def _normalized(values: torch.Tensor) -> torch.Tensor:
    centred = values - values.median()
    scale = centred.abs().mean()
    return centred / scale.clamp(min=_SMALLEST_SCALE * float(values.detach().abs().max()))
