"""``MODEL.DISTILLER.LOSSES``: merged, written and read again, and understood."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afdcd.config import (
    ConfigError,
    differences,
    embedded_config,
    merge_content,
    merge_file,
    merge_overrides,
)
from afdcd.distill import DistillerSettings, LossSettings, distiller_settings
from afdcd.distill.teacher_settings import TeacherSettings
from afdcd.losses.afdcd.kernels import contrast
from afdcd.losses.settings import as_setting
from afdcd.utils.problems import SettingsError

KEY = "MODEL.DISTILLER.LOSSES"
RES4, RES5 = ["backbone.res4", "backbone.res4"], ["backbone.res5", "backbone.res5"]
BASE = """
MODEL:
  DISTILLER:
    LOSSES:
      logits: {NAME: logit_kd, WEIGHT: 0.5}
      context:
        NAME: afdcd
        TAPS: [[backbone.res5, backbone.res5]]
        RECONSTRUCTION_WEIGHT: 2e-6
        CONTRAST_WEIGHT: 0.01
        PATCH: [2, 2]
"""
TOP = """
_BASE_: base.yaml
MODEL:
  DISTILLER:
    LOSSES:
      low: {NAME: afdcd, TAPS: [[backbone.res4, backbone.res4]], WEIGHT: 3, GROUPS: 8}
      context: {CONTRAST_WEIGHT: 0.08}
"""


def new_config(runtime: str = "embedded"):
    if runtime == "embedded":
        return embedded_config()
    from afdcd.d2 import get_cfg

    return get_cfg()


RUNTIMES = ["embedded"]
if importlib.util.find_spec("detectron2") is not None:
    RUNTIMES.append("detectron2")


@pytest.fixture
def top(tmp_path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "top.yaml").write_text(TOP)
    return tmp_path / "top.yaml"


def losses_of(cfg) -> dict[str, LossSettings]:
    return {loss.label: loss for loss in distiller_settings(cfg).losses}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_base_file_and_command_line(top: Path, runtime: str):
    """One loss twice on different taps, another switched off, a base's single weight replaced."""
    cfg = new_config(runtime)
    merge_file(cfg, top)
    assert list(losses_of(cfg)) == ["logits", "context", "low"]
    merge_overrides(cfg, [f"{KEY}.logits", "null", f"{KEY}.low.CONTRAST_WEIGHT", "0.1"])
    losses = losses_of(cfg)
    assert list(losses) == ["context", "low"]
    context, low = losses["context"], losses["low"]
    assert context.name == low.name == "afdcd"
    assert context.weights == {"reconstruction": 2e-6, "contrast": 0.08}
    assert (context.factors, context.arguments) == ((1.0,), {"patch": (2, 2)})
    assert context.taps == (tuple(RES5),) and low.taps == (tuple(RES4),)
    assert low.weights == {"reconstruction": 2e-6, "contrast": 0.1}
    assert (low.factors, low.arguments) == ((3.0,), {"groups": 8})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_written_and_read_again(top: Path, tmp_path, runtime: str):
    cfg = new_config(runtime)
    merge_file(cfg, top)
    merge_overrides(cfg, [f"{KEY}.logits", "None"])
    (tmp_path / "config.yaml").write_text(cfg.dump(sort_keys=False))
    again = new_config(runtime)
    merge_file(again, tmp_path / "config.yaml")
    assert again == cfg and differences(again, cfg) == []
    assert distiller_settings(again) == distiller_settings(cfg)  # the order, too
    # A label that was switched off is switched on by naming it anew.
    merge_overrides(again, [f"{KEY}.logits.NAME", "logit_kd"])
    assert losses_of(again)["logits"].factors == (1.0,)
    assert differences(cfg, again) == [f"{KEY}.logits.NAME: (none) -> logit_kd"]


def test_what_the_user_wrote_is_left_alone():
    content = {"MODEL": {"DISTILLER": {"LOSSES": {"afdcd": {"POOL": 0}}}}}
    merge_content(embedded_config(), content, "test")
    assert content == {"MODEL": {"DISTILLER": {"LOSSES": {"afdcd": {"POOL": 0}}}}}


