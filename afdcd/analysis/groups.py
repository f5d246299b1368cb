"""Which pixels are thin, small or near a boundary, by their labels alone."""

from __future__ import annotations

import cv2
import numpy as np

# Upper limits of a region's area, in shares of the image; the first two are COCO's 32x32 and 96x96
# pixels of 640x480.
REGION_SIZES = {"small (up to 0.3 %)": 0.003, "medium (up to 3 %)": 0.03, "large": np.inf}
# Upper limits of a pixel's distance from the nearest other label, in shares of the diagonal.
BANDS = {"up to 1 %": 0.01, "1 to 2 %": 0.02, "2 to 5 %": 0.05, "beyond": np.inf}
# Narrower than about twice this share of the diagonal is thin.
THIN = 0.01
# Classes with a smaller share of the labelled pixels are rare.
RARE = 0.01


def region_sizes(labels: np.ndarray) -> np.ndarray:
    """Index in `REGION_SIZES` of the connected region that each pixel of labels [H, W] is in."""
    found = np.zeros(labels.shape, dtype=np.int64)
    limits = list(REGION_SIZES.values())
    for label in np.unique(labels):
        _, regions, stats, _ = cv2.connectedComponentsWithStats((labels == label).view(np.uint8))
        area = stats[:, cv2.CC_STAT_AREA] / labels.size
        inside = regions > 0
        found[inside] = np.searchsorted(limits, area)[regions[inside]]
    return found


def boundary_bands(labels: np.ndarray) -> np.ndarray:
    """Index in `BANDS` of the distance of each pixel of labels [H, W] from another label."""
    edge = np.zeros(labels.shape, dtype=bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    if not edge.any():
        return np.full(labels.shape, len(BANDS) - 1)
    distance = cv2.distanceTransform((~edge).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # A pixel on the edge is one pixel from the other label.
    share = (distance + 1) / np.hypot(*labels.shape)
    # At small sizes, even the pixels on the edge may be farther than the first limit.
    share[edge] = 0
    return np.searchsorted(list(BANDS.values()), share)


def thin_pixels(labels: np.ndarray) -> np.ndarray:
    """Bool [H, W]: pixels that no square of a little over 2 `THIN` of the diagonal covers."""
    reach = max(1, round(THIN * float(np.hypot(*labels.shape))))
    square = np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
    thin = np.zeros(labels.shape, dtype=bool)
    for label in np.unique(labels):
        mask = (labels == label).view(np.uint8)
        # A thing cut by the image's border isn't thin for that.
        padded = cv2.copyMakeBorder(mask, *(2 * reach,) * 4, cv2.BORDER_REPLICATE)
        kept = cv2.morphologyEx(padded, cv2.MORPH_OPEN, square)
        thin |= (mask > 0) & (kept[2 * reach : -2 * reach, 2 * reach : -2 * reach] == 0)
    return thin
