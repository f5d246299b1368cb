"""Data sets described by YAML files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from afdcd.cli.register_dataset import main as register
from afdcd.data import DataError, DenseMapper, get_spec, load_dataset, read_labels
from afdcd.data.description import DescriptionError, read_description
from afdcd.data.labels import rgb_code
from afdcd.data.targets import LabelReader
from afdcd.embedded.runtime import configure

from helpers import domains

AERIAL = {
    "classes": [{"name": n, "color": list(c)} for n, c in domains.TILE_COLORS.items()],
    "labels": {"encoding": "rgb", "ignore": [[0, 0, 0]]},
    "files": {"images": "tiles", "labels": "masks", "label_suffix": "_mask.png"},
    "splits": {"train": {"share": 0.8}, "val": {"share": 0.2}},
}
MEDICAL = {
    "classes": list(domains.SLICE_VALUES),
    "labels": {
        "mapping": {v: n for n, v in domains.SLICE_VALUES.items()},
        "ignore": domains.SLICE_UNSURE,
    },
    "images": {"window": [0, 4095]},
    "files": {"csv": "slices.csv"},
    "splits": {"train": None, "val": None},
}


@pytest.fixture
def described(tmp_path):
    """Write a description beside its files; returns its path."""

    def write(content, name: str = "data.yaml") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    domains.write_aerial(tmp_path)
    domains.write_medical(tmp_path)
    return write


def test_colour_coded_tiles(described):
    path = described(AERIAL)
    train, val = (load_dataset(f"{path}:{split}") for split in ("train", "val"))
    assert (len(train.records), len(val.records)) == (8, 2)
    files = {r["file_name"] for d in (train, val) for r in d.records}
    assert len(files) == 10
    assert train.spec.classes == ("field", "water", "building")
    assert train.spec.colors == tuple(domains.TILE_COLORS.values())
    record = train.records[0]
    labels = read_labels(record["sem_seg_file_name"], train.label_map)
    stored = np.array(Image.open(record["sem_seg_file_name"]))
    for label, color in [*enumerate(train.spec.colors), (255, (0, 0, 0))]:
        np.testing.assert_array_equal(labels == label, (stored == color).all(-1))


def test_a_share_depends_on_names_alone(described, tmp_path):
    path = described(AERIAL)
    before = [r["image_id"] for r in load_dataset(f"{path}:val").records]
    again = described(AERIAL, "other.yaml")
    assert [r["image_id"] for r in load_dataset(f"{again}:val").records] == before


def test_16_bit_slices(described):
    path = described(MEDICAL)
    train, val = (load_dataset(f"{path}:{split}") for split in ("train", "val"))
    assert (len(train.records), len(val.records)) == (8, 2)
    record = val.records[0]
    labels = read_labels(record["sem_seg_file_name"], val.label_map)
    stored = np.array(Image.open(record["sem_seg_file_name"]))
    for label, value in [(0, 0), (1, 1000), (2, 40000), (255, 65535)]:
        np.testing.assert_array_equal(labels == label, stored == value)
    sample = DenseMapper(LabelReader(val.label_map))(record)
    slice_ = np.array(Image.open(record["file_name"])).astype(float)
    np.testing.assert_allclose(sample["image"][0], slice_ * 255 / 4095, atol=0.51)


def test_cityscapes_style_names_and_lists(tmp_path, described):
    from helpers.benchmark_files import cityscapes

    cityscapes(tmp_path)
    (tmp_path / "train.txt").write_text("train/aachen/aachen_000000_000019\n")
    path = described(
        {
            "root": "cityscapes",
            "classes": ["road", "rest"],
            "labels": {
                "mapping": {7: "road"} | dict.fromkeys(range(8, 34), "rest"),
                "ignore": [*range(7)],
            },
            "files": {
                "images": "leftImg8bit",
                "labels": "gtFine",
                "image_suffix": "_leftImg8bit.png",
                "label_suffix": "_gtFine_labelIds.png",
            },
            "splits": {"train": {"list": "../train.txt"}, "rest": {"share": 1.0}},
        }
    )
    (record,) = load_dataset(f"{path}:train").records
    assert record["sem_seg_file_name"].endswith("aachen_000000_000019_gtFine_labelIds.png")
    # What a list takes is not shared out.
    assert len(load_dataset(f"{path}:rest").records) == 5


def panoptic(tmp_path: Path) -> dict:
    for name in ("photos", "panoptic"):
        (tmp_path / name).mkdir()
    ids = np.zeros((8, 8), int)
    ids[:4], ids[4:, :4] = rgb_code(10, 1, 0), rgb_code(5, 0, 2)
    coded = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    Image.fromarray(coded).save(tmp_path / "panoptic/a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/a.jpg")
    content = {
        "images": [{"id": 3, "file_name": "a.jpg"}],
        "categories": [{"id": 17, "name": "cat"}, {"id": 200, "name": "sky"}],
        "annotations": [
            {
                "image_id": 3,
                "file_name": "a.png",
                "segments_info": [
                    {"id": rgb_code(10, 1, 0), "category_id": 200},
                    {"id": rgb_code(5, 0, 2), "category_id": 17},
                ],
            }
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    return {
        "classes": ["cat", "sky"],
        "labels": {"encoding": "panoptic"},
        "files": {"panoptic": "panoptic.json", "images": "photos", "labels": "panoptic"},
        "splits": {"train": {}},
    }


def test_coco_panoptic(tmp_path, described):
    content = panoptic(tmp_path)
    expected = np.full((8, 8), 255)
    expected[:4], expected[4:, :4] = 1, 0
    dataset = load_dataset(f"{described(content)}:train")
    labels = read_labels(dataset.records[0]["sem_seg_file_name"], dataset.label_map)
    np.testing.assert_array_equal(labels, expected)
    # By category ids, one of them ignored.
    content["classes"] = ["animal"]
    content["labels"] |= {"mapping": {17: "animal"}, "ignore": [200]}
    dataset = load_dataset(f"{described(content)}:train")
    labels = read_labels(dataset.records[0]["sem_seg_file_name"], dataset.label_map)
    np.testing.assert_array_equal(labels, np.where(expected == 1, 255, expected))
    # An unknown category is an error.
    content["labels"] = {"encoding": "panoptic", "mapping": {17: "animal"}}
    with pytest.raises(DataError, match=r"category 200 \(sky\), which is no class"):
        load_dataset(f"{described(content)}:train")


def test_panoptic_maps_of_one_name_in_two_folders(tmp_path, described):
    """Each map has the segments of its own annotation."""
    content = panoptic(tmp_path)
    path = tmp_path / "panoptic.json"
    annotations = json.loads(path.read_text())
    (first,) = annotations["annotations"]
    second = json.loads(json.dumps(first))
    for k, annotation in enumerate((first, second)):
        annotation |= {"image_id": k, "file_name": f"{k}/a.png"}
        for folder in ("photos", "panoptic"):
            (tmp_path / f"{folder}/{k}").mkdir()
        shutil.copy(tmp_path / "panoptic/a.png", tmp_path / f"panoptic/{k}/a.png")
        shutil.copy(tmp_path / "photos/a.jpg", tmp_path / f"photos/{k}/a.jpg")
    for segment in second["segments_info"]:  # the same ids, the other category
        segment["category_id"] = 217 - segment["category_id"]
    annotations["annotations"] = [first, second]
    annotations["images"] = [{"id": k, "file_name": f"{k}/a.jpg"} for k in range(2)]
    path.write_text(json.dumps(annotations))
    dataset = load_dataset(f"{described(content)}:train")
    one, other = (read_labels(r["sem_seg_file_name"], dataset.label_map) for r in dataset.records)
    assert one[0, 0] == 1 and other[0, 0] == 0
    np.testing.assert_array_equal(np.where(one == 255, 255, 1 - one), other)
    annotations["annotations"] = [first, first]
    path.write_text(json.dumps(annotations))
    with pytest.raises(DataError, match=r"two annotations of 0/a\.png"):
        load_dataset(f"{described(content)}:train")


def test_configs_name_descriptions_beside_them(described, tmp_path):
    path = described(AERIAL)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/base.yaml").write_text("DATASETS: {TRAIN: ['../data.yaml:train']}\n")
    (tmp_path / "config.yaml").write_text("_BASE_: run/base.yaml\nDATASETS: {TEST: [camvid_val]}\n")
    cfg = configure(str(tmp_path / "config.yaml"), [])
    assert list(cfg.DATASETS.TRAIN) == [f"{path.resolve()}:train"]
    assert list(cfg.DATASETS.TEST) == ["camvid_val"]


def test_descriptions_in_the_data_root_have_names(described, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "descriptions").mkdir()
    described(AERIAL | {"root": ".."}, "descriptions/aerial_tiles.yaml")
    assert get_spec("aerial_tiles_train").name == "aerial_tiles_train"
    assert len(load_dataset("aerial_tiles_val").records) == 2
    with pytest.raises(KeyError, match="did you mean aerial_tiles_val"):
        get_spec("aerial_tiles_valid")


WRONG = {
    "no key clases": ({"clases": 1}, "there is no key 'clases'; did you mean classes"),
    "no classes": ({"classes": []}, "classes must be a list"),
    "twice": ({"classes": ["a", "b", "a"]}, "a is there twice"),
    "300": ({"classes": [str(n) for n in range(300)]}, "at most 255 classes; got 300"),
    "colour": ({"classes": [{"name": "a", "color": [0, 0, 256]}]}, r"takes a colour"),
    "colour name": ({"classes": [{"name": "a", "color": "red"}]}, "takes a colour"),
    "one colour": ({"classes": [{"name": n, "color": "#010203"} for n in "ab"]}, "one colour"),
    "encoding": ({"labels": {"encoding": "hsv"}}, "index, rgb, panoptic"),
    "class typo": ({"labels": {"mapping": {1: "feild"}}}, "no class 'feild'; did you mean field"),
    "negative": ({"labels": {"mapping": {-1: "field"}}}, "0 and above"),
    "two meanings": ({"labels": {"mapping": {1: "field"}, "ignore": 1}}, "several meanings"),
    "never": ({"labels": {"mapping": {1: "field"}}}, "no stored value means water, building"),
    "window": ({"images": {"window": [5, 5]}}, "window is"),
    "no folder": ({"files": {"images": "tiles", "labels": "maske"}}, "no folder .*maske"),
    "csv and folders": ({"files": {"csv": "a", "images": "b"}}, "csv stands alone"),
    "no csv": ({"files": {"csv": "a.csv"}, "splits": {"train": {}}}, "no file .*a.csv"),
    "no files": ({"files": None}, "needs files"),
    "shares": ({"splits": {"train": {"share": 0.9}, "b": {"share": 0.2}}}, "more than 1"),
    "a whole share": ({"splits": {"train": {"share": 70}}}, "at most 1 .*got 70"),
    "share": ({"splits": {"train": {"share": "half"}}}, "takes .*numbers"),
    "no splits": ({"splits": {}}, "at least one split"),
    "other split": ({"splits": {"test": {}}}, "no split 'train'; it has test"),
    "no list": ({"splits": {"train": {"list": "x.txt"}}}, "no list at .*x.txt"),
    "not a mapping": ({"labels": [1]}, "must hold KEY: value lines"),
    "not yaml": ("a: [", "isn't valid YAML"),
    "deep": ("[" * 3000, "isn't valid YAML"),
    "text": ("hello", "must hold KEY: value lines"),
    "binary": ("\x00", "isn't valid YAML"),
    "octal": ("classes: [a]\nlabels: {mapping: {010: a}}", "got '010': write 10, without zeros"),
    "sexagesimal": ("classes: [a]\nlabels: {ignore: 1:30}", "0 and above; got '1:30'"),
    "hexadecimal": ("classes: [a]\nlabels: {ignore: 0x1F}", "0 and above; got '0x1F'"),
    "a number for a class": ("classes: [1.50]", 'got 1.5: write "1.5", in quotes'),
    "a key twice": ("labels: {mapping: {0: a, 1: b, 0: c}}", "the key 0 is there twice"),
    "the same key": ("classes: [a]\nroot: x\nclasses: [b]", "the key 'classes' is there twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_descriptions_say_so(described, name: str):
    change, message = WRONG[name]
    path = described(change if isinstance(change, str) else AERIAL | change)
    with pytest.raises(DataError, match=message) as error:
        load_dataset(f"{path}:train")
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--map", "0=a", "--map", "0=b"], "--map 0 is there twice"),
        (["--split", "train=0.5"], "--split train is there twice"),
        (["--map", "x=a"], "a stored value is a whole number; got 'x'"),
        (["--map", "0=c"], "no class 'c'"),
        (["--window", "5", "1"], "window is [lowest, highest]"),
    ],
)
def test_wrong_options_write_nothing(described, tmp_path, capsys, words, message):
    command = [str(tmp_path / "new.yaml"), "--csv", "slices.csv", "--split", "train"]
    assert register([*command, "--class", "a", "--class", "b", *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "new.yaml").exists()


def test_a_description_over_an_existing_one(described, tmp_path, capsys):
    path = described(AERIAL)
    before = path.read_text()
    words = ["--images", "tiles", "--labels", "masks", "--split", "train", "--class", "a"]
    assert register([str(path), *words]) == 2
    assert "add --force to overwrite it" in capsys.readouterr().err
    assert path.read_text() == before


def test_16_bit_images_without_a_window_are_pointed_out(described, tmp_path, capsys):
    """12 bits of 16, divided by 256, are but 16 grey levels."""
    path = described({key: value for key, value in MEDICAL.items() if key != "images"})
    assert register([str(path)]) == 2
    assert "Then set images: {window: [lowest, highest]}" in capsys.readouterr().err
    assert register([str(described(MEDICAL))]) == 0


def test_reference_without_split_or_file(described, tmp_path):
    with pytest.raises(DescriptionError, match="names no split"):
        get_spec(str(described(AERIAL)))
    with pytest.raises(DescriptionError, match="no data set description at"):
        get_spec(f"{tmp_path}/none.yaml:train")


def test_undefined_colours_are_errors(described, tmp_path):
    dataset = load_dataset(f"{described(AERIAL)}:train")
    path = Path(dataset.records[0]["sem_seg_file_name"])
    image = Image.open(path)
    image.putpixel((5, 3), (1, 2, 3))
    image.save(path)
    with pytest.raises(DataError, match=r"\(1, 2, 3\) \(first at row 3, column 5; 1 pixels\)"):
        read_labels(path, dataset.label_map)
    image.putalpha(7)
    image.save(path)
    with pytest.raises(DataError, match="transparent"):
        read_labels(path, dataset.label_map)
    Image.new("L", (64, 48)).save(path)
    with pytest.raises(DataError, match=r"set labels\.encoding to index"):
        read_labels(path, dataset.label_map)


def test_words_are_read_as_they_are_written(described, tmp_path):
    """Not as YAML 1.1's octal and sexagesimal numbers, dates and booleans."""
    (tmp_path / "tiles").rename(tmp_path / "010")
    (tmp_path / "masks").rename(tmp_path / "1_0")
    path = described(
        """
classes: [{name: no, color: [0, 200, 0]}, {name: on, color: [0, 0, 200]}, 1:30, 007]
labels:
  encoding: rgb
  mapping: {0 200 0: no, 0 0 200: on, 200 0 0: 1:30, 1 1 1: 007}
  ignore: 0 0 0
files: {images: 010, labels: 1_0, label_suffix: _mask.png}
splits: {2020-01-01: {share: 0.5}, yes: {share: .5}}
"""
    )
    dataset = load_dataset(f"{path}:2020-01-01")
    assert dataset.spec.classes == ("no", "on", "1:30", "007")
    assert len(dataset.records) == len(load_dataset(f"{path}:yes").records) == 5
    values = read_description(path).label_map().mapping
    assert values == {200 << 8: 0, 200 << 16: 1, 200: 2, 0x010101: 3}


