"""Runs on images without labels, beside labelled ones and alone."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from afdcd.checks.diagnose import diagnose
from afdcd.checks.step import load_batch
from afdcd.checks.training_data import find_training_data
from afdcd.cli.train_net import main as train_net
from afdcd.config import ConfigError
from afdcd.data.stream import BatchMix
from afdcd.data.view_store import ViewStore
from afdcd.embedded.run import run
from afdcd.embedded.runtime import EmbeddedRuntime, configure
from afdcd.engine.interrupt import Interrupted
from afdcd.engine.recording import open_recording
from afdcd.engine.step_runner import StepRunner
from afdcd.models import build_segmentor
from afdcd.utils.findings import Report
from afdcd.utils.problems import SetupError
from afdcd.utils.sample_keys import VIEW

LOGITS = "MODEL.DISTILLER.LOSSES.logit_kd"
RECORD = "MODEL.DISTILLER.TEACHER.RECORD"


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of five photos of several sizes and formats, one of them below another folder."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b.jpg", "c.jpg", "more/d.png", "more/e.bmp")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + 4 * number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


def words(photos: Path, *more: str) -> list[str]:
    return ["DATASETS.UNLABELED", f"['{photos}']", *more]


def train(configs: Path, output: Path, *overrides: str, resume: bool = False) -> dict[str, Any]:
    config = configure(str(configs / "distilled.yaml"), ["OUTPUT_DIR", str(output), *overrides])
    run(config, resume=resume)
    return torch.load(output / "model_final.pth", weights_only=True)


def assert_equal_runs(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("model", "distiller"):
        for name, value in one[part].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other[part][name]), name


def samples(configs: Path, *overrides: str) -> Any:
    cfg = configure(str(configs / "distilled.yaml"), list(overrides))
    return EmbeddedRuntime(cfg).training_stream(seed=3)


def test_every_batch_has_its_share(configs, photos):
    stream = samples(configs, *words(photos), "SOLVER.IMS_PER_BATCH", "4")
    batches = [[stream[4 * k + i] for i in range(4)] for k in range(30)]
    for batch in batches:
        flags = [bool(sample.get("unlabeled")) for sample in batch]
        assert flags == [False, True, False, True]  # halves of it, too
        for sample, flag in zip(batch, flags, strict=True):
            assert (sample["sem_seg"] == 255).all() == flag
            assert sample["sem_seg"].dtype == torch.int64
    # Each kind is shuffled by itself, and comes in epochs of its own.
    names = [s["file_name"] for batch in batches for s in batch if s.get("unlabeled")]
    assert set(Counter(names[: 5 * 12]).values()) == {12}
    labeled = [s["file_name"] for batch in batches for s in batch if not s.get("unlabeled")]
    assert set(Counter(labeled).values()) == {10} and len(set(labeled)) == 6


@pytest.mark.parametrize(("batch", "unlabeled"), [(2, 1), (8, 6), (8, 2), (12, 4), (5, 3), (3, 1)])
def test_a_mix_beside_a_naive_count(batch: int, unlabeled: int):
    mix, seen = BatchMix(batch, unlabeled), Counter()
    for number in range(5 * batch):
        flag, index = mix.place(number)
        assert index == seen[flag]
        seen[flag] += 1
        if (number + 1) % batch == 0:
            count = (number + 1) // batch
            assert seen == {True: count * unlabeled, False: count * (batch - unlabeled)}
    for parts in range(1, batch):
        if batch % parts == 0 and unlabeled % parts == 0:
            size = batch // parts
            for part in range(parts):
                flags = [mix.place(part * size + i)[0] for i in range(size)]
                assert sum(flags) == unlabeled // parts


def test_labelled_samples_are_those_of_a_run_without(configs, photos):
    """The order of the labelled images doesn't depend on what joins them."""
    few = samples(configs, *words(photos), "SOLVER.IMS_PER_BATCH", "4")
    alone = samples(configs)
    names = [few[k]["file_name"] for k in range(40) if not few[k].get("unlabeled")]
    assert names == [alone[k]["file_name"] for k in range(20)]


def test_the_task_counts_labelled_images_only(configs, photos):
    """Its gradient is that of the labelled part of the batch alone."""
    torch.manual_seed(0)
    model = build_segmentor(num_classes=11, norm=partial(nn.GroupNorm, 1)).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    stream = samples(configs, *words(photos), "SOLVER.IMS_PER_BATCH", "4")
    batch = [stream[k] for k in range(4)]
    grads = []
    for part in (batch, [sample for sample in batch if not sample.get("unlabeled")]):
        model.zero_grad()
        sum(model(part).values()).backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-4, atol=1e-6, msg=name)


RECORDED = (f"{RECORD}.FOLDER", "record", f"{RECORD}.VIEWS", "2")
ALONE = ("MODEL.DISTILLER.IMAGES", "unlabeled")


