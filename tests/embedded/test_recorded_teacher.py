"""Runs whose teacher is recorded: the same to the last bit, however the record came about."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from afdcd.checks.diagnose import diagnose
from afdcd.cli.record_teacher import main as record_teacher
from afdcd.cli.train_net import main as train_net
from afdcd.data.stream import SampleStream
from afdcd.data.view_store import ViewStore
from afdcd.data.views import ViewPlan
from afdcd.distill import Distiller
from afdcd.distill.schedule import LossSchedule
from afdcd.distill.teacher import FrozenTeacher
from afdcd.embedded.build import build_for_training
from afdcd.embedded.run import run
from afdcd.embedded.runtime import EmbeddedRuntime, configure
from afdcd.engine.interrupt import Interrupted
from afdcd.engine.recording import open_recording
from afdcd.engine.step_runner import StepRunner
from afdcd.engine.steps_in_use import StepsInUse
from afdcd.tasks import task_of
from afdcd.utils.problems import SetupError
from afdcd.utils.sample_keys import RECORDED, VIEW

ROOT = Path(__file__).parents[2]
TEACHER = "MODEL.DISTILLER.TEACHER"
DIMS = ("MODEL.DISTILLER.LOSSES.afdcd.DIMS", "16")


def words(record: Path, *more: str, views: int = 2) -> list[str]:
    folder = (f"{TEACHER}.RECORD.FOLDER", str(record), f"{TEACHER}.RECORD.VIEWS", str(views))
    return [*folder, *DIMS, *more]


def train(configs: Path, output: Path, *overrides: str, resume: bool = False) -> dict[str, Any]:
    config = configure(str(configs / "distilled.yaml"), ["OUTPUT_DIR", str(output), *overrides])
    run(config, resume=resume)
    return torch.load(output / "model_final.pth", weights_only=True)


def assert_equal_runs(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("model", "distiller"):
        assert one[part].keys() == other[part].keys()
        for name, value in one[part].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other[part][name]), name


@pytest.fixture
def complete(configs, tmp_path) -> Path:
    """A record of all twelve views."""
    record = tmp_path / "record"
    flags = ["--runtime", "embedded", "--config-file", str(configs / "distilled.yaml")]
    assert record_teacher([*flags, *words(record)]) == 0
    assert len(list(ViewStore(record / "views").there())) == 12
    return record


def test_recorded_as_it_goes_or_ahead(configs, tmp_path, complete, monkeypatch):
    as_it_goes = train(configs, tmp_path / "a", *words(tmp_path / "other"))
    there = list(ViewStore(tmp_path / "other/views").there())
    assert 0 < len(there) <= 12
    # A complete record takes neither the teacher nor its weights.
    (configs.parent / "teacher.pth").unlink()
    monkeypatch.setattr(FrozenTeacher, "__init__", None)
    ahead = train(configs, tmp_path / "b", *words(complete))
    assert_equal_runs(as_it_goes, ahead)
    workers = train(configs, tmp_path / "c", *words(complete), "DATALOADER.NUM_WORKERS", "2")
    assert_equal_runs(as_it_goes, workers)
    assert json.loads((tmp_path / "b/results.json").read_text())["teacher"]["mIoU"] > 0


EVERY_SECOND = [
    word
    for label in ("logit_kd", "afdcd")
    for word in (f"MODEL.DISTILLER.LOSSES.{label}.SCHEDULE", "{EVERY: 2}")
]


def test_steps_without_the_teacher_see_images_anew(configs, tmp_path, complete):
    """Every other step: its samples are those of a run without a record, or a teacher."""
    overrides = [*words(complete), *EVERY_SECOND]
    side = EmbeddedRuntime(configure(str(configs / "distilled.yaml"), overrides))
    recording = open_recording(side, side.training_records())
    recorded = side.training_stream(seed=5, views=recording.views)
    plain = side.training_stream(seed=5)
    for number in range(12):  # two images a step
        sample = recorded[number]
        assert (VIEW in sample) == (RECORDED in sample) == (number // 2 % 2 == 0)
        if VIEW not in sample:
            assert torch.equal(sample["image"], plain[number]["image"])
    whole = train(configs, tmp_path / "a", *overrides)
    assert_equal_runs(whole, train(configs, tmp_path / "b", *words(tmp_path / "x"), *EVERY_SECOND))
    final = tmp_path / "b/model_final.pth"
    final.unlink()
    (tmp_path / "b/last_checkpoint").write_text("model_0000005.pth")
    resumed = train(configs, tmp_path / "b", *words(complete), *EVERY_SECOND, resume=True)
    assert_equal_runs(whole, resumed)


def test_the_steps_of_an_echoed_batch():
    """A batch of 3 images is used in 2 steps; the loss asks for the teacher in each fourth."""
    used = StepsInUse((LossSchedule(every=4),), steps=100, batch=3, echo=2)
    assert used.samples == 25 * 3
    assert [used(number) for number in range(12)] == [True] * 3 + [False] * 3 + [True] * 3 + [
        False
    ] * 3
    late = StepsInUse((LossSchedule(start=0.5), LossSchedule(end=0.1)), 40, batch=2, echo=1)
    assert [used for used in range(80) if late(used)] == [*range(8), *range(40, 80)]


@pytest.mark.parametrize("dims", ["0", "16"])
def test_stopped_and_resumed(configs, tmp_path, monkeypatch, dims: str):
    more = ("MODEL.DISTILLER.LOSSES.afdcd.DIMS", dims, f"{TEACHER}.RECORD.DTYPE", "float16")
    whole = train(configs, tmp_path / "whole", *words(tmp_path / "one"), *more)
    update = StepRunner.update

    def update_and_interrupt(self: StepRunner, batch: list[Any], iteration: int) -> None:
        update(self, batch, iteration)
        if iteration == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StepRunner, "update", update_and_interrupt)
    with pytest.raises(Interrupted):
        train(configs, tmp_path / "parts", *words(tmp_path / "two"), *more)
    monkeypatch.setattr(StepRunner, "update", update)
    assert_equal_runs(
        whole, train(configs, tmp_path / "parts", *words(tmp_path / "two"), *more, resume=True)
    )


def test_a_record_serves_runs_of_fewer_losses(configs, tmp_path, complete):
    """Each loss by itself, from the record of both; but nothing is added to it."""
    for label, other in (("afdcd", "logit_kd"), ("logit_kd", "afdcd")):
        alone = (f"MODEL.DISTILLER.LOSSES.{other}", "null")
        own = train(configs, tmp_path / f"{label}_own", *words(tmp_path / label, *alone))
        lent = train(configs, tmp_path / f"{label}_lent", *words(complete, *alone))
        assert_equal_runs(own, lent)
    with pytest.raises(SetupError, match=r"TAPS and DIMS of the losses: .*predictor"):
        train(configs, tmp_path / "more", *words(tmp_path / "afdcd"))
    next((complete / "views").rglob("*.safetensors")).unlink()
    with pytest.raises(
        SetupError, match=r"holds \S+predictor too, .* 1 of its 12 views are missing"
    ):
        train(
            configs, tmp_path / "fewer", *words(complete, "MODEL.DISTILLER.LOSSES.logit_kd", "null")
        )
    assert not (tmp_path / "fewer").exists()


def test_a_record_knows_its_teachers_score(configs, tmp_path, complete, caplog):
    """It isn't scored again, though the teacher is there for a view that is missing."""
    next((complete / "views").rglob("*.safetensors")).unlink()
    known = {"camvid_val": {"mIoU": 77.75}}  # as Detectron2's runtime notes it, without the others
    (complete / "teacher.json").write_text(json.dumps(known))
    with caplog.at_level(logging.INFO, "afdcd"):
        train(configs, tmp_path / "run", *words(complete))
    assert "Teacher on camvid_val: mIoU 77.75\n" in caplog.text
    assert json.loads((tmp_path / "run/results.json").read_text())["teacher"]["mIoU"] == 77.75


