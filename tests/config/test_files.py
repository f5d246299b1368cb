"""Config files: bases, overrides, unknown keys, and the configs that come with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from afdcd.config import (
    ConfigError,
    ConfigKeyError,
    add_afdcd_config,
    differences,
    embedded_config,
    merge_file,
    merge_overrides,
)
from afdcd.distill import distiller_settings
from afdcd.losses import AfDCDSettings

CONFIGS = Path(__file__).parents[2] / "configs"
# The others are parts, which runs are based on.
RUNNABLE = [path for path in sorted(CONFIGS.rglob("*.yaml")) if "OUTPUT_DIR" in path.read_text()]


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_bases_are_merged_in_order(tmp_path):
    written(
        tmp_path,
        a="SOLVER: {MAX_ITER: 1, BASE_LR: 0.5}\nSEED: 1",
        b="SOLVER: {MAX_ITER: 2}",
        c="_BASE_: [a.yaml, b.yaml]\nSEED: 3",
    )
    cfg = embedded_config()
    merge_file(cfg, tmp_path / "c.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SEED) == (2, 0.5, 3)


def test_teacher_is_found_beside_the_file_that_names_it(tmp_path):
    (tmp_path / "sub").mkdir()
    written(
        tmp_path / "sub",
        base="MODEL: {DISTILLER: {TEACHER: {CONFIG_FILE: t.yaml, OTHERS: [[u.yaml, u.pth]]}}}",
    )
    written(tmp_path, top="_BASE_: sub/base.yaml")
    cfg = embedded_config()
    merge_file(cfg, tmp_path / "top.yaml")
    assert str(tmp_path / "sub/t.yaml") == cfg.MODEL.DISTILLER.TEACHER.CONFIG_FILE
    assert [[str(tmp_path / "sub/u.yaml"), "u.pth"]] == cfg.MODEL.DISTILLER.TEACHER.OTHERS


def test_numbers_are_taken_as_floats_where_due(tmp_path):
    written(tmp_path, a="SOLVER: {BASE_LR: 1, WEIGHT_DECAY: 1e-4}")
    cfg = embedded_config()
    merge_file(cfg, tmp_path / "a.yaml")
    merge_overrides(cfg, ["MODEL.DISTILLER.LR_FACTOR", "2"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY) == (1.0, 1e-4)
    assert isinstance(cfg.MODEL.DISTILLER.LR_FACTOR, float)


def test_overrides():
    cfg = embedded_config()
    merge_overrides(
        cfg,
        ["SOLVER.MAX_ITER", "7", "OUTPUT_DIR", "some/where", "TEST.SCALES", "[0.5, 1.0]"],
    )
    assert (cfg.SOLVER.MAX_ITER, cfg.OUTPUT_DIR) == (7, "some/where")
    assert cfg.TEST.SCALES == [0.5, 1.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SOLVER.BASE_LRR", "1"], "no key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR"),
        (["SOLVER.DTYPE", "1"], "did you mean .*SOLVER.AMP.DTYPE"),
        (["SOLVER.BASE_LR", "fast"], "SOLVER.BASE_LR takes a number; got 'fast'"),
        (["SOLVER.MAX_ITER", "1.5"], "SOLVER.MAX_ITER"),
        (["SOLVER", "1"], "SOLVER holds the keys LR_SCHEDULER_NAME"),
        (["SEED.A", "1"], "SEED takes a value, not keys|no key SEED.A"),
        (["SEED"], "KEY VALUE pairs; got 1 words"),
        (["SEED", "1", "--resume"], "--resume: flags go before the KEY VALUE pairs"),
    ],
)
def test_wrong_overrides(words: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        merge_overrides(embedded_config(), words)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("SOLVER: {MAX_ITR: 1}", ConfigKeyError, r"a\.yaml.*MAX_ITR; did you mean SOLVER.MAX_ITER"),
        ("SOLVER: [", ConfigError, "isn't valid YAML"),
        (
            "SEED: 1\nSOLVER: {}\nSEED: 2",
            ConfigError,
            "isn't valid YAML: the key 'SEED' is there twice",
        ),
        ("just words", ConfigError, "must hold KEY: value lines"),
        ("_BASE_: a.yaml", ConfigError, "leads back to itself"),
        ("_BASE_: b.yaml", ConfigError, r"no config file at .*b.yaml \(the _BASE_ of .*a.yaml\)"),
        ("SOLVER: !!python/object/apply:os.system [echo]", ConfigError, "isn't valid YAML"),
        ("MODEL: 3", ConfigError, "MODEL holds the keys"),
    ],
)
def test_wrong_files(tmp_path, text: str, error: type, message: str):
    written(tmp_path, a=text)
    with pytest.raises(error, match=message):
        merge_file(embedded_config(), tmp_path / "a.yaml")


def test_missing_file_names_near_ones():
    with pytest.raises(ConfigError, match=r"did you mean .*afdcd_cityscapes\.yaml"):
        merge_file(embedded_config(), CONFIGS / "afdcd_cityscape.yaml")


def test_differences():
    a, b = embedded_config(), embedded_config()
    b.SOLVER.MAX_ITER = 3
    assert differences(a, b) == [f"SOLVER.MAX_ITER: {a.SOLVER.MAX_ITER} -> 3"]
    assert differences(a, a) == []


def test_keys_of_detectron2s_deeplab_project_are_left_alone():
    cfg = embedded_config()
    cfg.MODEL.SEM_SEG_HEAD.ASPP_DROPOUT = 0.1
    add_afdcd_config(cfg)
    assert cfg.MODEL.SEM_SEG_HEAD.ASPP_DROPOUT == 0.1


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_configs_of_the_project(path: Path):
    from afdcd.embedded.runtime import EmbeddedRuntime
    from afdcd.models import build_segmentor_from_config

    cfg = embedded_config()
    merge_file(cfg, path)
    assert EmbeddedRuntime(cfg).problems() == []
    build_segmentor_from_config(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "Distiller":
        teacher = EmbeddedRuntime(cfg).teacher()
        assert teacher.problems() == []
        assert teacher.channels == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


def test_distillation_configs_are_short():
    for path in RUNNABLE:
        text = path.read_text()
        if "Distiller" in text:
            lines = [s for s in text.splitlines() if s.strip() and not s.lstrip().startswith("#")]
            assert len(lines) <= 14, path


def test_paper_settings():
    """The table of the published release, spot-checked."""
    expected = {
        "afdcd_cityscapes.yaml": (1.0, 2e-6, 5e-3, [512, 1024], 4, 19),
        "camvid/afdcd_deeplabv3_r18.yaml": (1.0, 8e-6, 1e-2, [360, 360], 0, 11),
        "camvid/afdcd_pspnet_r18.yaml": (1.0, 8e-6, 1e-2, [360, 360], 0, 11),
    }
    for name, (kd, fd, ctr, crop, pool, classes) in expected.items():
        cfg = embedded_config()
        merge_file(cfg, CONFIGS / name)
        model, solver = cfg.MODEL, cfg.SOLVER
        losses = distiller_settings(cfg).losses
        logit_kd, afdcd = losses
        assert logit_kd.factors == (kd,) and logit_kd.weights == {"logit_kd": 1.0}
        assert logit_kd.arguments.get("temperature", 1.0) == 1.0
        assert afdcd.weights == {"reconstruction": fd, "contrast": ctr}
        assert afdcd.factors == (1.0,) and afdcd.arguments["pool"] == pool
        assert AfDCDSettings(**afdcd.arguments).reduction == "published"
        assert crop == cfg.INPUT.SCALE_CROP.SIZE
        assert classes == model.SEM_SEG_HEAD.NUM_CLASSES
        assert [loss.name for loss in losses] == ["logit_kd", "afdcd"]
        assert (solver.BASE_LR, solver.MAX_ITER, solver.IMS_PER_BATCH) == (0.02, 40000, 16)
        assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == 1e-4
