"""Whether the checkpoints that a config names are there, and what they hold is sound."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from afdcd.config import ConfigError
from afdcd.data import Dataset, LabelMap, get_spec
from afdcd.engine.checkpoints import ResultWeights
from afdcd.engine.runtime import NO_NAMES, Runtime
from afdcd.models.weights import file_problem, is_address
from afdcd.tasks import task_of
from afdcd.utils.problems import Problem, SettingsError, constructed

NO_TEACHER = (
    "MODEL.DISTILLER.TEACHER.CONFIG_FILE is empty: name the teacher's YAML file, or a model of "
    "other people's in MODEL.DISTILLER.TEACHER.NAME"
)


def weights_problems(path: str, key: str, *, needed: bool, fetches: bool = False) -> list[str]:
    """Whether a checkpoint file is named and there.

    Args:
        path: a file, or nothing.
        key: what names it.
        needed: whether there must be one.
        fetches: whether it may be an address: see `Runtime.FETCHES`.
    """
    if not path:
        return [f"{key} is empty: name the checkpoint to load"] if needed else []
    if fetches and is_address(path):
        return []
    if problem := file_problem(path):
        hint = "" if needed else f". To start from random weights, set {key} to ''"
        return [f"{key}: {problem}{hint}"]
    return []


def finite_problems(model: nn.Module, path: str, whose: str) -> list[str]:
    """Whether the weights that a model was given are numbers.

    Args:
        model: with the weights loaded.
        path: of their checkpoint.
        whose: model it is, such as ``the teacher``.
    """
    entries = model.state_dict()
    broken = [n for n, v in entries.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        text = f"{path} holds values that are not finite, in {len(broken)} entries such as"
        return [Problem(f"{whose}: {text} {broken[0]}: its training had failed", "weights")]
    return []


def loaded_problems(model: nn.Module, path: str, whose: str) -> list[str]:
    """Whether the weights that a model was given can have come from a training that worked.

    Args: as `finite_problems`.
    """
    if problems := finite_problems(model, path, whose):
        return problems
    entries = model.state_dict()
    weights = {n: v for n, v in entries.items() if v.is_floating_point() and v.dim() == 4}
    constant = [n for n, v in weights.items() if v.numel() > 64 and v.std() == 0]
    if constant:
        text = f"{path} holds constant convolutions, {len(constant)} such as {constant[0]}"
        return [Problem(f"{whose}: {text}: they were never trained", "weights")]
    return []


def result_problems(chosen: ResultWeights, *, fetches: bool) -> list[str]:
    """Whether there is a checkpoint for evaluation or prediction."""
    if not chosen.path:
        return [
            f"{chosen.key} is empty, and {chosen.reason}: train first, or name a trained model "
            "(--weights of predict.py, MODEL.WEIGHTS on the command line)"
        ]
    problems = weights_problems(chosen.path, chosen.key, needed=True, fetches=fetches)
    return [f"{text} ({chosen.reason})" for text in problems]


def teacher_problems(run: Runtime) -> list[str]:
    """What is wrong with ``MODEL.DISTILLER.TEACHER``, where the config distils."""
    if not run.distils:
        return []
    key = "MODEL.DISTILLER.TEACHER"
    if not (run.teacher_file or run.teacher_name):
        return [NO_TEACHER]
    try:
        teacher = run.teacher()
    except (ConfigError, ValueError) as error:
        return [f"{key}: {error}"]
    problems = teacher_config_problems(run, teacher)
    problems += teacher_class_problems(run, teacher) + teacher_weights_problems(run, teacher)
    return problems + _other_teacher_problems(run, teacher)


def teacher_config_problems(run: Runtime, teacher: Runtime) -> list[str]:
    """What can't work in the teacher's config, or of a model of other people's."""
    if run.teacher_name and is_recorded(run):
        return []
    where = "MODEL.DISTILLER.TEACHER.NAME" if run.teacher_name else "the teacher's config"
    return [f"{where}: {text}" for text in teacher.problems_as_teacher()]


