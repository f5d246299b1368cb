"""A run's config, as one of the two runtimes reads it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import nn

from afdcd.config import embedded_config, flat_keys, flat_values
from afdcd.data import Dataset
from afdcd.data.build import loading_settings
from afdcd.data.spec import Record
from afdcd.data.stream import RecordedViews, SampleStream
from afdcd.data.unlabeled import UnlabeledImages, find_unlabeled, joined
from afdcd.distill import Distiller, build_distiller, distiller_settings, training_size
from afdcd.distill.classes import ClassMatching, match_classes
from afdcd.distill.teacher_settings import TeacherSettings
from afdcd.engine.build import SettingsReader
from afdcd.engine.checkpoints import ResultWeights, result_weights
from afdcd.engine.class_names import dataset_classes, listed_classes
from afdcd.engine.settings import EvaluationSettings, TrainingSettings
from afdcd.tasks import task_of
from afdcd.utils.problems import Problem, SettingsError

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

# Of a teacher's config: where it runs and what it starts from don't matter to what it says.
_ELSEWHERE = ("MODEL.DEVICE", "MODEL.WEIGHTS", "MODEL.DISTILLER.", "MODEL.SYNC_BN")
NO_NAMES = (
    "the teacher's classes aren't known by name: name them in MODEL.DISTILLER.TEACHER.CLASSES (a "
    "list in the channels' order, a text file with a name a line, or a data set), or distil "
    "features alone"
)


class Teacher(NamedTuple):
    """A teacher's config and its model, weights loaded."""

    side: Runtime
    model: nn.Module