WORDS = [
    "no",
    "Yes",
    "on",
    "010",
    "1:30",
    "1_000",
    "0x1F",
    "2020-01-01",
    "1.5",
    "7",
    "null",
    "~",
    "=",
]


@given(st.lists(st.sampled_from(WORDS), min_size=1, unique=True))
def test_what_is_written_is_read(tmp_path_factory, words):
    """As the command writes it, whatever the classes are called."""
    path = tmp_path_factory.getbasetemp() / "words.yaml"
    content = AERIAL | {
        "classes": words,
        "labels": {"mapping": dict(enumerate(words))},
    }
    path.write_text(yaml.safe_dump(content))
    assert read_description(path).classes == tuple(words)


def listed(described, tmp_path, content: str | bytes, encoding: str = "utf-8") -> list[str]:
    """Names of the images that a list chooses."""
    data = content if isinstance(content, bytes) else content.encode(encoding)
    (tmp_path / "val.txt").write_bytes(data)
    path = described(AERIAL | {"splits": {"val": {"list": "val.txt"}, "train": {"share": 1.0}}})
    names, rest = (
        [Path(r["file_name"]).relative_to(tmp_path).as_posix() for r in load_dataset(n).records]
        for n in (f"{path}:val", f"{path}:train")
    )
    assert len(names) + len(rest) == 10 and not set(names) & set(rest)
    return names