def test_defaults_and_a_factor_for_each_pair():
    cfg = embedded_config()
    merge_overrides(cfg, [f"{KEY}.logit_kd", "{}", f"{KEY}.afdcd.TAPS", f"{[RES4, RES5]}"])
    merge_overrides(cfg, [f"{KEY}.afdcd.WEIGHT", "[0.5, 2]"])
    logit_kd, afdcd = distiller_settings(cfg).losses
    assert logit_kd == LossSettings("logit_kd")
    assert logit_kd.taps == (("sem_seg_head.predictor", "sem_seg_head.predictor"),)
    assert afdcd.factors == (0.5, 2.0) and len(afdcd.taps) == 2
    assert afdcd.weights == {"reconstruction": 2e-6, "contrast": 0.005}


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,6}", fullmatch=True).filter(
    lambda word: word not in ("null", "y", "n", "yes", "no", "on", "off", "true", "false")
)
weights = st.floats(0, 1e6, allow_nan=False)
afdcd = st.fixed_dictionaries(
    {"NAME": st.just("afdcd")},
    optional={
        "TAPS": st.just([RES5]),
        "WEIGHT": weights | st.integers(0, 9),
        "RECONSTRUCTION_WEIGHT": weights,
        "CONTRAST_WEIGHT": weights.map(repr),  # as YAML reads 2e-6
        "MASK": st.sampled_from(["random", "centre"]),
        "MASK_RATIO": st.floats(0, 1),
        "GROUPS": st.integers(2, 64),
        "PATCH": st.lists(st.integers(1, 8), min_size=2, max_size=2),
        "TEMPERATURE": st.floats(1e-6, 10),
    },
)
logit_kd = st.fixed_dictionaries(
    {"NAME": st.just("logit_kd")}, optional={"WEIGHT": weights, "TEMPERATURE": st.floats(0.1, 9)}
)


@pytest.mark.slow
@given(
    losses=st.dictionaries(names, afdcd | logit_kd | st.none(), min_size=1, max_size=4).filter(
        lambda found: any(found.values())
    )
)
def test_settings_survive_being_written(tmp_path_factory, losses):
    path = tmp_path_factory.getbasetemp() / "losses.yaml"
    cfg, again = embedded_config(), embedded_config()
    merge_content(cfg, {"MODEL": {"DISTILLER": {"LOSSES": losses}}}, "test")
    path.write_text(cfg.dump(sort_keys=False))
    merge_file(again, path)
    settings = distiller_settings(again)
    assert settings == distiller_settings(cfg) and again == cfg
    assert [loss.label for loss in settings.losses] == [k for k, v in losses.items() if v]
    for loss in settings.losses:
        given = losses[loss.label]
        assert loss.factors == (float(given.get("WEIGHT", 1.0)),)
        for key, value in given.items():
            if key.lower() in loss.arguments:
                expected = tuple(value) if isinstance(value, list) else value
                assert loss.arguments[key.lower()] == expected
        if "CONTRAST_WEIGHT" in given:
            assert loss.weights["contrast"] == float(given["CONTRAST_WEIGHT"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([KEY, "['afdcd']"], r"takes labels with a loss each, such as \{afdcd: .*got \['afdcd'\]"),
        ([f"{KEY}.afdcd", "1.0"], r"takes a loss's keys, such as \{NAME: afdcd.*or null"),
        (
            [KEY, "{}"],
            rf"{KEY} \{{\}} would change nothing.*{KEY}\.logits null {KEY}\.context null",
        ),
        ([f"{KEY}.logit", "null"], r"no loss logit that could be.*did you mean logits"),
    ],
)
def test_refused_when_merged(top: Path, words: list[str], message: str):
    cfg = embedded_config()
    merge_file(cfg, top)
    with pytest.raises(ConfigError, match=message):
        merge_overrides(cfg, words)


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ({"context.GRUOPS": "8"}, [f"no setting {KEY}.context.GRUOPS; did you mean GROUPS"]),
        ({"context.groups": "8"}, [f"no setting {KEY}.context.groups; "]),
        ({"logits.CONTRAST_WEIGHT": "1"}, ["logits.CONTRAST_WEIGHT; "]),
        ({"context.NAME": "afdc"}, [f"{KEY}.context.NAME: nothing", "did you mean afdcd"]),
        ({"contxt.WEIGHT": "1"}, [f"{KEY}.contxt has no NAME", "did you mean context"]),
        ({"context.TAPS": "[['backbone.res5']]"}, ["a pair of taps is"]),
        ({"context.TAPS": "['a', 'b']"}, ["a pair of taps is", "got 'a'"]),
        ({"context.TAPS": "[]"}, ["context.TAPS is empty"]),
        ({"context.TAPS": "3"}, ["context.TAPS takes a list of pairs"]),
        ({"context.WEIGHT": "[1, 2]"}, ["WEIGHT has 2 factors for 1 pairs"]),
        ({"context.WEIGHT": "much"}, ["context.WEIGHT takes a number; got 'much'"]),
        ({"context.WEIGHT": "True"}, ["context.WEIGHT takes a number; got True"]),
        ({"context.WEIGHT": "1e999"}, ["context.WEIGHT must be 0 or more; got inf"]),
        ({"context.CONTRAST_WEIGHT": "-1"}, ["CONTRAST_WEIGHT must be 0 or more; got -1"]),
        ({"context.GROUPS": "8.5"}, ["context.GROUPS takes a whole number; got 8.5"]),
        ({"context.PATCH": "4"}, ["context.PATCH takes a list such as [4, 4]; got 4"]),
        ({"context.PATCH": "[4, 'x']"}, ["context.PATCH takes a whole number; got 'x'"]),
        ({"context.KIND": "3"}, ["context.KIND takes a word; got 3"]),
        ({"context.MASK_RATIO": "2"}, [f"{KEY}.context: mask_ratio is the share"]),
        (
            # Everything at once, also of one loss.
            {
                "context.TEMPERATURE": "0",
                "context.MASK": "half",
                "logits.TEMPERATURE": "-1",
            },
            ["context: temperature must", "context: mask must", "logits: temperature must"],
        ),
    ],
)
def test_refused_when_understood(top: Path, words: dict[str, str], messages: list[str]):
    cfg = embedded_config()
    merge_file(cfg, top)
    merge_overrides(cfg, [word for key, value in words.items() for word in (f"{KEY}.{key}", value)])
    with pytest.raises(SettingsError) as caught:
        distiller_settings(cfg)
    for message in messages:
        assert message in str(caught.value)
    assert len(caught.value.problems) == (len(messages) if len(words) > 1 else 1)


