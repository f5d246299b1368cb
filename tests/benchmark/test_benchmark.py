"""tools/benchmark.py at sizes that take seconds: what it reports, not how fast anything is."""

from __future__ import annotations

import json
import time

import cv2
import pytest
import torch

from afdcd.benchmark import machine
from afdcd.benchmark.contrast import subtractions
from afdcd.benchmark.flops import count_products
from afdcd.benchmark.memory import allocated_peak
from afdcd.benchmark.plain import PlainAfDCDLoss, plain_contrast
from afdcd.benchmark.settings import Setting, Variant, variants, with_student_alone
from afdcd.benchmark.sides import build_networks, build_side, make_batch, run_step
from afdcd.benchmark.timing import Times
from afdcd.cli.benchmark import main
from afdcd.cli.benchmark_timed import in_times_of_the_student
from afdcd.engine.build import SettingsReader
from afdcd.engine.optimizer import build_optimizer
from afdcd.losses import AfDCDLoss, patch_contrast

pytestmark = pytest.mark.slow

TINY = Setting(crop=(64, 64), batch=2, teacher_depth=18, width=0.125, pool=0)
FLAGS = ["--crop", "64", "64", "--teacher", "18", "--width", "0.125", "--pool", "0"]
FLAGS += ["--repeats", "1", "--threads", "1", "--anyway"]


@pytest.mark.parametrize("pool", [0, 2])
def test_the_plain_contrast_is_ours(pool: int):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(2, 12, 9, 10, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    options = {"groups": 3, "patch": (2, 2), "pool": pool, "temperature": 0.7}
    student.requires_grad_()
    expected = plain_contrast(student, teacher, **options)
    got = patch_contrast(student, teacher, **options)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    (slope,), (mine,) = (torch.autograd.grad(value, student) for value in (expected, got))
    torch.testing.assert_close(mine, slope, rtol=1e-9, atol=1e-12 * slope.abs().max().item())


def test_the_plain_loss_is_ours():
    torch.manual_seed(0)
    loss = AfDCDLoss(5, 8, groups=4, pool=2).double()
    plain = PlainAfDCDLoss(loss.align, loss.projector, groups=4, pool=2)
    student, teacher = (torch.randn(2, c, 16, 16, dtype=torch.float64) for c in (5, 8))
    mask = (torch.rand(2, 1, 16, 16) > 0.75).double()
    for name, value in plain(student, teacher, mask).items():
        torch.testing.assert_close(loss(student, teacher, mask)[name], value, rtol=1e-9, atol=0)


def test_both_sides_compute_the_same_step():
    """From the same weights; the masks differ, so the terms that depend on them are only near."""
    plain, exact = (build_side(TINY, variant) for variant in variants("cpu")[:2])
    marks: list[str] = []
    a = run_step(plain, make_batch(TINY), marks.append)
    assert marks == ["teacher", "student forward", "loss forward", "backward", "optimizer"]
    # Dropout draws from the global generator, which the plain side's mask draws from as well.
    b = run_step(exact, make_batch(TINY), marks.append)
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=0.2, atol=0)


def test_step(tmp_path, capsys):
    out = tmp_path / "step.json"
    flags = ["--only", "exact fp32", "bf16", "--no-loader"]
    words = [*flags, "--json", str(out), "--plot", str(tmp_path / "step.png")]
    assert main(["step", *FLAGS, *words]) == 0
    result = json.loads(out.read_text())
    names = ["plain, fp32", "exact fp32", "bf16"]
    names += ["student alone, fp32", "student alone, bf16"]
    for part in ("times", "memory", "products", "floor"):
        assert list(result[part]) == names, part
    row = result["times"]["exact fp32"]
    assert row["total"]["median"] == pytest.approx(
        sum(row[part]["median"] for part in row if part != "total")
    )
    assert result["products"]["exact fp32"]["teacher"] <= result["products"][names[0]]["teacher"]
    assert result["memory"]["exact fp32"]["tensors"] > 1e6
    height, width = cv2.imread(str(tmp_path / "step.png")).shape[:2]
    assert width > height > 20 * len(names)
    assert list(result["times"]["student alone, bf16"]) == [
        *("student forward", "backward", "optimizer", "total")
    ]
    totals = {name: row["total"]["median"] for name, row in result["times"].items()}
    found = {row["name"]: row["times_student"] for row in result["variants"]}
    assert list(found) == names
    for name, own in zip(names, ["fp32", "fp32", "bf16", "fp32", "bf16"], strict=True):
        assert found[name] == totals[name] / totals[f"student alone, {own}"], name
    text = capsys.readouterr().out
    assert "times plain" in text and "peak memory" in text
    assert "times student's own" in text and "of student's own" in text


