"""Classes matched by name, and losses over the matched channels."""

from __future__ import annotations

import pytest
import torch

from afdcd.distill.classes import match_classes, select_channels
from afdcd.distill.plan import build_objectives, target_shape
from afdcd.distill.settings import LossSettings
from afdcd.losses.registry import TapShape
from afdcd.utils.problems import SettingsError

STUDENT = ("Sky", "Traffic Light", "road", "Tree")
PREDICTOR = "sem_seg_head.predictor"


def test_a_permutation_with_other_spelling():
    found = match_classes(STUDENT, ("tree", "ROAD", "traffic_light", "sky"))
    assert found.pairs == ((0, 3), (1, 2), (2, 1), (3, 0))
    assert not found.is_identity and not found.remarks


def test_the_same_classes_in_the_same_order():
    assert match_classes(STUDENT, STUDENT).is_identity
    assert match_classes(STUDENT, ("sky", "traffic-light", "Road", "tree ")).is_identity
    # Names that occur twice are no trouble where nothing has to be chosen.
    assert match_classes(("a", "b", "a"), ("a", "b", "a")).is_identity


def test_a_superset_a_subset_and_an_overlap():
    superset = match_classes(STUDENT, ("car", *STUDENT))
    assert superset.teacher_channels == (1, 2, 3, 4) and superset.alone_in_teacher == ["car"]
    assert not superset.alone_in_student and not superset.is_identity
    subset = match_classes(STUDENT, ("tree", "sky"))
    assert subset.pairs == ((0, 1), (3, 0)) and subset.alone_in_student == ["Traffic Light", "road"]
    overlap = match_classes(STUDENT, ("tree", "sky", "car"))
    assert overlap.pairs == subset.pairs
    assert [text.split(" classes")[0] for text in overlap.remarks] == [
        "2 of the student's 4",
        "1 of the teacher's 3",
    ]
    table = [line.split() for line in overlap.table().splitlines()]
    assert ["0", "Sky", "1", "sky"] in table and ["3", "Tree", "0", "tree"] in table


def test_the_users_own_table():
    table = (("vegetation", "Tree"), ("Semaphore", "traffic light"), ("sky", None))
    found = match_classes(STUDENT, ("sky", "vegetation", "semaphore", "road"), table)
    assert found.pairs == ((1, 2), (2, 3), (3, 1))
    # A name of the table counts, and no longer the class's own.
    swapped = match_classes(("a", "b"), ("a", "b"), (("a", "b"), ("b", "a")))
    assert swapped.pairs == ((0, 1), (1, 0))


@pytest.mark.parametrize(
    ("teacher", "table", "words"),
    [
        (("car", "bus"), (), "0 have the same name"),
        (("car", "sky"), (), "1 have the same name"),
        (("sky", "Sky", "road"), (), "the teacher's classes 0 'sky', 1 'Sky'"),
        (("sky", "tree", "bush"), (("bush", "tree"),), "the teacher's classes 1 'tree', 2 'bush'"),
        (
            ("sky", "road"),
            (("rode", "road"),),
            "the teacher has no class 'rode'; did you mean road",
        ),
        (("sky", "road"), (("road", "raod"),), "the student has no class 'raod'"),
    ],
)
def test_what_cannot_be_matched(teacher, table, words: str):
    with pytest.raises(SettingsError) as error:
        match_classes(STUDENT, teacher, table)
    assert words in str(error.value)


def test_channels_are_selected_in_the_order_given():
    maps = torch.arange(4.0).view(1, 4, 1, 1).expand(2, 4, 3, 3)
    assert select_channels(maps, (3, 1))[1, :, 2, 2].tolist() == [3.0, 1.0]
    assert select_channels(maps, ()) is maps


@pytest.mark.parametrize("name", ["logit_kd", "cwd", "dist"])
def test_losses_compare_the_matched_channels_alone(name: str):
    """As the same loss on maps that hold only these channels, put together by hand."""
    torch.manual_seed(0)
    student = torch.randn(2, 4, 5, 6, requires_grad=True)
    teacher = torch.randn(2, 3, 5, 6)
    classes = match_classes(STUDENT, ("tree", "car", "sky"))
    settings = LossSettings(label="loss", name=name)
    shapes = {("student", PREDICTOR): TapShape(4, 5, 6), ("teacher", PREDICTOR): TapShape(3, 5, 6)}
    objectives = build_objectives([settings], shapes, classes=classes)
    target = objectives.targets[0]
    assert target_shape(shapes["teacher", PREDICTOR], target).channels == 2
    compressed = objectives.compress({PREDICTOR: teacher}, [target])
    terms = objectives({PREDICTOR: student}, compressed)

    by_hand = (
        torch.stack([student[:, 0], student[:, 3]], 1),
        torch.stack([teacher[:, 2], teacher[:, 0]], 1),
    )
    small = {key: TapShape(2, 5, 6) for key in shapes}
    alone = build_objectives([settings], small)
    expected = alone({PREDICTOR: by_hand[0]}, {PREDICTOR: by_hand[1]})
    assert terms.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(terms[key], value)
    sum(terms.values()).backward()
    per_channel = student.grad.abs().sum((0, 2, 3))
    # What has no partner gets no gradient.
    assert (per_channel > 0).tolist() == [True, False, False, True]


def test_two_classes_of_equal_odds_by_hand():
    """Softmax over the matched classes: the large logit of the third doesn't count."""
    student = torch.tensor([0.0, 50.0, 0.0]).view(1, 3, 1, 1)
    teacher = torch.tensor([3.0, 0.0]).exp().log().view(1, 2, 1, 1)  # odds of e^3
    classes = match_classes(("a", "b", "c"), ("c", "a"))
    settings = LossSettings(label="logit_kd")
    shapes = {("student", PREDICTOR): TapShape(3, 1, 1), ("teacher", PREDICTOR): TapShape(2, 1, 1)}
    objectives = build_objectives([settings], shapes, classes=classes)
    terms = objectives(
        {PREDICTOR: student}, objectives.compress({PREDICTOR: teacher}, objectives.targets)
    )
    p = torch.tensor([3.0, 0.0]).softmax(0)
    expected = float((p * (p / 0.5).log()).sum())
    assert float(terms["loss_logit_kd"]) == pytest.approx(expected, rel=1e-6)
