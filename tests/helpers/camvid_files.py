"""A tiny data set in CamVid's layout, for tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_camvid(
    folder: Path, *, train: int = 0, val: int = 0, test: int = 0, size: tuple[int, int] = (48, 64)
) -> None:
    """Write images of coloured blocks, with their block's class as label and some void."""
    height, width = size
    for split, count, seed in (("train", train, 0), ("val", val, 1), ("test", test, 2)):
        for name in (split, f"{split}annot"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            rng = np.random.default_rng((seed, index))
            blocks = rng.integers(0, 12, (height // 8, width // 8))
            labels = np.kron(blocks, np.ones((8, 8))).astype(np.uint8)
            image = np.stack([labels * 20, 255 - labels * 20, labels * 7], axis=-1)
            image = image + rng.integers(0, 16, image.shape)
            image = np.clip(image, 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / split / f"{index:05d}.png")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{index:05d}.png")
