"""Two unlike domains: aerial tiles with colour-coded labels, medical slices with 16-bit labels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

TILE_COLORS = {"field": (0, 200, 0), "water": (0, 0, 200), "building": (200, 0, 0)}
TILE_UNLABELLED = (0, 0, 0)
SLICE_VALUES = {"background": 0, "organ": 1000, "lesion": 40000}
SLICE_UNSURE = 65535


def _blocks(values: int, seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, values, (size[0] // 16, size[1] // 16)), np.ones((16, 16), int))


def write_aerial(folder: Path, count: int = 10) -> None:
    """``tiles/<region>/<n>.jpg`` and ``masks/<region>/<n>_mask.png``, labels as colours."""
    colors = np.array([*TILE_COLORS.values(), TILE_UNLABELLED], dtype=np.uint8)
    for index in range(count):
        region = ("north", "south")[index % 2]
        for name in ("tiles", "masks"):
            (folder / name / region).mkdir(parents=True, exist_ok=True)
        labels = _blocks(4, index)
        Image.fromarray(colors[labels] // 2 + 60).save(folder / f"tiles/{region}/{index:03d}.jpg")
        Image.fromarray(colors[labels]).save(folder / f"masks/{region}/{index:03d}_mask.png")


def write_medical(folder: Path, count: int = 10) -> None:
    """12-bit slices in 16-bit PNG files, 16-bit label maps, and a CSV file that pairs them."""
    stored = np.array([*SLICE_VALUES.values(), SLICE_UNSURE], dtype=np.uint16)
    (folder / "scans").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    with open(folder / "slices.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split"])
        for index in range(count):
            labels = _blocks(4, 100 + index)
            image = f"scans/patient{index // 2}_{index:03d}.png"
            label = f"annotations/{index:03d}.png"
            Image.fromarray((labels * 1000 + 500).astype(np.uint16)).save(folder / image)
            Image.fromarray(stored[labels]).save(folder / label)
            writer.writerow([image, label, "train" if index < count - 2 else "val"])
