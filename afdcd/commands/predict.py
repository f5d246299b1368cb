"""Predict images, folders of images, or videos: colour overlays and label maps.

Takes the config of a teacher, a student, or a distilled student (whose student is used).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from afdcd.analysis.panels import colorize
from afdcd.checkpoints import BEST, FINAL
from afdcd.commands.train_net import report_errors
from afdcd.data import DataError, DatasetSpec, get_spec
from afdcd.data.images import read_image
from afdcd.data.labels import LabelMap
from afdcd.data.listing import IMAGE_SUFFIXES
from afdcd.data.mapper import resize_short_side
from afdcd.data.palette import Color, bit_palette
from afdcd.embedded.preflight import choose_device
from afdcd.evaluation import predict
from afdcd.files import write_atomically
from afdcd.precision import autocast
from afdcd.preflight import SetupError, output_problems, raise_problems, weights_problems
from afdcd.runtimes import choose_runtime

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
DEFAULT_RATE = 25.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="predict.py", description=__doc__)
    p.add_argument("--config-file", required=True, metavar="FILE", help="YAML config")
    p.add_argument(
        "--input",
        nargs="+",
        required=True,
        type=Path,
        help="images, folders (with all below), videos",
    )
    p.add_argument("--output", required=True, type=Path, help="folder to write to")
    p.add_argument("--weights", help="checkpoint (MODEL.WEIGHTS, or the run's in OUTPUT_DIR)")
    p.add_argument("--batch-size", type=int, default=1, help="images of one size at once (1)")
    p.add_argument("--amp", action="store_true", help="mixed precision, of SOLVER.AMP.DTYPE")
    p.add_argument("--alpha", type=float, default=0.5, help="opacity of the colours (0.5)")
    p.add_argument("--no-overlay", action="store_true", help="label maps only")
    p.add_argument("--no-labels", action="store_true", help="overlays only")
    p.add_argument(
        "--official-values",
        action="store_true",
        help="write label maps with the data set owners' values, as test servers expect "
        "(Cityscapes: label ids), named as the image",
    )
    p.add_argument("--data-set", help="whose colours and values to use (DATASETS.TEST's first)")
    p.add_argument("--num-gpus", type=int, default=None, help="0 for the CPU")
    p.add_argument(
        "--runtime",
        choices=("auto", "detectron2", "embedded"),
        default="auto",
        help="auto: Detectron2 where it is installed",
    )
    p.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit codes as train_net's."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


@dataclass(frozen=True)
class Style:
    """How predictions are written.

    Attributes:
        colors: (red, green, blue) by class.
        alpha: opacity of the colours in overlays.
        overlay, labels: what to write.
        official: label map whose stored values are written, or None for the labels themselves.
    """

    colors: tuple[Color, ...]
    alpha: float
    overlay: bool
    labels: bool
    official: LabelMap | None


class Predictor:
    """Labels of images.

    Args:
        cfg: the model's config.
        model: on its device, in evaluation mode.
    """

    def __init__(self, cfg: Any, model: nn.Module) -> None:
        self.cfg, self.model = cfg, model
        self.device = next(model.parameters()).device

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Classes int64 [H, W] of BGR images [H, W, 3] of one size."""
        batch = []
        for image in images:
            height, width = image.shape[:2]
            small, _ = resize_short_side(image, None, self.cfg.INPUT.MIN_SIZE_TEST)
            if self.cfg.INPUT.FORMAT == "RGB":
                small = small[:, :, ::-1]
            tensor = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))
            batch.append({"image": tensor, "height": height, "width": width})
        with torch.no_grad(), autocast(self.cfg, self.device):
            outputs = predict(self.cfg, self.model, batch)
        return [output["sem_seg"].argmax(0).cpu().numpy() for output in outputs]


