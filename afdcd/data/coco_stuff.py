"""COCO-Stuff-164K: the pixel maps of things and stuff on COCO 2017."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from afdcd.data.datasets import register_dataset
from afdcd.data.labels import LabelMap
from afdcd.data.pairs import first_folder, image_files, pair_records
from afdcd.data.palette import bit_palette
from afdcd.data.spec import DatasetSpec, Record

# What the stored values 0..181 mean (the release's ids less one).
_NAMES = """
person; bicycle; car; motorcycle; airplane; bus; train; truck; boat; traffic light; fire
hydrant; street sign; stop sign; parking meter; bench; bird; cat; dog; horse; sheep; cow;
elephant; bear; zebra; giraffe; hat; backpack; umbrella; shoe; eye glasses; handbag; tie;
suitcase; frisbee; skis; snowboard; sports ball; kite; baseball bat; baseball glove; skateboard;
surfboard; tennis racket; bottle; plate; wine glass; cup; fork; knife; spoon; bowl; banana;
apple; sandwich; orange; broccoli; carrot; hot dog; pizza; donut; cake; chair; couch; potted
plant; bed; mirror; dining table; window; desk; toilet; door; tv; laptop; mouse; remote;
keyboard; cell phone; microwave; oven; toaster; sink; refrigerator; blender; book; clock; vase;
scissors; teddy bear; hair drier; toothbrush; hair brush; banner; blanket; branch; bridge;
building-other; bush; cabinet; cage; cardboard; carpet; ceiling-other; ceiling-tile; cloth;
clothes; clouds; counter; cupboard; curtain; desk-stuff; dirt; door-stuff; fence; floor-marble;
floor-other; floor-stone; floor-tile; floor-wood; flower; fog; food-other; fruit; furniture-
other; grass; gravel; ground-other; hill; house; leaves; light; mat; metal; mirror-stuff; moss;
mountain; mud; napkin; net; paper; pavement; pillow; plant-other; plastic; platform;
playingfield; railing; railroad; river; road; rock; roof; rug; salad; sand; sea; shelf; sky-
other; skyscraper; snow; solid-other; stairs; stone; straw; structural-other; table; tent;
textile-other; towel; tree; vegetable; wall-brick; wall-concrete; wall-other; wall-panel; wall-
stone; wall-tile; wall-wood; water-other; waterdrops; window-blind; window-other; wood
"""
STORED_NAMES = tuple(" ".join(name.split()) for name in _NAMES.split(";"))
# Values that were planned and never annotated.
UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
USED = tuple(value for value in range(len(STORED_NAMES)) if value not in UNUSED)

# 171 classes, in the order of the stored values. The unused values are errors.
CLASSES = tuple(STORED_NAMES[value] for value in USED)
LABEL_MAP = LabelMap(num_classes=len(CLASSES), mapping={v: k for k, v in enumerate(USED)})
# The published distillation code's reading: stored values are labels, 11 of which never occur.
STORED_MAP = LabelMap(num_classes=len(STORED_NAMES))
# Maps that were prepared as ``*_labelTrainIds.png`` store 0..170.
TRAIN_ID_MAP = LabelMap(num_classes=len(CLASSES))
# The owners give no colours; those of the 171 classes are the same in both readings.
STORED_COLORS = bit_palette(len(STORED_NAMES), first=1)
COLORS = tuple(STORED_COLORS[value] for value in USED)
SPLITS = {"train": ("train2017", 118287), "val": ("val2017", 5000)}
# Folders of images and of pixel maps, below one root: COCO's own with the zip of the maps, and the
# form that the data set's owners describe.
LAYOUTS = (("{}", "stuffthingmaps/{}"), ("images/{}", "annotations/{}"), ("{}", "annotations/{}"))


def load(root: Path, *, folder: str, stored: bool) -> tuple[list[Record], LabelMap]:
    """Records of ``<root>/coco/{train2017,val2017}`` with maps in ``coco/stuffthingmaps``.

    ``images/train2017`` with ``annotations/train2017`` is read too; ``<root>/coco_stuff164k`` and
    ``<root>`` are looked at too.

    Args:
        root: folder of the data sets.
        folder: ``train2017`` or ``val2017``.
        stored: whether labels are the stored values (182 classes) instead of the 171 classes.

    Raises:
        DataError: no such folders, or an image without a pixel map.
    """
    title = f"COCO-Stuff-164K ({folder})"
    candidates = [root / "coco", root / "coco_stuff164k", root]
    layouts = [[part.format(folder) for part in layout] for layout in LAYOUTS]
    image_dir, label_dir = next(
        (
            (base / images, base / labels)
            for base in candidates
            for images, labels in layouts
            if (base / images).is_dir() and (base / labels).is_dir()
        ),
        (None, None),
    )
    if image_dir is None or label_dir is None:
        first_folder(candidates, layouts[0], title)
        raise AssertionError("unreachable")
    images = image_files(image_dir, "*.jpg")
    what = f"{title} in {image_dir.parent}"

    def pairs(suffix: str) -> list[tuple[Path, Path]]:
        return [(i, label_dir / f"{i.stem}{suffix}.png") for i in images]

    prepared = pairs("_labelTrainIds")
    if not stored and images and all(label.is_file() for _, label in prepared):
        return pair_records(prepared, what), TRAIN_ID_MAP
    return pair_records(pairs(""), what), STORED_MAP if stored else LABEL_MAP


def images(root: Path, *, folder: str) -> list[Path]:
    """The images of `load`, whether there are pixel maps or not. Raises DataError."""
    candidates = [root / "coco", root / "coco_stuff164k", root]
    for base in candidates:
        for layout, _ in LAYOUTS:
            if (base / layout.format(folder)).is_dir():
                return image_files(base / layout.format(folder), "*.jpg")
    base = first_folder(candidates, [folder], f"COCO-Stuff-164K ({folder})")
    return image_files(base / folder, "*.jpg")


for _split, (_folder, _count) in SPLITS.items():
    for _suffix, _stored in (("", False), ("_182", True)):
        register_dataset(
            DatasetSpec(
                f"coco_stuff_164k{_suffix}_{_split}",
                STORED_NAMES if _stored else CLASSES,
                STORED_COLORS if _stored else COLORS,
                partial(load, folder=_folder, stored=_stored),
                expected=_count,
                official=STORED_MAP if _stored else LABEL_MAP,
                longest_side=640,
                images=partial(images, folder=_folder),
            )
        )
