"""The distiller and its frozen teacher."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch

from afdcd.config import embedded_config, merge_content
from afdcd.distill import Distiller, LossSettings, TapError, build_distiller
from afdcd.losses import LOSSES, DistillationLoss
from afdcd.losses.afdcd.masks import make_mask
from afdcd.models import build_segmentor

from helpers.loss_settings import SMALL, give_losses

CLASSES = 4


def config(**distiller):
    cfg = embedded_config()
    cfg.INPUT.SCALE_CROP.SIZE = [64, 64]
    give_losses(cfg, logit_kd={}, afdcd=SMALL)
    merge_content(cfg, {"MODEL": {"DISTILLER": distiller}}, "test")
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
    give_losses(cfg, afdcd={"CONTRAST_WEIGHT": 3 * 0.005})
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


def test_images_without_labels_alone_are_compared():
    """Distillation terms are those of the unlabelled part, the task's that of the labelled one."""
    cfg = config(IMAGES="unlabeled")
    cfg.DATASETS.UNLABELED = ("photos/",)
    model = distiller(cfg)
    model.eval()  # dropout and batch statistics off, the losses on
    model.training = model.student.training = model.student.sem_seg_head.training = True
    batch = inputs(4)
    for item in (batch[0], batch[3]):
        item["unlabeled"] = True
        item["sem_seg"] = torch.full_like(item["sem_seg"], 255)
    seen = []
    model.teacher.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))

    def losses_of(part: list[dict]) -> dict[str, torch.Tensor]:
        model.distiller.set_extra_state({"steps": 0, "seed": 0})
        return model(part)

    mixed = losses_of(batch)
    assert seen == [2]
    unlabeled = losses_of([batch[0], batch[3]])
    labeled = losses_of([batch[1], batch[2]])  # compared themselves, where there are no others
    torch.testing.assert_close(mixed["loss_sem_seg"], labeled["loss_sem_seg"])
    for term in ("loss_logit_kd", "loss_reconstruction", "loss_contrast"):
        torch.testing.assert_close(mixed[term], unlabeled[term])
        assert not torch.allclose(mixed[term], labeled[term])


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

    features_only = calls(config(LOSSES={"logit_kd": None}))
    assert "backbone.res5" in features_only
    assert not any(name.startswith("sem_seg_head") for name in features_only)
    assert "sem_seg_head.predictor" in calls(config(LOSSES={"afdcd": None}))


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
    pairs = [["backbone.res5", "backbone.res5"], ["backbone.res4", "backbone.res4"]]
    afdcd = {"TAPS": pairs, "WEIGHT": [1.0, 0.5], "CONTRAST_WEIGHT": 0.04}
    cfg = config(LOSSES={"logit_kd": None, "afdcd": afdcd})
    model = distiller(cfg)
    terms = {f"loss_{t}_{r}" for t in ("reconstruction", "contrast") for r in ("res5", "res4")}
    assert set(model(inputs())) == {"loss_sem_seg"} | terms
    assert [o.weights["contrast"] for o in model.distiller.objectives] == [0.04, 0.02]
    assert [name for name, _ in model.distiller.named_children()] == ["afdcd_res5", "afdcd_res4"]
    assert "contrast_res4" in model.distiller.formula()


def test_one_loss_under_several_labels():
    """Terms get the labels, modules are named by them; each has weights of its own."""
    low = {**SMALL, "NAME": "afdcd", "TAPS": [["backbone.res4", "backbone.res4"]], "WEIGHT": 3.0}
    model = distiller(config(LOSSES={"low": low}))
    terms = {f"loss_{t}_{label}" for t in ("reconstruction", "contrast") for label in LABELS}
    assert set(model(inputs())) == {"loss_sem_seg", "loss_logit_kd"} | terms
    assert [name for name, _ in model.distiller.named_children()] == ["logit_kd", *LABELS]
    assert model.distiller.get_submodule("low").teacher_channels == 256
    assert model.distiller.weight_keys() == {
        f"loss_{term}": f"MODEL.DISTILLER.LOSSES.{label}.{key}_WEIGHT"
        for term, label, key in [
            ("logit_kd", "logit_kd", "LOGIT_KD"),
            ("reconstruction_afdcd", "afdcd", "RECONSTRUCTION"),
            ("contrast_afdcd", "afdcd", "CONTRAST"),
            ("reconstruction_low", "low", "RECONSTRUCTION"),
            ("contrast_low", "low", "CONTRAST"),
        ]
    }
    assert "6e-06 * reconstruction_low + 0.015 * contrast_low" in model.distiller.formula()