def test_resumed_with_a_record_of_other_components(configs, tmp_path):
    train(configs, tmp_path / "run", *words(tmp_path / "one"))
    other = ("MODEL.DISTILLER.TEACHER.RECORD.SEED", "3")  # other views: other components
    train(configs, tmp_path / "run2", *words(tmp_path / "two"), *other)
    output = tmp_path / "run"
    (output / "model_final.pth").unlink()
    (output / "last_checkpoint").write_text("model_0000005.pth")
    with pytest.raises(SetupError, match="trained with other components"):
        train(configs, output, *words(tmp_path / "two"), *other, resume=True)


def test_damage_in_a_complete_record(configs, tmp_path, complete, capsys, caplog):
    """The view is missed in training, and recorded anew by the run that goes on."""
    whole = train(configs, tmp_path / "whole", *words(complete))
    for path in (complete / "views").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    command = ["--runtime", "embedded", "--config-file", str(configs / "distilled.yaml")]
    output = ["OUTPUT_DIR", str(tmp_path / "run")]
    assert train_net([*command, *output, *words(complete)]) == 1
    assert "go on with --resume" in capsys.readouterr().err
    assert f"{complete / 'views'}/" in caplog.text and ".safetensors is damaged" in caplog.text
    # The teacher is loaded once a view is known to be missing.
    assert train_net(["--resume", *command, *output, *words(complete)]) == 0
    assert_equal_runs(whole, torch.load(tmp_path / "run/model_final.pth", weights_only=True))