def _other_teacher_problems(run: Runtime, teacher: Runtime) -> list[str]:
    """What is wrong with the teachers whose logits are averaged with the teacher's."""
    key, problems = "MODEL.DISTILLER.TEACHER.OTHERS", []
    try:
        others = run.other_teachers()
    except SettingsError:
        return []  # the settings' own check says it
    except (ConfigError, ValueError) as error:
        return [f"{key}: {error}"]
    for other in others:
        problems += [f"{key}: {text}" for text in other.problems_as_teacher()]
        problems += weights_problems(other.weights, key, needed=True, fetches=other.FETCHES)
        name = f"{key}: {other.weights}"
        if differences := _order_differences(teacher, other):
            problems += [
                f"{name} was trained on {text}: logits of other classes can't be averaged"
                for text in differences
            ]
        elif other.channels != teacher.channels:
            problems.append(
                f"{name} has {other.channels} classes, the teacher {teacher.channels}: logits of "
                "other classes can't be averaged"
            )
    return problems


def teacher_weights_problems(run: Runtime, teacher: Runtime) -> list[str]:
    """Whether the teacher's checkpoint is there, with the command that makes it where it isn't."""
    key = "MODEL.DISTILLER.TEACHER.WEIGHTS"
    if is_recorded(run) or run.teacher_name:  # of which the adapter looks for its own files
        return []
    command = f"tools/train_net.py --config-file {run.teacher_file}"
    return [
        f"{text}. {command} trains the teacher"
        for text in weights_problems(teacher.weights, key, needed=True, fetches=teacher.FETCHES)
    ]


def is_recorded(run: Runtime) -> bool:
    """Whether there is a record of the teacher, which may be complete, so that it isn't needed.

    Where it isn't complete, the teacher's weights are asked for when they are loaded.
    """
    folder = str(run.cfg.MODEL.DISTILLER.TEACHER.RECORD.FOLDER)
    return bool(folder) and (Path(folder) / "record.json").is_file()


def teacher_class_problems(run: Runtime, teacher: Runtime) -> list[str]:
    """Whether losses compare the classes of two models that were trained on different ones."""
    if not run.compares_classes:
        return []
    problems: list[str] = []
    if constructed(lambda: run.class_matching(teacher), problems) or problems:
        return problems
    return class_differences(run, teacher)


def class_differences(run: Runtime, teacher: Runtime) -> list[str]:
    """In what the teacher's classes differ from the student's; it can't be scored on these then.

    By the data sets that the two configs train on, as far as their targets are known; or, where
    classes are matched by name, which of the student's it lacks.
    """
    problems: list[str] = []
    matching = constructed(lambda: run.class_matching(teacher), problems)
    if problems:
        return problems
    if matching is not None:
        missing = ", ".join(matching.alone_in_student)
        return [Problem(f"the teacher has no class {missing}", "classes")] if missing else []
    if run.teacher_name and run.class_names:
        return [Problem(NO_NAMES, "classes")]
    problems += [
        Problem(f"the teacher was trained on {text}", "class-order")
        for text in _order_differences(run, teacher)
    ]
    if run.channels != teacher.channels and not problems:
        text = f"the teacher has {teacher.channels} classes (NUM_CLASSES), the student"
        hint = "their logits can't be compared: distil features alone, or use another teacher"
        problems.append(Problem(f"{text} {run.channels}: {hint}", "classes"))
    return problems


def _order_differences(one: Runtime, other: Runtime) -> list[str]:
    """The data set that the other was trained on, and in what its classes differ from the one's.

    Nothing where what they train on isn't known: that is said elsewhere, or is Detectron2's.
    """
    try:
        names = one.train_names[0], other.train_names[0]
        first, second = (task_of(Dataset(get_spec(name), [], LabelMap(1))) for name in names)
    except (KeyError, IndexError, ValueError):
        return []
    if type(first) is not type(second):
        return []
    return [f"{names[1]}: {text}" for text in first.mixing_problems(second)]