LABELS = ["afdcd", "low"]


class Difference(DistillationLoss):
    """Mean of all differences, remembering what it was given."""

    TERMS: ClassVar = {"contrast": 1.0, "other": 0.5}

    def __init__(self, sign: int = 1) -> None:
        super().__init__()
        self.sign, self.contexts = sign, []

    def forward(self, student, teacher, *, context):
        self.contexts.append(context)
        value = self.sign * (student.mean() - teacher.mean())
        return {"contrast": value, "other": value}


@pytest.fixture
def difference():
    LOSSES.register("difference")(Difference)
    yield
    del LOSSES._obj_map["difference"]


def test_a_loss_of_ones_own(difference):
    """Beside one with a term of the same name, by the config alone."""
    mine = {"NAME": "difference", "TAPS": [["backbone.res5", "backbone.res4"]], "SIGN": -1}
    model = distiller(config(LOSSES={"mine": mine}))
    model.distiller.set_extra_state({"steps": 4, "seed": 0})
    batch = inputs()
    losses = model(batch)
    assert {"loss_contrast_mine", "loss_other_mine", "loss_contrast_afdcd"} <= set(losses)
    torch.testing.assert_close(losses["loss_other_mine"], losses["loss_contrast_mine"] / 2)
    loss = model.distiller.get_submodule("mine")
    (context,) = loss.contexts
    assert loss.sign == -1 and context.step == 4 and context.part == (0, 1)
    assert context.batched_inputs == tuple(batch)
    assert isinstance(context.generator, torch.Generator)
    with pytest.raises(ValueError, match=r"mine has no TAPS, and 'difference' no default pair"):
        LossSettings("mine", "difference")
    Difference.TERMS, terms = {"contrast": 1.0}, Difference.TERMS
    try:
        with pytest.raises(ValueError, match="Difference returned the terms contrast, other"):
            distiller(config(LOSSES={"mine": mine}))(batch)
    finally:
        Difference.TERMS = terms


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["forward"], "can't have the label 'forward'"),
        (["afdcd_res5", "afdcd"], "two losses are called afdcd_res5"),
    ],
)
def test_labels_that_clash(labels, message):
    pairs = [["backbone.res5", "backbone.res5"], ["backbone.res4", "backbone.res4"]]
    two = {"TAPS": pairs} if len(labels) > 1 else {}
    losses = {label: {**SMALL, "NAME": "afdcd"} for label in labels}
    losses[labels[-1]] |= two
    with pytest.raises(ValueError, match=message):
        distiller(config(LOSSES=losses))


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
        ({"LOSSES": {"logit_kd": None, "afdcd": None}}, ValueError, "names no loss"),
        ({"LR_FACTOR": 0.0}, ValueError, "LR_FACTOR must be above 0 and finite; got 0.0"),
        ({"LR_FACTOR": float("nan")}, ValueError, "LR_FACTOR must be above 0 and finite; got nan"),
        (
            {"LOSSES": {"afdcd": {"TAPS": [["backbone.res5", "backbone.res6"]]}}},
            TapError,
            "the teacher has no module 'backbone.res6'",
        ),
        (
            {"LOSSES": {"afdcd": {"TAPS": [["backbone.rse5", "backbone.res5"]]}}},
            TapError,
            "the student has no module 'backbone.rse5'.*did you mean backbone.res5",
        ),
    ],
)
def test_refusals(settings: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        distiller(config(**settings))


def test_groups_that_do_not_divide_the_teachers_channels():
    cfg = config(LOSSES={"afdcd": {"GROUPS": 7}})
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