@pytest.mark.parametrize("more", [(), RECORDED, ALONE, (*RECORDED, *ALONE)])
def test_stopped_and_resumed(configs, photos, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    options = words(photos, "SOLVER.ACCUMULATE", "2", "SOLVER.IMS_PER_BATCH", "8", *more)
    options += ["MODEL.SEM_SEG_HEAD.NAME", "ASPPHead", f"{LOGITS}.MIN_CONFIDENCE", "0.05"]
    whole = train(configs, tmp_path / "whole", *options)
    update = StepRunner.update

    def update_and_interrupt(self: StepRunner, batch: list[Any], iteration: int) -> None:
        update(self, batch, iteration)
        if iteration == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StepRunner, "update", update_and_interrupt)
    with pytest.raises(Interrupted):
        train(configs, tmp_path / "parts", *options)
    monkeypatch.setattr(StepRunner, "update", update)
    assert_equal_runs(whole, train(configs, tmp_path / "parts", *options, resume=True))
    lines = (tmp_path / "whole/metrics.json").read_text().splitlines()
    logged = {key: value for line in lines for key, value in json.loads(line).items()}
    assert 0 < logged["confident_pixels"] <= 1
    if "record" in more:
        there = {image for image, _ in ViewStore(tmp_path / "record/views").there()}
        assert there - set(range(6)), "views of unlabelled images are recorded"
        assert bool(there & set(range(6))) == (more == RECORDED), "of labelled ones where compared"


def test_labelled_images_that_are_not_compared_need_no_views(configs, photos, tmp_path):
    options = words(photos, *ALONE, "SOLVER.IMS_PER_BATCH", "4", *RECORDED[2:])
    plain = samples(configs, *options)
    cfg = configure(
        str(configs / "distilled.yaml"), [*options, RECORDED[0], str(tmp_path / "record")]
    )
    runtime = EmbeddedRuntime(cfg)
    recording = open_recording(runtime, runtime.training_records())
    assert recording.total == len(recording.missing_views()) == 5 * 2
    assert recording.used.samples == 2 * cfg.SOLVER.MAX_ITER
    stream = runtime.training_stream(seed=3, views=recording.views)
    for number in range(16):
        sample = stream[number]
        assert (VIEW in sample) == bool(sample.get("unlabeled"))
        if VIEW not in sample:
            assert torch.equal(sample["image"], plain[number]["image"])


def test_a_folder_named_on_the_command_line(configs, photos, tmp_path, monkeypatch, caplog):
    """It is found from the working directory, and a resumed run knows it as the same."""
    monkeypatch.chdir(tmp_path)
    named = ["DATASETS.UNLABELED", "['photos/']"]
    train(configs, tmp_path / "run", *named)
    with caplog.at_level("WARNING"):
        train(configs, tmp_path / "run", *named, resume=True)
    assert "other settings" not in caplog.text
    saved = configure(str(tmp_path / "run/config.yaml"), [])
    assert list(saved.DATASETS.UNLABELED) == [str(photos)]


def test_the_doctor_tries_a_step_on_both_kinds(configs, photos):
    named = words(photos, "DATASETS.UNLABELED_SHARE", "0.25", "SOLVER.IMS_PER_BATCH", "4")
    runtime = EmbeddedRuntime(configure(str(configs / "distilled.yaml"), named))
    found = find_training_data(runtime, [])
    settings = runtime.training_settings()
    batch = load_batch(settings, found.together, 2, Report())
    assert [bool(sample.get("unlabeled")) for sample in batch] == [False, True]


@pytest.mark.parametrize("images", ["unlabeled", "labeled"])
def test_images_that_can_not_be_compared(configs, images: str):
    with pytest.raises((ConfigError, SetupError), match=r"MODEL\.DISTILLER\.IMAGES"):
        run(configure(str(configs / "distilled.yaml"), ["MODEL.DISTILLER.IMAGES", images]))


def test_labels_are_never_opened(configs, tmp_path):
    """A data set's images, with right labels, with wrong ones, and without any."""
    shutil.copytree(
        tmp_path / "data/camvid/train", tmp_path / "data/camvid/test", dirs_exist_ok=True
    )
    for path in (tmp_path / "data/camvid/test").iterdir():
        pixels = np.asarray(Image.open(path))[:, ::-1]
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    labels = tmp_path / "data/camvid/testannot"
    shutil.copytree(tmp_path / "data/camvid/trainannot", labels, dirs_exist_ok=True)
    more = ["DATASETS.UNLABELED", "['camvid_test']"]
    right = train(configs, tmp_path / "a", *more)
    for path in labels.iterdir():
        path.write_bytes(b"no image at all")
    wrong = train(configs, tmp_path / "b", *more)
    shutil.rmtree(labels)
    none = train(configs, tmp_path / "c", *more)
    assert_equal_runs(right, wrong)
    assert_equal_runs(right, none)