def test_whether_or_not():
    """Settings that are true or false, which losses of one's own may have."""
    assert as_setting(True, False, "context.EXACT") is True
    for value in (1, "True"):
        with pytest.raises(ValueError, match=f"context.EXACT takes True or False; got {value!r}"):
            as_setting(value, False, "context.EXACT")


@pytest.mark.parametrize(("losses", "count"), [({}, 1), ({"afdcd": None}, 1)])
def test_no_loss(losses, count):
    cfg = embedded_config()
    merge_content(cfg, {"MODEL": {"DISTILLER": {"LOSSES": losses, "LR_FACTOR": 0.0}}}, "test")
    with pytest.raises(SettingsError, match=r"names no loss.*LR_FACTOR must be above 0") as caught:
        distiller_settings(cfg)
    assert len(caught.value.problems) == 1 + count


def test_from_python():
    """The same checks as of a config."""
    with pytest.raises(SettingsError, match=r"no setting.*GRUOPS; did you mean GROUPS"):
        LossSettings("afdcd", arguments={"gruops": 8})
    with pytest.raises(SettingsError, match="has no term 'contrasts'; did you mean contrast"):
        LossSettings("afdcd", weights={"contrasts": 1.0})
    with pytest.raises(SettingsError, match=r"a word of letters.*got 'a\.b'"):
        LossSettings("a.b", name="afdcd")
    with pytest.raises(SettingsError, match="the label 'afdcd' twice"):
        DistillerSettings((LossSettings("afdcd"), LossSettings("afdcd")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "_triton_works", lambda: False)
        with pytest.raises(SettingsError, match=r"'triton' needs Triton .* and a GPU"):
            LossSettings("afdcd", arguments={"kernel": "triton"})
    with pytest.raises(SettingsError, match="LOGITS_STRIDE must be at least 0; got -1"):
        TeacherSettings(logits_stride=-1, name="net.pt")
    with pytest.raises(SettingsError, match="LOGITS_STRIDE 4 is for other people's models"):
        TeacherSettings(logits_stride=4)
    with pytest.raises(SettingsError, match=r"SCALES are factors from 0.1 to 16.*got \[0.01\]"):
        TeacherSettings(scales=(0.01,))
    with pytest.raises(SettingsError, match=r"DTYPE takes '', 'float32'.*got 'half'"):
        DistillerSettings((LossSettings("afdcd"),), teacher=TeacherSettings(dtype="half"))