LISTS = {
    "plain": "north/000\nsouth/001.jpg\n",
    "byte order mark": "\ufeffnorth/000\nsouth/001\n",
    "relative to the root": "tiles/north/000.jpg\ntiles/south/001\n",
    "with dots": "./north/000\n./tiles/south/001.jpg\n",
    "Windows": "\ufefftiles\\north\\000.jpg\r\nsouth\\001\r\n",
    "from the top": "/tiles/north/000.jpg\n/south/001\n",
    "with label maps": "north/000 north/000_mask\ntiles/south/001.jpg masks/south/001_mask.png\n",
    "with tabs and commas": "north/000\tnorth/000_mask.png\nsouth/001,masks/south/001_mask.png",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_name_images_in_many_ways(described, tmp_path, name):
    expected = ["tiles/north/000.jpg", "tiles/south/001.jpg"]
    assert listed(described, tmp_path, LISTS[name]) == expected
    assert listed(described, tmp_path, LISTS[name].lstrip("\ufeff"), "utf-16") == expected
    # Of what is absolute, too.
    assert listed(described, tmp_path, f"{tmp_path}/tiles/north/000.jpg") == expected[:1]


def test_lists_of_names_with_spaces(described, tmp_path):
    for folder, end in (("tiles", ".jpg"), ("masks", "_mask.png")):
        (tmp_path / f"{folder}/north/000{end}").rename(tmp_path / f"{folder}/north/a b{end}")
    for line in ("north/a b", "north/a b.jpg north/a b_mask.png"):
        assert listed(described, tmp_path, line) == ["tiles/north/a b.jpg"]


def test_lists_that_can_not_be_meant(described, tmp_path):
    with pytest.raises(DataError, match=r"line 2: after the image 'south/001' stands 'north/000_"):
        listed(described, tmp_path, "north/000\nsouth/001 north/000_mask.png\n")
    with pytest.raises(DataError, match=r"1 of 2 names in .*txt are no images: north/x; there"):
        listed(described, tmp_path, "north/000\nnorth/x\n")
    with pytest.raises(DataError, match=r"no text in UTF-8 \(at byte 1\): save it as UTF-8"):
        listed(described, tmp_path, b"a\xff\n")


def test_rows_without_a_split(described, tmp_path):
    path = described(MEDICAL)
    rows = (tmp_path / "slices.csv").read_text().splitlines()
    rows[3] = rows[3].removesuffix("train")
    (tmp_path / "slices.csv").write_text("\ufeff" + "\n".join(rows).replace("/", "\\"))
    with pytest.raises(DataError, match=r"line 4: scans/patient1_002 has no split, but other rows"):
        load_dataset(f"{path}:train")
    rows = [row.rpartition(",")[0] + "," for row in rows]
    (tmp_path / "slices.csv").write_text("\n".join([f"{rows[0]}split", *rows[1:]]))
    assert len(load_dataset(f"{path}:train").records) == 10


def test_folders_behind_links(described, tmp_path):
    before = load_dataset(f"{described(AERIAL)}:train").records
    for name in ("tiles", "masks"):
        (tmp_path / "disk2").mkdir(exist_ok=True)
        (tmp_path / name / "north").rename(tmp_path / "disk2" / name)
        (tmp_path / name / "north").symlink_to(tmp_path / "disk2" / name)
    (tmp_path / "tiles/south/circle").symlink_to(tmp_path / "tiles")
    path = described(AERIAL)
    assert load_dataset(f"{path}:train").records == before
    (tmp_path / "tiles/north").unlink()
    (tmp_path / "tiles/north").symlink_to(tmp_path / "disk3")
    with pytest.raises(DataError, match=r"tiles/north is a link to .*disk3, which isn't there"):
        load_dataset(f"{path}:train")


def test_missing_images_and_rows(described, tmp_path):
    path = described(MEDICAL)
    (tmp_path / "scans/patient0_001.png").unlink()
    with pytest.raises(DataError, match=r"1 of 8 images are missing, the first is .*patient0_001"):
        load_dataset(f"{path}:train")
    (tmp_path / "slices.csv").write_text("image,label\na.png,\n")
    with pytest.raises(DataError, match=r"line 2: needs the columns image and label, filled"):
        load_dataset(f"{path}:train")
    (tmp_path / "slices.csv").write_text("picture,mask\na.png,b.png\n")
    with pytest.raises(DataError, match=r"it has picture, mask"):
        load_dataset(f"{path}:train")


# --- fuzzing ----------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["tiles", "rgb", "field", "train", "#00ff00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=8,
)
KEYS = ["root", "classes", "labels", "images", "files", "splits"]
INNER = ["encoding", "mapping", "ignore", "window", "csv", "share", "list", "name", "color"]


