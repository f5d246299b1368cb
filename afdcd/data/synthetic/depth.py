"""The synthetic scenes with their depth, as a data set on disk, made on first use.

The images are those of ``synthetic_scenes_*``. Their geometry: the ground is a plane, and an object
is as large as its distance makes it. A person whose feet are at row y has `Scene.scale_at`(y)
pixels, so a camera of focal length f (in pixels) sees the ground of row y at the distance

    f * PERSON / scale_at(y)

which is the perspective of a plane PERSON / 0.6 = 2.8 m below the camera. Upright objects and
fences have the distance of their feet everywhere; between a fence's bars is what lies behind it.
Buildings and trees stand where the street ends, and nothing is farther. The sky and the camera
car's own bonnet have no depth.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from afdcd.data.datasets import register_dataset
from afdcd.data.depth import CHANNELS, COLORS, NO_DEPTH, NO_LABELS, DepthForm, DepthSpec
from afdcd.data.labels import IGNORE, LabelMap
from afdcd.data.pairs import pair_records
from afdcd.data.spec import Record
from afdcd.data.synthetic.dataset import HEIGHT, SPLITS, WIDTH
from afdcd.data.synthetic.on_disk import drawn_images, write_image
from afdcd.data.synthetic.scene import (
    BUILDING,
    OVERSAMPLING,
    ROAD,
    SIDEWALK,
    VEGETATION,
    Scene,
    draw_scene,
)
from afdcd.data.synthetic.textures import Rng, Texture

# Raised whenever a change makes different files, so that old ones are not taken for new ones.
VERSION = 1
# Height of a person, in metres.
PERSON = 1.7
# Focal length of the camera, in times the image's height.
FOCAL = 2.0
# Depths are stored in millimetres.
FORM = DepthForm(scale=0.001)
# Where buildings and trees meet the street, in times the image's height below the horizon.
_STREET_END = 0.03


class DepthScene(Scene):
    """A scene that keeps the distance of what is painted.

    Attributes:
        depth: metres, float32 [H, W]; `NO_DEPTH` where there is none.
    """

    def __init__(self, rng: Rng, height: int, width: int) -> None:
        super().__init__(rng, height, width)
        self.depth = np.full((self.height, self.width), NO_DEPTH, dtype=np.float32)
        # Row of the feet of what is being drawn; None before the first upright object.
        self._foot: float | None = None

    def scale_at(self, foot: float) -> float:
        """See `Scene.scale_at`. Whatever stands on the ground asks for its size before it is drawn.

        So the row is remembered as that of its feet.
        """
        self._foot = foot
        return super().scale_at(foot)

    def distance_at(self, row: float) -> float:
        """Distance in metres of the ground at a row, and of what stands there."""
        nearest = max(row, self.horizon + _STREET_END * self.height)
        return FOCAL * self.height * PERSON / super().scale_at(nearest)

    def paint(self, mask: np.ndarray, texture: Texture, label: int | None) -> None:
        super().paint(mask, texture, label)
        if label == IGNORE:
            self.depth[mask] = NO_DEPTH
        elif label in (ROAD, SIDEWALK):
            rows = np.array([self.distance_at(row) for row in range(self.height)], np.float32)
            self.depth[mask] = np.broadcast_to(rows[:, None], mask.shape)[mask]
        elif label in (BUILDING, VEGETATION):
            self.depth[mask] = self.distance_at(self.horizon)
        elif self._foot is not None:
            self.depth[mask] = self.distance_at(self._foot)
        # Else it is flat on what is there already: a billboard, or marks on the road.


def render_depth(seed: tuple[int, ...], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene and its depth.

    Args: as `render_scene`.

    Returns:
        image uint8 [H, W, 3] in BGR, the same as `render_scene`'s, and depths in metres, float32
        [H, W], `NO_DEPTH` where there is none.
    """
    scene = DepthScene(np.random.default_rng(seed), height, width)
    image, _ = draw_scene(scene)
    step = OVERSAMPLING
    return image, np.ascontiguousarray(scene.depth[step // 2 :: step, step // 2 :: step])


def load(root: Path, *, split: str) -> tuple[list[Record], LabelMap]:
    """Records of ``<root>/synthetic_depth/v<version>_<split>``, drawn first if need be.

    Raises:
        DataError: the folder can't be written, or is incomplete.
    """
    folder = root / "synthetic_depth" / f"v{VERSION}_{split}"
    count, seed = SPLITS[split]
    draw = partial(_draw, count=count, seed=seed)
    images = drawn_images(folder, count, draw, "synthetic scenes with depth")
    pairs = [(image, folder / "depth" / image.name) for image in images]
    return pair_records(pairs, f"synthetic scenes with depth in {folder}"), NO_LABELS


def _draw(folder: Path, count: int, seed: int) -> None:
    for name in ("images", "depth"):
        (folder / name).mkdir()
    for index in range(count):
        image, depth = render_depth((seed, index), HEIGHT, WIDTH)
        write_image(folder / "images" / f"{index:05d}.png", image)
        stored = np.rint(depth.astype(np.float64) / FORM.scale).astype(np.uint16)
        write_image(folder / "depth" / f"{index:05d}.png", stored)


for _split in SPLITS:
    register_dataset(
        DepthSpec(
            f"synthetic_depth_{_split}", CHANNELS, COLORS, partial(load, split=_split), form=FORM
        )
    )