def _main(args: argparse.Namespace) -> None:
    runtime = choose_runtime(args.runtime)
    overrides = [word for word in args.opts if word != "--"]
    if args.amp:
        overrides += ["SOLVER.AMP.ENABLED", "True"]
    cfg = runtime.configure(args.config_file, overrides)
    own = [path for n in (FINAL, BEST) if (path := Path(cfg.OUTPUT_DIR) / n).is_file()]
    weights = args.weights or cfg.MODEL.WEIGHTS or (str(own[0]) if own else "")
    problems = []
    if args.batch_size < 1:
        problems.append(f"--batch-size must be at least 1; got {args.batch_size}")
    if not 0 <= args.alpha <= 1:
        problems.append(f"--alpha must be from 0 to 1; got {args.alpha}")
    if args.no_overlay and args.no_labels:
        problems.append("--no-overlay and --no-labels leave nothing to write")
    raise_problems(
        problems,
        weights_problems(weights, "--weights", needed=True),
        output_problems(args.output, "--output"),
    )
    spec = _spec(cfg, args.data_set)
    images, videos = find_inputs(args.input, args.output)
    try:
        model = runtime.build(cfg)
        runtime.load(model, weights, True)
    except ValueError as error:
        raise SetupError([str(error)]) from error
    model.to(choose_device(cfg, args.num_gpus)).eval()
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    style = _style(args, spec, classes)
    predictor = Predictor(cfg, model)
    unusable: list[str] = []
    window = spec.window if spec is not None else None
    batches = _batches(images, args.batch_size, window, unusable)
    for batch in tqdm(batches, disable=not sys.stderr.isatty()):
        for (_, name, image), labels in zip(
            batch, predictor([image for _, _, image in batch]), strict=True
        ):
            write_prediction(args.output, name, image, labels, style)
    broken = len(unusable)
    for path in videos:
        try:
            predict_video(path, args.output / f"{path.stem}_overlay.mp4", predictor, style, args)
        except DataError as error:
            unusable.append(str(error))
    done = len(images) - broken, len(videos) - (len(unusable) - broken)
    print(f"Predicted {done[0]} images and {done[1]} videos into {args.output}")
    if unusable:
        whole = len(images) + len(videos)
        lines = "\n  ".join(unusable)
        raise DataError(f"{len(unusable)} of {whole} inputs can't be used:\n  {lines}")


