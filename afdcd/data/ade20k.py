"""ADE20K's scene parsing benchmark, 150 classes (the release ADEChallengeData2016)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from afdcd.data.datasets import register_dataset
from afdcd.data.labels import LabelMap
from afdcd.data.pairs import first_folder, image_files, pair_records
from afdcd.data.palette import hex_colors
from afdcd.data.spec import DatasetSpec, Record

# First words of the names in the release's objectInfo150.
_NAMES = """
wall; building; sky; floor; tree; ceiling; road; bed; windowpane; grass; cabinet; sidewalk;
person; earth; door; table; mountain; plant; curtain; chair; car; water; painting; sofa; shelf;
house; sea; mirror; rug; field; armchair; seat; fence; desk; rock; wardrobe; lamp; bathtub;
railing; cushion; base; box; column; signboard; chest of drawers; counter; sand; sink;
skyscraper; fireplace; refrigerator; grandstand; path; stairs; runway; case; pool table; pillow;
screen door; stairway; river; bridge; bookcase; blind; coffee table; toilet; flower; book; hill;
bench; countertop; stove; palm; kitchen island; computer; swivel chair; boat; bar; arcade
machine; hovel; bus; towel; light; truck; tower; chandelier; awning; streetlight; booth;
television receiver; airplane; dirt track; apparel; pole; land; bannister; escalator; ottoman;
bottle; buffet; poster; stage; van; ship; fountain; conveyer belt; canopy; washer; plaything;
swimming pool; stool; barrel; basket; waterfall; tent; bag; minibike; cradle; oven; ball; food;
step; tank; trade name; microwave; pot; animal; bicycle; lake; dishwasher; screen; blanket;
sculpture; hood; sconce; vase; traffic light; tray; ashcan; fan; pier; crt screen; plate;
monitor; bulletin board; shower; radiator; glass; clock; flag
"""
# The benchmark's own colours.
_COLORS = """
787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d
787846 08ff33 ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0
0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06
ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00
ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff 00ff70
00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99
ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 00ff52
000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00
08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff
9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00
00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8
005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
"""
CLASSES = tuple(" ".join(name.split()) for name in _NAMES.split(";"))
COLORS = hex_colors(_COLORS)
# As published, a file stores label + 1, and 0 for "other objects", which don't count.
LABEL_MAP = LabelMap(
    num_classes=len(CLASSES),
    mapping={label + 1: label for label in range(len(CLASSES))},
    ignored=frozenset({0}),
)
# Detectron2's prepared files store the label itself, and 255.
PREPARED_MAP = LabelMap(num_classes=len(CLASSES))
# Detectron2's name of a split -> its folder and number of images.
SPLITS = {"train": ("training", 20210), "val": ("validation", 2000)}


def load(root: Path, *, folder: str) -> tuple[list[Record], LabelMap]:
    """Records of ``<root>/ADEChallengeData2016/{images,annotations}/{training,validation}``.

    Label maps are read from ``annotations_detectron2`` where it was prepared for every image.

    Raises:
        DataError: no such folders, or an image without a label map.
    """
    title = f"ADE20K scene parsing ({folder})"
    candidates = [root / "ADEChallengeData2016", root / "ade20k", root]
    labels = ["annotations", "annotations_detectron2"]
    base = first_folder(
        candidates, [f"images/{folder}"], title, either=[f"{n}/{folder}" for n in labels]
    )
    images = image_files(base / "images" / folder, "*.jpg")

    def pairs(kind: str) -> list[tuple[Path, Path]]:
        return [(i, base / kind / folder / f"{i.stem}.png") for i in images]

    published = pairs("annotations")
    prepared = pairs("annotations_detectron2")
    what = f"{title} in {base}"
    if images and all(label.is_file() for _, label in prepared):
        return pair_records(prepared, what), PREPARED_MAP
    return pair_records(published, what), LABEL_MAP


def images(root: Path, *, folder: str) -> list[Path]:
    """The images of `load`, whether there are label maps or not. Raises DataError."""
    candidates = [root / "ADEChallengeData2016", root / "ade20k", root]
    base = first_folder(candidates, [f"images/{folder}"], f"ADE20K scene parsing ({folder})")
    return image_files(base / "images" / folder, "*.jpg")


for _split, (_folder, _count) in SPLITS.items():
    # Detectron2's names, so that one config serves both runtimes.
    register_dataset(
        DatasetSpec(
            f"ade20k_sem_seg_{_split}",
            CLASSES,
            COLORS,
            partial(load, folder=_folder),
            expected=_count,
            official=LABEL_MAP,
            images=partial(images, folder=_folder),
        )
    )
