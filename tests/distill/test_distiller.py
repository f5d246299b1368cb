"""The distiller and its frozen teacher."""

from __future__ import annotations

import copy

import pytest
import torch

from afdcd.config import embedded_config
from afdcd.distill import Distiller, TapError, build_distiller
from afdcd.losses.afdcd.masks import make_mask
from afdcd.models import build_segmentor

CLASSES = 4


def config(**distiller):
    cfg = embedded_config()
    cfg.INPUT.SCALE_CROP.SIZE = [64, 64]
    cfg.MODEL.AFDCD.CONTRAST.POOL = 0
    cfg.MODEL.AFDCD.CONTRAST.GROUPS = 8
    for name, value in distiller.items():
        cfg.MODEL.DISTILLER[name] = value
    return cfg


def student():
    return build_segmentor(
        backbone="mobilenetv2", width_mult=0.25, num_classes=CLASSES, hidden_channels=8
    )


def teacher():
    return build_segmentor("pspnet", "resnet18", CLASSES, hidden_channels=8, aux_weight=0)


def distiller(cfg=None, **options) -> Distiller:
    return build_distiller(cfg or config(), student(), teacher(), **options)


def inputs(count: int = 2, size: tuple[int, int] = (32, 40)) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8),
            "sem_seg": torch.randint(0, CLASSES, size, generator=generator),
            "height": size[0],
            "width": size[1],
        }
        for _ in range(count)
    ]


def test_every_term_is_in_the_dict_weighted():
    cfg = config()
    model = distiller(cfg)
    losses = model(inputs())
    assert set(losses) == {
        "loss_sem_seg",
        "loss_logit_kd",
        "loss_reconstruction",
        "loss_contrast",
    }
    cfg.MODEL.AFDCD.CONTRAST.WEIGHT *= 3
    heavier = build_distiller(cfg, model.student, model.teacher)
    heavier.distiller.load_state_dict(model.distiller.state_dict())
    heavier.distiller.set_extra_state({"steps": 0, "seed": 0})
    for module in (model, heavier):
        module.eval()  # dropout and batch statistics off, the losses on
        module.training = module.student.training = True
        module.student.sem_seg_head.training = True
    model.distiller.set_extra_state({"steps": 0, "seed": 0})
    ours, theirs = model(inputs()), heavier(inputs())
    torch.testing.assert_close(theirs["loss_contrast"], 3 * ours["loss_contrast"])
    torch.testing.assert_close(theirs["loss_reconstruction"], ours["loss_reconstruction"])


def test_teacher_is_no_part_of_the_module_tree():
    model = distiller()
    names = set(model.state_dict())
    assert all(name.startswith(("student.", "distiller.")) for name in names)
    own = {id(p) for p in model.teacher.parameters()}
    assert not own & {id(p) for p in model.parameters()}
    assert [name for name, _ in model.named_children()] == ["student", "distiller"]


def test_teacher_stays_still():
    model = distiller().train()
    model(inputs())  # the first call folds its normalization
    before = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        sum(model.train()(inputs()).values()).backward()
        optimizer.step()
    assert not any(module.training for module in model.teacher.modules())
    assert all(not p.requires_grad and p.grad is None for p in model.teacher.parameters())
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_teacher_moves_along():
    model = distiller().double()
    assert all(p.dtype == torch.float64 for p in model.teacher.parameters())
    assert model.to("meta").teacher.backbone.stem.conv1.weight.is_meta


def test_teacher_is_evaluated_as_deep_as_its_last_tap():
    def calls(cfg) -> set[str]:
        model = distiller(cfg)
        seen = set()
        for name, module in model.teacher.named_modules():
            module.register_forward_hook(lambda m, i, o, n=name: seen.add(n))
        model(inputs())
        return seen

    features_only = calls(config(LOSSES=["afdcd"]))
    assert "backbone.res5" in features_only
    assert not any(name.startswith("sem_seg_head") for name in features_only)
    assert "sem_seg_head.predictor" in calls(config(LOSSES=["logit_kd"]))


def test_evaluation_is_the_students():
    model = distiller().eval()
    with torch.no_grad():
        ours, alone = model(inputs()), model.student(inputs())
    for a, b in zip(ours, alone, strict=True):
        assert torch.equal(a["sem_seg"], b["sem_seg"])


def test_masks_follow_seed_and_step():
    def first_losses(seed: int, steps: int = 0) -> float:
        torch.manual_seed(0)
        model = distiller(seed=seed)
        model.distiller.set_extra_state({"steps": steps, "seed": seed})
        return model(inputs())["loss_reconstruction"].item()

    same = first_losses(1)
    assert first_losses(1) == same
    assert len({same, first_losses(2), first_losses(1, 1)}) == 3