def _spec(cfg: Any, name: str | None) -> DatasetSpec | None:
    """The data set whose colours and values are used; None where the config names none."""
    names = [name] if name else [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    for candidate in names[:1]:
        try:
            return get_spec(candidate)
        except KeyError as error:  # of the config, it may be one of Detectron2's
            if name:
                raise SetupError([f"--data-set: {error.args[0]}"]) from error
        except DataError as error:  # its images may need a window: nothing is guessed
            raise SetupError(
                [f"{error}. Put it there, or name another data set: --data-set NAME"]
            ) from error
    return None


def _style(args: argparse.Namespace, spec: DatasetSpec | None, classes: int) -> Style:
    fits = spec is not None and len(spec.classes) == classes
    official = None
    if args.official_values:
        if spec is None or not fits or spec.official is None:
            raise SetupError(
                ["--official-values needs a data set with such values and the model's classes"]
            )
        official = spec.official
    return Style(
        colors=spec.colors if spec is not None and fits else bit_palette(classes, first=1),
        alpha=args.alpha,
        overlay=not args.no_overlay,
        labels=not args.no_labels,
        official=official,
    )


def find_inputs(paths: Sequence[Path], output: Path) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Images, each with its name below the output folder, and videos.

    What lies below the output folder is no input: it is of an earlier run.

    Raises:
        SetupError: a path is missing or of an unknown kind, or two images would have one name.
    """
    images: list[tuple[Path, str]] = []
    videos, problems = [], []
    output = output.resolve()
    for path in paths:
        suffix = path.suffix.lower()
        if path.is_dir() and path.resolve() == output:
            problems.append(f"--output {path} is also an --input: choose another folder")
        elif path.is_dir():
            found = [
                p
                for p in sorted(path.rglob("*"))
                if p.suffix.lower() in IMAGE_SUFFIXES
                and not p.name.startswith(".")
                and not p.resolve().is_relative_to(output)
            ]
            if not found:
                problems.append(f"--input: no images in {path}")
            images += [(p, p.relative_to(path).with_suffix("").as_posix()) for p in found]
        elif not path.is_file():
            problems.append(f"--input: nothing at {path}")
        elif suffix in VIDEO_SUFFIXES:
            videos.append(path)
        elif suffix in IMAGE_SUFFIXES:
            images.append((path, path.stem))
        else:
            problems.append(
                f"--input: {path} is no image ({', '.join(IMAGE_SUFFIXES)}) or video "
                f"({', '.join(VIDEO_SUFFIXES)})"
            )
    counts = Counter(name for _, name in images)
    counts.update(path.stem for path in videos if len({p.stem for p in videos}) < len(videos))
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        problems.append(f"--input: several files would be written as {', '.join(twice[:3])}")
    if any(path.resolve() == output / f"{name}.png" for path, name in images):
        problems.append(f"--output {output} holds --input images: choose another folder")
    raise_problems(problems)
    return images, videos


def _batches(
    images: Iterable[tuple[Path, str]],
    size: int,
    window: tuple[float, float] | None,
    unusable: list[str],
) -> Iterator[list[tuple[Path, str, np.ndarray]]]:
    """Images in their order, at most so many at once, of one size.

    Those that can't be read are left out and named in ``unusable``.
    """
    batch: list[tuple[Path, str, np.ndarray]] = []
    for path, name in images:
        try:
            image = read_image(path, window)
        except DataError as error:
            unusable.append(str(error))
            continue
        if batch and (len(batch) == size or batch[0][2].shape != image.shape):
            yield batch
            batch = []
        batch.append((path, name, image))
    if batch:
        yield batch


def overlay(image: np.ndarray, labels: np.ndarray, style: Style) -> np.ndarray:
    """An image with its classes' colours on it, BGR."""
    colors = colorize(labels, style.colors)
    return cv2.addWeighted(colors, style.alpha, image, 1 - style.alpha, 0)


def stored_labels(labels: np.ndarray, official: LabelMap | None) -> np.ndarray:
    """Labels [H, W] as they are written: uint8, uint16, or (colours) uint8 [H, W, 3] in BGR."""
    if official is None:
        return labels.astype(np.uint8)
    values = official.stored_values()
    table = np.array([values[k] for k in range(official.num_classes)])
    stored = table[labels]
    if official.encoding == "rgb":
        return np.stack([stored >> 16, stored >> 8 & 255, stored & 255], axis=-1).astype(np.uint8)
    if table.max() > 65535:
        raise SetupError([f"label values up to {table.max()} don't fit a 16-bit PNG file"])
    return stored.astype(np.uint8 if table.max() < 256 else np.uint16)


def write_prediction(
    folder: Path, name: str, image: np.ndarray, labels: np.ndarray, style: Style
) -> None:
    """Write ``<name>_overlay.png`` and ``<name>_labels.png``; ``<name>.png`` of official values."""
    if style.overlay:
        _write_png(folder / f"{name}_overlay.png", overlay(image, labels, style))
    if style.labels:
        suffix = ".png" if style.official is not None else "_labels.png"
        _write_png(folder / f"{name}{suffix}", stored_labels(labels, style.official))


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise OSError(f"can't encode {path}")
    write_atomically(path, lambda file: file.write(data.tobytes()))


def predict_video(
    source: Path, target: Path, predictor: Predictor, style: Style, args: argparse.Namespace
) -> None:
    """Write the overlay of every frame as a video, and label maps as numbered files.

    Raises:
        DataError: the video can't be read.
    """
    reader = cv2.VideoCapture(str(source))
    rate = reader.get(cv2.CAP_PROP_FPS)
    writer = None
    frames = 0
    try:
        for batch in _frames(reader, args.batch_size):
            for image, labels in zip(batch, predictor(batch), strict=True):
                if style.overlay:
                    if writer is None:
                        size = (image.shape[1], image.shape[0])
                        code = cv2.VideoWriter.fourcc(*"mp4v")
                        fps = rate if 0 < rate < 1000 else DEFAULT_RATE
                        writer = cv2.VideoWriter(str(target), code, fps, size)
                        if not writer.isOpened():
                            raise OSError(f"can't write {target}")
                    writer.write(overlay(image, labels, style))
                if style.labels:
                    path = args.output / source.stem / f"{frames:06d}.png"
                    _write_png(path, stored_labels(labels, style.official))
                frames += 1
    finally:
        reader.release()
        if writer is not None:
            writer.release()
    if not frames:
        raise DataError(f"{source} can't be read as a video, or has no frames")


def _frames(reader: Any, size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    while True:
        there, image = reader.read()
        if there:
            batch.append(image)
        if batch and (len(batch) == size or not there):
            yield batch
            batch = []
        if not there:
            return


if __name__ == "__main__":
    sys.exit(main())
