"""The doctor and train_net refuse the same settings, in the same words."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afdcd.cli.doctor import main as doctor
from afdcd.cli.train_net import main as train
from afdcd.embedded.trainer import Trainer

SETTINGS = {
    "SOLVER.BASE_LR": st.sampled_from(["-0.1", "0.0", "0.02", "30.0"]),
    "SOLVER.MAX_ITER": st.sampled_from(["-1", "0", "2"]),
    "SOLVER.MOMENTUM": st.sampled_from(["0.9", "1.5"]),
    "SOLVER.WEIGHT_DECAY": st.sampled_from(["0.0001", "-1.0"]),
    "SOLVER.WARMUP_METHOD": st.sampled_from(["linear", "slow"]),
    "SOLVER.ACCUMULATE": st.integers(0, 3).map(str),
    "SOLVER.IMS_PER_BATCH": st.integers(0, 4).map(str),
    "SOLVER.AMP.DTYPE": st.sampled_from(["bfloat16", "float8"]),
    "SOLVER.CHECKPOINTS_KEPT": st.integers(0, 2).map(str),
    "DATALOADER.ECHO": st.integers(-1, 2).map(str),
    "DATALOADER.NUM_WORKERS": st.sampled_from(["-2", "0"]),
    "INPUT.SCALE_CROP.SIZE": st.sampled_from(["[32,32]", "[0,32]", "[32]"]),
    "INPUT.SCALE_CROP.SCALES": st.sampled_from(["[0.5,2.0]", "[2.0,0.5]"]),
    "INPUT.RANDOM_FLIP": st.sampled_from(["none", "vertical"]),
    "TEST.SCALES": st.sampled_from(["[1.0]", "[0.0]", "[]"]),
    "TEST.WINDOW": st.sampled_from(["[]", "[16]", "[16,16]"]),
    "TEST.WINDOW_STRIDE": st.sampled_from(["[]", "[32,8]", "[8,8]"]),
    "TEST.EVAL_PERIOD": st.sampled_from(["0", "-3"]),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": st.sampled_from(["0", "7", "11"]),
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": st.sampled_from(["255", "0", "-1"]),
    "MODEL.PIXEL_STD": st.sampled_from(["[1.0,1.0,1.0]", "[1.0,0.0,1.0]", "[1.0]"]),
}


@pytest.mark.slow
@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    chosen=st.lists(st.sampled_from(sorted(SETTINGS)), unique=True, max_size=4).flatmap(
        lambda keys: st.fixed_dictionaries({key: SETTINGS[key] for key in keys})
    )
)
def test_doctor_and_training_refuse_the_same(configs, tmp_path_factory, chosen):
    words = ["--runtime", "embedded", "--config-file", str(configs / "student.yaml")]
    folder = tmp_path_factory.mktemp("run")
    overrides = [word for pair in chosen.items() for word in pair]
    overrides += ["OUTPUT_DIR", str(folder / "out")]
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said):
        doctor([*words[:2], "--json", *words[2:], *overrides])
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(wrong):
        # What comes before the training is looked at, not the training.
        patch.setattr(
            Trainer, "train", lambda self: {"mIoU": 0.0, "pACC": 0.0, "mBoundaryIoU": 0.0}
        )
        code = train([*words, *overrides])
    # The doctor also tries a step, which train_net doesn't.
    kinds = ("config", "learning-rate", "normalization", "classes", "dataset")
    refused = [f["text"] for f in json.loads(said.getvalue())["fix"] if f["kind"] in kinds]
    assert (code == 2) == bool(refused), (chosen, refused, wrong.getvalue())
    for text in refused:
        assert text in wrong.getvalue(), (text, wrong.getvalue())
    if len(refused) > 1:
        assert f"{len(refused)} problems:" in wrong.getvalue()
