"""How images are read, augmented and brought to a loader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from afdcd.data.mapper import LARGEST, DenseMapper, TrainingAugmentation
from afdcd.data.spec import Record
from afdcd.data.stream import BatchMix, RecordedViews, SampleStream
from afdcd.data.targets import TargetReader
from afdcd.utils.problems import refuse


@dataclass(frozen=True)
class LoadingSettings:
    """How a data set's files become batches.

    Attributes:
        augmentation: of training samples; None where Detectron2's own mapper makes them.
        train_short_side, test_short_side: pixels that the shorter side is resized to, for training
            (before the augmentation) and evaluation; 0 keeps the size.
        image_format: ``BGR`` or ``RGB``.
        workers: loader processes; 0 loads in the main process.
        cache_mb: megabytes of read files that each loader process keeps in memory.
        cache_dir: folder where training files are kept decoded; empty for none.
        echo: iterations in a row that use each loaded batch.
        teacher_factor: resolution of a teacher's images, in times the student's.
        mix: of labelled and unlabelled images; None where all or none have labels.

    Raises:
        SettingsError: a value that can't work.
    """

    augmentation: TrainingAugmentation | None = None
    train_short_side: int = 0
    test_short_side: int = 0
    image_format: str = "BGR"
    workers: int = 0
    cache_mb: int = 0
    cache_dir: str = ""
    echo: int = 1
    teacher_factor: float = 1.0
    mix: BatchMix | None = None

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.augmentation is not None and self.image_format not in ("BGR", "RGB"):
            yield f"INPUT.FORMAT must be BGR or RGB; got {self.image_format}"
        for key, value, least in (
            ("INPUT.MIN_SIZE_TRAIN", self.train_short_side, 0),
            ("INPUT.MIN_SIZE_TEST", self.test_short_side, 0),
            ("DATALOADER.NUM_WORKERS", self.workers, 0),
            ("DATALOADER.CACHE_MB", self.cache_mb, 0),
            ("DATALOADER.ECHO", self.echo, 1),
        ):
            if not isinstance(value, int):
                yield f"{key} must be a whole number; got {value!r}"
            elif value < least:
                yield f"{key} must be at least {least}; got {value}"

        yield from self._teacher_problems()

    def _teacher_problems(self) -> Iterator[str]:
        key, factor = "MODEL.DISTILLER.TEACHER.RESOLUTION", self.teacher_factor
        if factor == 1 or not factor > 0:  # the teacher's settings say the latter
            return
        if factor > LARGEST:
            yield f"{key} must be at most {LARGEST:g}; got {factor}"
        elif self.augmentation is None:
            yield f"{key} {factor:g} takes INPUT.MAPPER scale_crop: other mappers render one image"
        else:
            height, width = self.augmentation.crop_size
            if any(abs(side * factor - round(side * factor)) > 1e-6 for side in (height, width)):
                yield (
                    f"{key} {factor:g} times the crop {height}x{width} isn't a whole number of "
                    "pixels: choose another factor, or another INPUT.SCALE_CROP.SIZE"
                )
            if factor > 1 and not self.train_short_side:
                yield (
                    f"{key} {factor:g} would enlarge images that are trained on at their own size: "
                    "set INPUT.MIN_SIZE_TRAIN to the student's, below the files' own"
                )

    def training_mapper(self, targets: TargetReader) -> DenseMapper:
        """From records to augmented samples."""
        return DenseMapper(
            targets,
            self.augmentation,
            short_side=self.train_short_side,
            image_format=self.image_format,
            cache_bytes=self.cache_mb << 20,
            cache_dir=self.cache_dir,
            teacher_factor=self.teacher_factor,
        )

    def stream(
        self,
        records: list[Record],
        targets: TargetReader,
        seed: int,
        views: RecordedViews | None = None,
    ) -> SampleStream:
        """Training samples of records: see `SampleStream`."""
        return SampleStream(records, self.training_mapper(targets), seed, views, self.mix)

    def evaluation_mapper(self) -> DenseMapper:
        """Whole images, without targets: evaluators read these at full size."""
        return DenseMapper(None, short_side=self.test_short_side, image_format=self.image_format)