class Runtime(ABC):
    """A config and what can be made of it: settings, data sets, models.

    Commands and checks speak to this class alone; its subclasses are
    `afdcd.embedded.runtime.EmbeddedRuntime` and `afdcd.d2.runtime.Detectron2Runtime`.

    Attributes:
        cfg: a config of this runtime.
        weights_named: whether ``MODEL.WEIGHTS`` stands on the command line.
        FETCHES: whether weights may be addresses, which are fetched when they are loaded.
    """

    FETCHES: ClassVar[bool] = False

    def __init__(self, cfg: Any, *, weights_named: bool = False) -> None:
        self.cfg = cfg
        self.weights_named = weights_named

    @classmethod
    @abstractmethod
    def configure(cls, file: str, overrides: list[str]) -> Self:
        """Read a config file and KEY VALUE overrides.

        Raises:
            ConfigError: it can't be read, or has keys or values that don't exist.
        """

    @abstractmethod
    def problems(self) -> list[str]:
        """Settings that can't work whatever the data, in sentences."""

    def problems_as_teacher(self) -> list[str]:
        """Settings that can't work in the config of a teacher."""
        return self.problems()

    @abstractmethod
    def teacher(self) -> Runtime:
        """The teacher's config of a distillation config. Raises ConfigError."""

    def other_teachers(self) -> list[Self]:
        """The configs of ``MODEL.DISTILLER.TEACHER.OTHERS``. Raises ConfigError, SettingsError."""
        found: list[Self] = []
        for file, weights in TeacherSettings.read(self.cfg.MODEL.DISTILLER.TEACHER).others:
            side = self.configure(file, [])
            side.cfg.MODEL.WEIGHTS, side.cfg.MODEL.DEVICE = weights, self.device
            found.append(side)
        return found

    @abstractmethod
    def find_dataset(self, name: str) -> Dataset:
        """A data set by name. Raises KeyError or DataError."""

    def find_unlabeled(self, name: str) -> UnlabeledImages:
        """Images without labels by name. Raises DataError."""
        return find_unlabeled(name)

    @abstractmethod
    def build_teacher(self) -> nn.Module:
        """The model of a teacher's config, its weights loaded, all of them."""

    def training_records(self) -> list[Record]:
        """The records of all training sets."""
        return self.training_dataset().records

    def training_stream(self, *, seed: int, views: RecordedViews | None = None) -> SampleStream:
        """The run's training samples, on their way to a loader.

        Args:
            seed: of the run.
            views: of a recorded teacher.
        """
        task = task_of(self.training_dataset())
        loading = loading_settings(self.cfg)
        return loading.stream(task.dataset.records, task.targets(), seed, views)

    def training_dataset(self) -> Dataset:
        """All training sets as one: see `joined`."""
        labeled = [self.find_dataset(name) for name in self.train_names]
        unlabeled = [self.find_unlabeled(name) for name in self.unlabeled_names]
        like = labeled or [self.find_dataset(self.test_names[0])]
        return joined(like[0], labeled, unlabeled)

    @abstractmethod
    def build(self) -> nn.Module:
        """The model that the config describes (a distiller's student), on the CPU."""

    @abstractmethod
    def load(self, model: nn.Module, path: str, *, complete: bool) -> str:
        """Load weights into a model, all of them if ``complete``; says what was loaded."""

    def other_data_problems(self, limit: int | None) -> list[tuple[str, str]]:
        """(kind, sentence) of what is wrong with the data of ``INPUT.MAPPER detectron2``.

        At most ``limit`` records of each data set are looked at.
        """
        return []

    def other_teacher_score(
        self, teacher_side: Runtime, teacher: nn.Module, limit: int | None
    ) -> tuple[str, float]:
        """The teacher's main figure, by name, on images that Detectron2's own mapper reads.

        Args:
            teacher_side: the teacher's config.
            teacher: on its device.
            limit: how many images of the first test set to score it on; None for all.
        """
        raise NotImplementedError

    def other_batch(self, count: int) -> list[dict[str, Any]]:
        """``count`` samples of Detectron2's own mapper."""
        return []

    def step_context(self) -> AbstractContextManager[Any]:
        """What a training step runs in."""
        return nullcontext()

    def training_settings(self) -> TrainingSettings:
        """How it trains. Raises SettingsError."""
        return SettingsReader(self.cfg).training()

    def evaluation_settings(self) -> EvaluationSettings:
        """How its model is scored. Raises SettingsError."""
        return SettingsReader(self.cfg).evaluation()

    def all_teachers(self) -> list[Runtime]:
        """The config of `teacher`, then those of `other_teachers`."""
        return [self.teacher(), *self.other_teachers()]

    def distiller(
        self,
        student: nn.Module,
        *,
        seed: int | None = None,
        recording: Any = None,
        live: bool | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> tuple[Distiller, list[Teacher]]:
        """The distiller of a student and the config's teachers, and these teachers.

        Args:
            student: the model to train.
            seed, recording, part: see `pair`.
            live: whether teachers are loaded; by default where not everything is recorded.

        Raises:
            ConfigError, CheckpointError, TapError, ValueError: a teacher can't be built or loaded,
                or doesn't go with the student.
        """
        if live is None:
            live = recording is None or not recording.complete
        teacher_side = self.teacher()
        if self.compares_classes and (matching := self.class_matching(teacher_side)):
            logger.info("Classes matched by name:\n%s", matching.table())
        sides = [teacher_side, *self.other_teachers()] if live else []
        teachers = [Teacher(side, side.build_teacher()) for side in sides]
        distiller = self.pair(
            student,
            teacher_side,
            teachers[0].model if teachers else None,
            seed=seed,
            others=[(model, side.image_format) for side, model in teachers[1:]],
            recording=recording,
            part=part,
        )
        return distiller, teachers

    def pair(
        self,
        student: nn.Module,
        teacher_side: Runtime,
        teacher: nn.Module | None,
        *,
        seed: int | None = None,
        others: Sequence[tuple[nn.Module, str]] = (),
        recording: Any = None,
        part: tuple[int, int] = (0, 1),
    ) -> Distiller:
        """The distiller of a student and a teacher whose weights are loaded.

        Args:
            student: the model to train.
            teacher_side: the teacher's config.
            teacher: the teacher; None where everything of it is recorded.
            seed: of what losses draw; the config's, or 0 where that is drawn, when None.
            others: see `build_distiller`.
            recording: an `afdcd.engine.recording.Recording`, or None.
            part: which part of a batch this process has, and of how many.

        Raises:
            ValueError, TapError: see `build_distiller`.
        """
        seed = max(self.seed, 0) if seed is None else seed
        return build_distiller(
            self.cfg,
            student,
            teacher,
            teacher_format=teacher_side.image_format,
            seed=seed,
            part=part,
            others=others,
            store=recording.store if recording else None,
            teacher_shapes=recording.shapes if recording else None,
            classes=self.class_matching(teacher_side) if self.compares_classes else None,
        )

    def class_matching(self, teacher: Runtime) -> ClassMatching | None:
        """Which classes the run and its teacher share by name; None where names don't matter.

        Names don't matter where the config doesn't ask for it, and where a model of other people's
        or the student's data set has none.

        Args:
            teacher: its config.

        Raises:
            SettingsError: the teacher's names aren't known though the config asks for them, aren't
                as many as its channels, or can't be matched; see `match_classes`.
        """
        settings = TeacherSettings.read(self.cfg.MODEL.DISTILLER.TEACHER)
        if not settings.matches_classes:
            return None
        own = self.class_names
        theirs = listed_classes(settings.classes) or teacher.class_names
        if not own or not theirs:
            if not own or (settings.name and not settings.class_map):
                return None
            raise SettingsError([Problem(NO_NAMES, "classes")])
        if not settings.name and len(theirs) != teacher.channels:
            raise SettingsError(
                [
                    Problem(
                        f"MODEL.DISTILLER.TEACHER.CLASSES: {len(theirs)} names, from {theirs[0]!r} "
                        f"to {theirs[-1]!r}, but the teacher has {teacher.channels} classes "
                        "(NUM_CLASSES): name its classes in the channels' order",
                        "classes",
                    )
                ]
            )
        return match_classes(own, theirs, settings.class_map)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the training set, or else of the test set; empty where they aren't known."""
        return dataset_classes([*self.train_names, *self.test_names])

    @property
    def weight_files(self) -> Sequence[str]:
        """The files that a teacher's weights are in, or their addresses."""
        return [self.weights]

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that what a teacher says depends on, by name, but for its weights."""
        values = flat_values(self.cfg)
        known = set(values)
        if self.cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
            # The keys that both runtimes have.
            known = set(flat_keys(embedded_config()))
        return {
            key: value
            for key, value in values.items()
            if key in known
            and (key.startswith("MODEL.") or key == "INPUT.FORMAT")
            and not key.startswith(_ELSEWHERE)
        }

    @property
    def distils(self) -> bool:
        """Whether there is a teacher."""
        return bool(self.cfg.MODEL.META_ARCHITECTURE == "Distiller")

    @property
    def compares_classes(self) -> bool:
        """Whether a loss compares the models' classes, channel by channel."""
        try:
            return distiller_settings(self.cfg).compares_classes
        except SettingsError:
            return True  # named among `problems`

    @property
    def own_mapper(self) -> bool:
        """Whether this package's mapper reads the data, rather than Detectron2's."""
        return bool(self.cfg.INPUT.MAPPER == "scale_crop")

    @property
    def output(self) -> Path:
        """``OUTPUT_DIR``."""
        return Path(self.cfg.OUTPUT_DIR)

    @property
    def train_names(self) -> tuple[str, ...]:
        """``DATASETS.TRAIN``."""
        return tuple(self.cfg.DATASETS.TRAIN)

    @property
    def unlabeled_names(self) -> tuple[str, ...]:
        """``DATASETS.UNLABELED``."""
        return tuple(self.cfg.DATASETS.UNLABELED)

    @property
    def test_names(self) -> tuple[str, ...]:
        """``DATASETS.TEST``."""
        return tuple(self.cfg.DATASETS.TEST)

    @property
    def channels(self) -> int:
        """Of the head's output: ``MODEL.SEM_SEG_HEAD.NUM_CLASSES``."""
        return int(self.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)

    @property
    def ignore_value(self) -> int:
        """Label that its loss leaves out: ``MODEL.SEM_SEG_HEAD.IGNORE_VALUE``."""
        return int(self.cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)

    @property
    def device(self) -> str:
        """``MODEL.DEVICE``."""
        return str(self.cfg.MODEL.DEVICE)

    @property
    def seed(self) -> int:
        """``SEED``; below 0 for one that is drawn."""
        return int(self.cfg.SEED)

    @property
    def weights(self) -> str:
        """``MODEL.WEIGHTS``: what training starts from."""
        return str(self.cfg.MODEL.WEIGHTS)

    @property
    def result_weights(self) -> ResultWeights:
        """What evaluation and prediction load: see `afdcd.engine.checkpoints.result_weights`."""
        return result_weights(self.cfg, named=self.weights_named)

    @property
    def teacher_file(self) -> str:
        """``MODEL.DISTILLER.TEACHER.CONFIG_FILE``."""
        return str(self.cfg.MODEL.DISTILLER.TEACHER.CONFIG_FILE)

    @property
    def teacher_name(self) -> str:
        """``MODEL.DISTILLER.TEACHER.NAME``."""
        return str(self.cfg.MODEL.DISTILLER.TEACHER.NAME)

    @property
    def image_format(self) -> str:
        """``INPUT.FORMAT``: ``BGR`` or ``RGB``."""
        return str(self.cfg.INPUT.FORMAT)

    @property
    def normalization(self) -> dict[str, list[float]]:
        """Mean and deviation by key, a number for each input channel."""
        model = self.cfg.MODEL
        return {key: list(model[f"PIXEL_{key}"]) for key in ("MEAN", "STD")}

    @property
    def training_size(self) -> tuple[int, int]:
        """See `afdcd.distill.training_size`."""
        return training_size(self.cfg)