def test_a_disk_that_fills_ends_the_recording_only(configs, tmp_path, monkeypatch, caplog):
    whole = train(configs, tmp_path / "whole", *words(tmp_path / "one"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ViewStore, "write", full)
    with caplog.at_level(logging.WARNING):
        parts = train(configs, tmp_path / "parts", *words(tmp_path / "two"))
    assert_equal_runs(whole, parts)
    assert caplog.text.count("the teacher is run in every step from now on") == 1


def test_no_room_is_said_before_training(configs, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(SetupError, match="12 missing views take about"):
        train(configs, tmp_path / "run", *words(tmp_path / "record"))


def test_a_folder_of_something_else(configs, tmp_path):
    """Views among other files would be deleted with them, or they with views."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / ".hidden").touch()
    (folder / "diary.txt").touch()
    with pytest.raises(SetupError, match=r"notes holds diary\.txt, and no record: name an empty"):
        train(configs, tmp_path / "run", *words(folder))
    assert len(list(folder.iterdir())) == 2
    (folder / "diary.txt").unlink()
    train(configs, tmp_path / "run", *words(folder))


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_file_in_the_place_of_the_folder(configs, tmp_path, inside: str):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        SetupError, match=r"RECORD\.FOLDER \S+ can't be written: \S+/file is a file"
    ):
        train(configs, tmp_path / "run", *words(tmp_path / "file" / inside))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("INPUT.SCALE_CROP.SIZE", "[40, 40]"), "INPUT.SCALE_CROP.SIZE: [32, 32] -> [40, 40]"),
        (("INPUT.RANDOM_FLIP", "none"), "INPUT.RANDOM_FLIP"),
        ((f"{TEACHER}.RECORD.DTYPE", "float16"), "RECORD.DTYPE: int8 -> float16"),
        ((f"{TEACHER}.RECORD.SEED", "1"), "RECORD.SEED: 0 -> 1"),
        ((f"{TEACHER}.FLIP", "True"), "TEACHER.FLIP: False -> True"),
        (("MODEL.DISTILLER.LOSSES.afdcd.DIMS", "24"), "backbone.res5[24]"),
        (("SOLVER.AMP.ENABLED", "True"), "or that of SOLVER.AMP: float32 -> float16"),
        ((f"{TEACHER}.OPTS", "['MODEL.SEM_SEG_HEAD.ASPP_DILATIONS', '[1, 2, 3]']"), "ASPP_DILA"),
    ],
)
def test_what_differs_is_named_and_refused(configs, tmp_path, complete, overrides, named: str):
    with pytest.raises(SetupError) as error:
        train(configs, tmp_path / "run", *words(complete), *overrides)
    assert named in str(error.value)
    assert str(error.value).endswith("Name another folder, or delete it to record anew")
    report = diagnose(
        str(configs / "distilled.yaml"), [*words(complete), *overrides], EmbeddedRuntime
    )
    found = [finding.text for finding in report.to_fix if finding.kind == "record"]
    assert found == error.value.problems


def test_the_doctor_counts_recorded_views(configs, tmp_path, complete):
    for record, there in ((complete, 12), (tmp_path / "none", 0)):
        report = diagnose(str(configs / "distilled.yaml"), words(record), EmbeddedRuntime)
        assert report.facts["recorded teacher"] == {"views": there, "of": 12}
        assert not any(finding.kind == "record" for finding in report.to_fix)
        assert record.exists() == bool(there)


def test_other_files_are_named(configs, tmp_path, complete):
    weights = torch.load(configs.parent / "teacher.pth", weights_only=True)
    weights["model"]["backbone.res5.0.conv1.weight"] += 1e-3
    torch.save(weights, configs.parent / "teacher.pth")
    with pytest.raises(SetupError, match="the teacher's weights are another file's"):
        train(configs, tmp_path / "run", *words(complete))
    manifest = json.loads((complete / "record.json").read_text())
    manifest["images"][2][1] += 1
    (complete / "record.json").write_text(json.dumps(manifest))
    with pytest.raises(SetupError, match="training image 2 is"):
        train(configs, tmp_path / "run", *words(complete))
    (complete / "record.json").write_text("{")
    with pytest.raises(SetupError, match="can't be read"):
        train(configs, tmp_path / "run", *words(complete))


def test_runs_of_other_seeds_lengths_and_losses_share_a_record(configs, tmp_path, complete):
    train(
        configs,
        tmp_path / "run",
        *words(complete, views=1),
        *("SEED", "77", "SOLVER.MAX_ITER", "4", "MODEL.DISTILLER.LOSSES.afdcd.GROUPS", "4"),
    )


def test_several_processes_record_at_once(configs, tmp_path, complete):
    """Two commands on one folder: as one that records alone."""
    folder = tmp_path / "shared"
    command = [sys.executable, str(ROOT / "tools/record_teacher.py"), "--runtime", "embedded"]
    command += ["--config-file", str(configs / "distilled.yaml"), *words(folder)]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    one, other = ViewStore(complete / "views"), ViewStore(folder / "views")
    assert sorted(one.there()) == sorted(other.there())
    for key in one.there():
        first, second = one.read(*key), other.read(*key)
        assert first is not None and second is not None
        for name, value in first.items():
            assert torch.equal(value, second[name]), (key, name)


def test_recording_is_stopped_and_goes_on(configs, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "record"
    flags = ["--runtime", "embedded", "--config-file", str(configs / "distilled.yaml")]
    record, count = Distiller.record_views, [0]

    def record_and_stop(self: Distiller, batch: Any) -> None:
        record(self, batch)
        count[0] += 1
        if count[0] == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Distiller, "record_views", record_and_stop)
    assert record_teacher([*flags, *words(folder)]) == 130
    monkeypatch.setattr(Distiller, "record_views", record)
    there = {
        key: ViewStore(folder / "views").path(*key).stat().st_mtime_ns
        for key in ViewStore(folder / "views").there()
    }
    assert len(there) == 8
    assert record_teacher([*flags, *words(folder)]) == 0
    assert "holds 12 of 12 views" in capsys.readouterr().out
    for key, time in there.items():
        assert ViewStore(folder / "views").path(*key).stat().st_mtime_ns == time


@pytest.mark.parametrize(
    ("overrides", "words_of_error"),
    [
        ([], "RECORD.FOLDER is empty"),
        ([f"{TEACHER}.RECORD.FOLDER", "x", f"{TEACHER}.RECORD.VIEWS", "0"], "VIEWS must be at"),
        ([f"{TEACHER}.RECORD.FOLDR", "x"], "did you mean"),
        ([f"{TEACHER}.RECORD.FOLDER", "x", f"{TEACHER}.RECORD.DTYPE", "int4"], "int8, float16"),
    ],
)
def test_errors_of_the_command(configs, capsys, overrides, words_of_error: str):
    flags = ["--runtime", "embedded", "--config-file", str(configs / "distilled.yaml")]
    assert record_teacher([*flags, *overrides]) == 2
    assert words_of_error in capsys.readouterr().err


def losses_and_gradients(
    configs: Path, record: Path | None, dtype: str
) -> tuple[dict[str, float], torch.Tensor, Distiller]:
    """Of a step on the first views of four images."""
    recorded = words(record, f"{TEACHER}.RECORD.DTYPE", dtype) if record else list(DIMS)
    setup = EmbeddedRuntime(configure(str(configs / "distilled.yaml"), recorded))
    task = task_of(setup.find_dataset("camvid_train"))
    recording = open_recording(setup, task.dataset.records)
    model, _ = build_for_training(setup, 5, task, recording)
    assert isinstance(model, Distiller)
    mapper = setup.training_settings().loading.training_mapper(task.targets())
    stream = SampleStream(task.dataset.records, mapper, 5)
    batch = [stream.view(ViewPlan(0, 2), image, 0) for image in range(4)]
    model.train()
    torch.manual_seed(0)
    losses = model(batch)
    sum(losses.values()).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.student.parameters()])
    return {name: float(value.detach()) for name, value in losses.items()}, gradient, model


def test_float16_against_live(configs, tmp_path):
    live, expected, _ = losses_and_gradients(configs, None, "float16")
    losses, gradient, _ = losses_and_gradients(configs, tmp_path / "half", "float16")
    for name, value in live.items():
        assert losses[name] == pytest.approx(value, rel=1e-3), name
    assert (gradient - expected).norm() <= 0.01 * expected.norm()
    # int8: the figures are in docs/recording.md; here, that it isn't far off.
    losses, gradient, _ = losses_and_gradients(configs, tmp_path / "int8", "int8")
    for name, value in live.items():
        assert losses[name] == pytest.approx(value, rel=0.02), name
    assert (gradient - expected).norm() <= 0.1 * expected.norm()


def test_another_process_was_first(configs, tmp_path, complete, monkeypatch):
    """Its components are everyone's, though this process has fitted some, too."""
    from afdcd.engine import recording

    folder = tmp_path / "other"
    fit = recording.fit

    def fit_late(*arguments: Any) -> None:
        fit(*arguments)
        shutil.copy(complete / recording.COMPONENTS, folder / recording.COMPONENTS)
        stored = load_file(folder / recording.COMPONENTS)
        name = "backbone.res5[16].weight"
        save_file({**stored, name: stored[name] * 2}, folder / recording.COMPONENTS)

    monkeypatch.setattr(recording, "fit", fit_late)
    found = train(configs, tmp_path / "run", *words(folder))["distiller"]
    stored = load_file(folder / recording.COMPONENTS)
    assert torch.equal(found["backbone_res5_16.weight"], stored["backbone.res5[16].weight"])


@pytest.mark.parametrize(
    ("echo", "steps", "warned"), [(1, 24, False), (1, 30, True), (2, 30, True)]
)
def test_views_that_are_shown_often(
    configs, tmp_path, complete, caplog, echo: int, steps: int, warned: bool
):
    """Two images a step: of twelve views, each is shown 4 times in 24 steps, 5 times in 30."""
    more = ("SOLVER.MAX_ITER", str(steps), "DATALOADER.ECHO", str(echo))
    train(configs, tmp_path / "run", *words(complete, *more))
    assert ("will be shown about 5.0 times" in caplog.text) == warned