@settings(deadline=None, max_examples=150)
@given(
    key=st.sampled_from(KEYS),
    value=VALUES | st.dictionaries(st.sampled_from(INNER), VALUES, max_size=3),
)
def test_fuzzed_descriptions_give_errors_or_data_sets(tmp_path_factory, key, value):
    folder = tmp_path_factory.getbasetemp() / "fuzzed_descriptions"
    if not folder.is_dir():
        domains.write_aerial(folder, 4)
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(AERIAL | {key: value}))
    try:
        dataset = load_dataset(f"{path}:train")
    except DataError:
        return
    assert dataset.records and len(dataset.spec.classes) == len(dataset.spec.colors)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_fuzzed_files_give_description_errors(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DescriptionError):
        read_description(path)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=6))
def test_never_a_silent_wrong_colour(tmp_path_factory, colors):
    folder = tmp_path_factory.getbasetemp()
    Image.fromarray(np.array([colors], np.uint8)).save(folder / "colours.png")
    (folder / "colours.yaml").write_text(yaml.safe_dump(AERIAL))
    label_map = read_description(folder / "colours.yaml").label_map()
    known = [*domains.TILE_COLORS.values()]
    expected = [known.index(c) if c in known else 255 for c in colors]
    if all(c in known or c == (0, 0, 0) for c in colors):
        assert read_labels(folder / "colours.png", label_map).tolist() == [expected]
    else:
        with pytest.raises(DataError, match="doesn't define"):
            read_labels(folder / "colours.png", label_map)