def test_the_student_alone_is_of_the_same_precision():
    """On a GPU float32 comes in two precisions, rounded to TF32 and not."""
    chosen = with_student_alone(variants("cuda"))[:3]
    alone = [f"student alone, {name}" for name in ("TF32", "fp32", "bf16")]
    assert [variant.student_alone.name for variant in chosen] == alone
    for variant in chosen:
        own = variant.student_alone
        assert (own.dtype, own.tf32) == (variant.dtype, variant.tf32)
        assert own.alone and own.student_alone == own
    added = with_student_alone(chosen)[len(chosen) :]
    assert [variant.name for variant in added] == list(dict.fromkeys(alone))


def test_the_students_own_step_is_that_of_training_it_alone():
    """Against a step written out, without autocast, clipping or a teacher."""
    side = build_side(TINY, variants("cpu")[0].student_alone)
    student, _ = build_networks(TINY)
    student.train()
    cfg = TINY.network(TINY.student_depth)
    optimizer = build_optimizer(SettingsReader(cfg).optimizer(), student)
    torch.manual_seed(3)  # dropout
    expected = student(make_batch(TINY))
    sum(expected.values()).backward()
    optimizer.step()
    torch.manual_seed(3)
    marks: list[str] = []
    losses = run_step(side, make_batch(TINY), marks.append)
    assert marks == ["student forward", "backward", "optimizer"]
    assert losses.keys() == expected.keys() == {"loss_sem_seg", "loss_sem_seg_aux"}
    for name, value in student.state_dict().items():
        assert torch.equal(side.model.state_dict()[name], value), name


def test_times_of_the_student_are_ratios_of_medians():
    plain, low = Variant("plain", plain=True), Variant("bf16", dtype="bfloat16")
    chosen = with_student_alone([plain, low])
    seconds = {"plain": [8.0, 9.0, 1.0], "bf16": [3.0, 3.0, 3.0]}
    seconds |= {"student alone, fp32": [4.0, 2.0, 7.0], "student alone, bf16": [1.0, 6.0, 2.0]}
    rows = in_times_of_the_student(chosen, {k: Times({"all": v}) for k, v in seconds.items()})
    assert {row["name"]: row["times_student"] for row in rows} == {
        "plain": 2.0,
        "bf16": 1.5,
        "student alone, fp32": 1.0,
        "student alone, bf16": 1.0,
    }


def test_contrast(tmp_path, capsys):
    out = tmp_path / "contrast.json"
    words = ["--shape", "1", "64", "8", "8", "--json", str(out)]
    assert main(["contrast", *FLAGS, "--no-memory", *words]) == 0
    result = json.loads(out.read_text())
    assert list(result["times"]) == ["plain", "torch", "compiled"]
    # 4 patches of 256 tokens, 256 to compare each with, of 4 values.
    assert result["subtractions"] == subtractions((1, 64, 8, 8)) == 4 * 256 * 256 * 4