def test_parts_of_a_batch_get_the_masks_of_the_whole():
    def draw(images: int, part: tuple[int, int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        return make_mask("random", torch.zeros(images, 3, 5, 6), generator=generator, part=part)

    whole = draw(4, (0, 1))
    assert torch.equal(torch.cat([draw(2, (0, 2)), draw(2, (1, 2))]), whole)
    assert not torch.equal(whole[:2], whole[2:])


def test_steps_are_part_of_the_distillers_state():
    model = distiller()
    model(inputs())
    twin = distiller()
    twin.distiller.load_state_dict(model.distiller.state_dict())
    assert twin.distiller.get_extra_state() == {"steps": 1, "seed": 0}


def test_global_random_state_is_left_alone():
    model = distiller()
    torch.manual_seed(3)
    model.distiller({p: torch.randn(2, 80 if "res5" in p else 4, 4, 5) for p in TAPS}, FEATURES)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    for p in TAPS:
        torch.randn(2, 80 if "res5" in p else 4, 4, 5)
    assert torch.equal(torch.get_rng_state(), after)


TAPS = ["sem_seg_head.predictor", "backbone.res5"]
FEATURES = {TAPS[0]: torch.zeros(2, 4, 4, 5), TAPS[1]: torch.zeros(2, 512, 4, 5)}


def test_several_pairs_with_factors():
    cfg = config(
        LOSSES=["afdcd"],
        FEATURE_TAPS=[["backbone.res5", "backbone.res5"], ["backbone.res4", "backbone.res4"]],
        FEATURE_TAP_WEIGHTS=[1.0, 0.5],
    )
    model = distiller(cfg)
    terms = {f"loss_{t}_{r}" for t in ("reconstruction", "contrast") for r in ("res5", "res4")}
    assert set(model(inputs())) == {"loss_sem_seg"} | terms
    factor = cfg.MODEL.AFDCD.CONTRAST.WEIGHT
    assert [o.weights["contrast"] for o in model.distiller.objectives] == [factor, factor / 2]
    assert "contrast_res4" in model.distiller.formula()


def test_taps_of_different_size():
    narrow = build_segmentor(
        backbone="mobilenetv2", width_mult=0.25, num_classes=CLASSES, output_stride=16
    )
    model = build_distiller(config(), narrow, teacher())
    losses = model(inputs(size=(64, 64)))
    assert all(torch.isfinite(value) for value in losses.values())


def test_channels_are_flipped_for_an_rgb_teacher():
    plain, flipped = distiller(), distiller(teacher_format="RGB")
    seen = {}
    for name, model in (("plain", plain), ("flipped", flipped)):
        model.teacher.backbone.stem.register_forward_pre_hook(
            lambda m, args, n=name: seen.__setitem__(n, args[0] + 0)
        )
        mean = torch.zeros_like(model.teacher.pixel_mean)
        model.teacher.pixel_mean = mean
        model(inputs())
    torch.testing.assert_close(seen["flipped"], seen["plain"].flip(1))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"LOSSES": ["kd"]}, ValueError, r"LOSSES takes some of logit_kd, afdcd; got \['kd'\]"),
        ({"LOSSES": []}, ValueError, "LOSSES takes some of"),
        ({"FEATURE_TAPS": [["backbone.res5"]]}, ValueError, "a pair of taps is"),
        ({"FEATURE_TAPS": []}, ValueError, "FEATURE_TAPS is empty"),
        ({"FEATURE_TAP_WEIGHTS": [1.0, 2.0]}, ValueError, "2 factors for 1 pairs"),
        ({"LR_FACTOR": 0.0}, ValueError, "LR_FACTOR must be above 0; got 0.0"),
        ({"LR_FACTOR": float("nan")}, ValueError, "LR_FACTOR must be above 0; got nan"),
        (
            {"FEATURE_TAPS": [["backbone.res5", "backbone.res6"]]},
            TapError,
            "the teacher has no module 'backbone.res6'",
        ),
        (
            {"FEATURE_TAPS": [["backbone.rse5", "backbone.res5"]]},
            TapError,
            "the student has no module 'backbone.rse5'.*did you mean backbone.res5",
        ),
    ],
)
def test_refusals(settings: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        distiller(config(**settings))


def test_groups_that_do_not_divide_the_teachers_channels():
    cfg = config()
    cfg.MODEL.AFDCD.CONTRAST.GROUPS = 7
    with pytest.raises(ValueError, match=r"backbone.res5 -> backbone.res5: groups must divide"):
        distiller(cfg)


def test_different_classes():
    with pytest.raises(ValueError, match=r"4 channels.*of the student.*5 channels.*NUM_CLASSES"):
        build_distiller(config(), student(), build_segmentor(num_classes=5))


def test_deepcopy_keeps_the_teacher_apart():
    model = distiller()
    twin = copy.deepcopy(model)
    twin(inputs())
    assert twin.state_dict().keys() == model.state_dict().keys()
    ours = {id(p) for p in model.teacher.parameters()}
    assert not ours & {id(p) for p in (*twin.teacher.parameters(), *twin.parameters())}