def edited(content, place: list[float], value):
    """A copy of nested lists and dicts with one part, chosen by shares, replaced."""
    if not place or not isinstance(content, (dict, list)) or not content:
        return value
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = keys[int(place[0] * len(keys))]
    copy = content.copy()
    copy[key] = edited(content[key], place[1:], value)
    return copy


@settings(deadline=None, max_examples=150)
@given(
    place=st.lists(st.floats(0, 1, exclude_max=True), max_size=5),
    value=VALUES | st.sampled_from([10, 17, 200, rgb_code(10, 1, 0), "a.png", "../a.png", 2**70]),
)
def test_fuzzed_panoptic_files_give_errors_or_labels(tmp_path_factory, place, value):
    folder = tmp_path_factory.getbasetemp() / "fuzzed_panoptic"
    if not folder.is_dir():
        folder.mkdir()
        (folder / "data.yaml").write_text(yaml.safe_dump(panoptic(folder)))
        shutil.copy(folder / "panoptic.json", folder / "sound.json")
    content = json.loads((folder / "sound.json").read_text())
    (folder / "panoptic.json").write_text(json.dumps(edited(content, place, value)))
    try:
        dataset = load_dataset(f"{folder}/data.yaml:train")
        labels = [read_labels(r["sem_seg_file_name"], dataset.label_map) for r in dataset.records]
    except DataError:
        return
    assert all(set(np.unique(found).tolist()) <= {0, 1, 255} for found in labels)