def test_a_described_split_without_its_labels(configs, photos, tmp_path):
    (tmp_path / "photos.yaml").write_text(
        "classes: [" + ", ".join(f"c{k}" for k in range(11)) + "]\n"
        "files: {images: photos, labels: no_such_folder}\n"
        "splits: {some: {list: some.txt}, half: {share: 0.4}}\n"
    )
    (tmp_path / "some.txt").write_text("a\nmore/d\n")
    for split, count in (("some", 2), ("half", 1)):
        stream = samples(configs, "DATASETS.UNLABELED", f"['{tmp_path}/photos.yaml:{split}']")
        assert len(stream.records) == 6 + count


@pytest.mark.parametrize("losses", ["features", "logits", "both"])
def test_no_labels_at_all_and_a_warm_start(configs, photos, tmp_path, losses: str):
    options = words(photos, "DATASETS.TRAIN", "[]")
    options += {
        "features": ["MODEL.DISTILLER.LOSSES.logit_kd", "null"],
        "logits": ["MODEL.DISTILLER.LOSSES.afdcd", "null"],
        "both": [],
    }[losses]
    train(configs, tmp_path / "run", *options)
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    assert json.loads(lines[0])["loss_sem_seg"] == 0.0
    start = ["MODEL.WEIGHTS", str(tmp_path / "run/student_final.pth")]
    config = configure(str(configs / "student.yaml"), [*start, "OUTPUT_DIR", str(tmp_path / "b")])
    run(config)


def test_the_cache_tells_labelled_and_unlabelled_apart(configs, tmp_path):
    """The same files stand in both."""
    for cache in (["DATALOADER.CACHE_MB", "64"], ["DATALOADER.CACHE_DIR", str(tmp_path / "c")]):
        stream = samples(configs, "DATASETS.UNLABELED", "['camvid_train']", *cache)
        for number in range(40):
            sample = stream[number]
            assert (sample["sem_seg"] == 255).all() == bool(sample.get("unlabeled"))


def test_what_is_wrong_is_said_before_training(configs, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes((photos / "a.png").read_bytes()[:200])
    shutil.copy(tmp_path / "data/camvid/val/00001.png", photos / "copy.png")
    val, half = "DATASETS.UNLABELED", "DATASETS.UNLABELED_SHARE"
    for options, message in (
        (words(tmp_path / "empty"), "no images found"),
        (words(tmp_path / "nowhere"), "is no folder"),
        (words(tmp_path / "broken"), "broken/a.png"),
        ([val, "['camvid_vall']"], "camvid_val"),
        ([val, "['camvid_val']"], "share 2 images"),
        (words(photos), "copy.png"),
        (words(photos, half, "0.3"), "0.6 images"),
        (words(photos, half, "1.0"), "at least one with labels"),
        (words(photos, "SOLVER.ACCUMULATE", "2", "SOLVER.IMS_PER_BATCH", "6"), "equally many"),
        (words(photos, "DATASETS.TEST", "[]"), "DATASETS.TEST is empty"),
    ):
        with pytest.raises((SetupError, ConfigError), match=message):
            train(configs, tmp_path / "run", *options)
    config = configure(str(configs / "student.yaml"), words(photos))
    with pytest.raises(SetupError, match="only a teacher to learn from"):
        run(config)
    assert not list((tmp_path / "run").glob("*.*"))


def test_a_single_image_is_enough(configs, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(folder / "a.png")
    train(configs, tmp_path / "run", *words(folder))


def test_folders_are_relative_to_the_config(configs, photos, tmp_path, monkeypatch):
    (configs / "more.yaml").write_text(
        "_BASE_: distilled.yaml\nDATASETS: {UNLABELED: ['../photos/']}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cfg = configure(str(configs / "more.yaml"), [])
    assert len(EmbeddedRuntime(cfg).training_records()) == 6 + 5


def test_the_doctor_counts_them_and_looks_at_the_teacher(configs, photos, tmp_path, monkeypatch):
    from afdcd.tasks import SemanticSegmentation

    config = str(configs / "distilled.yaml")
    report = diagnose(config, words(photos, "OUTPUT_DIR", str(tmp_path / "o")), EmbeddedRuntime)
    assert report.facts[f"unlabelled images of {photos}"]["of"] == 5
    assert f"teacher's confidence on {photos}" in report.facts
    assert not any(finding.kind == "confidence" for finding in report.findings)
    values = iter([0.95] * 6 + [0.6] * 5)
    monkeypatch.setattr(SemanticSegmentation, "confidence", lambda *_: next(values))
    report = diagnose(config, words(photos, "OUTPUT_DIR", str(tmp_path / "o")), EmbeddedRuntime)
    assert any("of another domain" in finding.text for finding in report.findings)


def test_the_command_says_how_many(configs, photos, tmp_path, caplog):
    flags = ["--runtime", "embedded", "--config-file", str(configs / "distilled.yaml")]
    with caplog.at_level("INFO"):
        assert train_net([*flags, "OUTPUT_DIR", str(tmp_path / "run"), *words(photos)]) == 0
    assert "6 training images with labels, 5 without" in caplog.text