@pytest.mark.parametrize(
    ("over", "values"), [("crop", ["64x64", "64x96"]), ("processes", ["1", "2"])]
)
def test_scaling(tmp_path, over: str, values: list[str]):
    out = tmp_path / "scaling.json"
    words = ["--over", over, "--values", *values, "--only", "exact fp32", "--json", str(out)]
    assert main(["scaling", *FLAGS, *words]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [str(row[over]) for row in rows] == values
    for row in rows:
        times = [value for value in row.values() if isinstance(value, float)]
        assert times and min(times) > 0


def test_errors(configs, tmp_path):
    out = tmp_path / "errors.json"
    words = ["errors", "--config-file", str(configs / "distilled.yaml"), "--json", str(out)]
    assert main([*words, "--", "INPUT.SCALE_CROP.SIZE", "[64,64]"]) == 0
    rows = {row["deviation from float64"]: row for row in json.loads(out.read_text())["rows"]}
    for name in ("teacher's backbone.res5", "loss_reconstruction", "gradient of student"):
        row = rows[name]
        assert row["float32"] < 1e-3, (name, row)
        assert row["float32"] < row["float16"] < row["bfloat16"], (name, row)


def test_refuses_on_a_loaded_machine(monkeypatch, capsys):
    from afdcd.cli import benchmark

    monkeypatch.setattr(benchmark, "idle_load", lambda: 0.5)
    assert main(["contrast", "--shape", "1", "32", "8", "8"]) == 2
    assert "other processes take 50% of the cores" in capsys.readouterr().err


def test_a_loaded_machine_is_named_in_the_report(monkeypatch, capsys):
    monkeypatch.setattr(machine.LoadMeter, "others", lambda self: 0.5)
    words = ["--shape", "1", "32", "8", "8", "--no-memory", "--repeats", "1"]
    assert main(["contrast", *words, "--anyway"]) == 0
    assert "MEASURED ON A LOADED MACHINE" in capsys.readouterr().out
    assert main(["contrast", *words, "--max-load", "0.6"]) == 0
    assert "LOADED" not in capsys.readouterr().out
    monkeypatch.setattr("afdcd.cli.benchmark.idle_load", lambda: 0.0)
    assert main(["contrast", *words]) == 2  # what was measured isn't thrown away
    said = capsys.readouterr()
    assert "MEASURED ON A LOADED MACHINE" in said.out
    assert "50% of the cores" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "1"], "--batch at least 2"),
        (["--only", "fast"], "--only takes some of 'exact fp32'"),
        (["scaling", "--values", "big"], "--values big: not a value of crop"),
        (["errors"], "errors needs --config-file"),
    ],
)
def test_refusals(words: list[str], message: str, capsys):
    assert main([*words, "--anyway"]) == 2
    assert message in capsys.readouterr().err


def test_products_are_counted_by_hand():
    plain, exact, *_ = variants("cpu")
    counts = count_products(TINY, plain)
    # Forward: align 64 -> 64 channels (equal: none) and two conv3x3 of 64 channels at 2 x 8 x 8.
    projector = 2 * 2 * (2 * 8 * 8) * 9 * 64 * 64
    assert counts["loss forward"] == projector
    # A quarter of the positions is kept, of 128: the first convolution costs about a quarter.
    assert counts["loss forward"] * 0.55 < count_products(TINY, exact)["loss forward"]
    assert count_products(TINY, exact)["loss forward"] < counts["loss forward"] * 0.75


def test_peak_of_tensors():
    def call() -> None:
        a = torch.zeros(1 << 20)
        b = a + 1
        del a
        (b * 2).sum()

    # Two of 4 MiB at a time, and a few bytes.
    assert 8 << 20 <= allocated_peak(call) < (8 << 20) + 4096


def test_times_are_summed_by_repeat():
    times = Times()
    for values in ((1.0, 2.0), (3.0, 1.0), (2.0, 9.0)):
        times.add(dict(zip("ab", values, strict=True)))
    assert times.totals == [3.0, 4.0, 11.0]
    assert times.summary()["total"] == {"median": 4.0, "least": 3.0, "most": 11.0}


def test_load_of_other_processes(monkeypatch):
    """Of 2 seconds of 4 cores, 5 were busy, 1 of them in this process: 4 of 8 are others'."""
    readings = iter([(10.0, 100.0, 7.0), (12.0, 105.02, 8.0)])
    monkeypatch.setattr(machine, "_readings", lambda: next(readings))
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 4)
    assert machine.LoadMeter().others() == pytest.approx(0.5)


def test_the_load_of_this_process_is_its_own():
    before = machine._readings()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    seconds, busy, own = (b - a for a, b in zip(before, machine._readings(), strict=True))
    assert 0.27 <= own <= 0.6
    # The kernel counts both in ticks of 10 ms.
    assert busy >= own - 0.05 and seconds >= 0.29


def test_load_of_an_idle_meter_is_a_share():
    assert 0 <= machine.idle_load(0.05) <= 2