@settings(deadline=None, max_examples=150)
@given(
    which=st.sampled_from(["rows.csv", "val.txt"]),
    content=st.text(alphabet="image,label\n\r\"'/.t_0sk\0é", max_size=80)
    | st.binary(max_size=40)
    | st.lists(
        st.sampled_from(["image,label,split", "tiles/north/000.jpg", "north/000", "val"])
    ).map(",".join),
)
def test_fuzzed_listings_give_errors_or_pairs(tmp_path_factory, which, content):
    folder = tmp_path_factory.getbasetemp() / "fuzzed_listings"
    if not folder.is_dir():
        domains.write_aerial(folder, 4)
        by_row = AERIAL | {"files": {"csv": "rows.csv"}, "splits": {"train": {}}}
        by_list = AERIAL | {"splits": {"train": {"share": 1.0}, "val": {"list": "val.txt"}}}
        (folder / "rows.csv.yaml").write_text(yaml.safe_dump(by_row))
        (folder / "val.txt.yaml").write_text(yaml.safe_dump(by_list))
    (folder / which).write_bytes(content if isinstance(content, bytes) else content.encode())
    for split in ("train", "val")[: 1 if which == "rows.csv" else 2]:
        try:
            dataset = load_dataset(f"{folder}/{which}.yaml:{split}")
        except DataError:
            continue
        for record in dataset.records:
            assert Path(record["file_name"]).is_file()
            assert Path(record["sem_seg_file_name"]).is_file()


def test_paths_with_home_and_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", "tiles")
    monkeypatch.delenv("NOT_SET", raising=False)
    for name in ("tiles/images", "tiles/masks"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"tiles/images/{name}.png")
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"tiles/masks/{name}.png")
    (tmp_path / "tiles/val.txt").write_text("b\n")
    text = (
        "root: ~\nclasses: [x, y]\nfiles: {images: $WHERE/images, labels: '${WHERE}/masks'}\n"
        "splits: {val: {list: $WHERE/val.txt}, all: {}}\n"
    )
    (tmp_path / "d.yaml").write_text(text)
    assert len(load_dataset("~/d.yaml:val").records) == 1
    assert len(load_dataset("$HOME/d.yaml:all").records) == 2
    (tmp_path / "e.yaml").write_text(text.replace("$WHERE/val", "$NOT_SET/val"))
    with pytest.raises(DataError, match=r"list: .*variable NOT_SET isn't set"):
        load_dataset("~/e.yaml:val")
    with pytest.raises(DataError, match="variable NOT_SET isn't set"):
        load_dataset("$NOT_SET/e.yaml:val")
