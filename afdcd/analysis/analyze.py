"""Everything that an analysis says of a distilled student, as ``analysis.json`` holds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from afdcd.analysis.features import (
    Similarities,
    linear_cka,
    patch_similarities,
    plane,
    relational_distance,
)
from afdcd.analysis.groups import (
    BANDS,
    RARE,
    REGION_SIZES,
    boundary_bands,
    region_sizes,
    thin_pixels,
)
from afdcd.analysis.runs import ALONE, DISTILLED, TEACHER, Subject
from afdcd.data.listing import spread
from afdcd.distill.averaging import to_grid
from afdcd.distill.objectives import Objective, Objectives
from afdcd.losses.registry import LossContext
from afdcd.losses.shapes import match_size
from afdcd.tasks import SemanticSegmentation
from afdcd.utils.problems import SetupError
from afdcd.utils.progress import progress

# Patches of self-similarities, in positions of the teacher's map; the paper's.
PATCH = (4, 4)
# Positions drawn from each image for distances; and from all of them for CKA and planes.
POSITIONS, ROWS = 256, 4096
# Images named among those that changed most, each way.
NAMED = 10
# Points of a plane in analysis.json, per network.
SHOWN = 1000


@dataclass
class Tap:
    """What is gathered of an objective's pair of taps."""

    objective: Objective
    cosines: dict[str, Similarities] = field(default_factory=lambda: defaultdict(Similarities))
    rows: dict[str, list[torch.Tensor]] = field(default_factory=lambda: defaultdict(list))
    # Of every drawn position: its groups, and its distances by kind and network.
    groups: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    distances: dict[tuple[str, str], list[torch.Tensor]] = field(
        default_factory=lambda: defaultdict(list)
    )
    # Of the target's values at these: their sum, and that of their squares.
    total: torch.Tensor | float = 0.0
    squares: float = 0.0

    def add(
        self,
        maps: Mapping[str, torch.Tensor],
        groups: Mapping[str, np.ndarray],
        objectives: Objectives | None,
        *,
        keep: int,
        seed: int,
    ) -> None:
        """Take an image.

        Args:
            maps: [1, C, h, w] by network.
            groups: int [H, W] by kind of group, -1 where pixels don't count.
            objectives: with trained layers; None for no distance behind these.
            keep: positions for CKA and planes.
            seed: of the positions, and of a loss's mask.
        """
        teacher = maps[TEACHER]
        grid = (teacher.shape[-2], teacher.shape[-1])
        for title, features in maps.items():
            self.cosines[title].add(patch_similarities(match_size(features, teacher), PATCH))
        at = {kind: _at_centres(pixels, grid).ravel() for kind, pixels in groups.items()}
        counted = np.flatnonzero(at["class"] >= 0)
        drawn = np.random.default_rng(seed).permutation(counted)[:POSITIONS]
        places = torch.from_numpy(drawn)
        for kind, found in at.items():
            self.groups[kind].append(found[drawn])
        rows = {t: _rows(match_size(f, teacher), places) for t, f in maps.items()}
        for title, values in rows.items():
            self.rows[title].append(values[:keep].cpu())
            if title != TEACHER:
                apart = relational_distance(values, rows[TEACHER])
                self.distances["relational", title].append(apart.cpu())
        if objectives is None:
            return
        wanted = self.objective.target
        target = objectives.compress({wanted.path: teacher}, [wanted])[wanted.name]
        context = LossContext(generator=torch.Generator().manual_seed(seed))
        loss = objectives.loss_of(self.objective)
        with torch.no_grad():
            student = loss.compared(maps[DISTILLED], target, context=context)
        if student.shape[1] != target.shape[1]:
            return
        wanted_rows = _rows(target, places)
        apart = (_rows(match_size(student, target), places) - wanted_rows).square().sum(1)
        self.distances["aligned", DISTILLED].append(apart.cpu())
        self.total = self.total + wanted_rows.sum(0).cpu()
        self.squares += float(wanted_rows.square().sum())

    def result(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """What `analysis.json` says of the taps, with these names of classes."""
        rows = {title: torch.cat(parts) for title, parts in self.rows.items()}
        students = [title for title in rows if title != TEACHER]
        groups = {kind: np.concatenate(parts) for kind, parts in self.groups.items()}
        names = {
            "class": classes,
            "region size": tuple(REGION_SIZES),
            "distance from a boundary": tuple(BANDS),
        }
        distances: dict[str, Any] = {}
        for (kind, title), parts in self.distances.items():
            values = torch.cat(parts).double().numpy()
            if kind == "aligned":
                # In shares of the teacher's variance.
                mean = torch.as_tensor(self.total) / len(values)
                values = values / max(
                    self.squares / len(values) - float(mean.square().sum()), 1e-12
                )
            distances.setdefault(kind, {})[title] = {
                "all": float(values.mean()),
                **{
                    by: {
                        name: float(values[groups[by] == n].mean())
                        for n, name in enumerate(names[by])
                        if (groups[by] == n).any()
                    }
                    for by in names
                },
            }
        return {
            "student's tap": self.objective.student_tap,
            "teacher's tap": self.objective.teacher_tap,
            "linear CKA": {t: linear_cka(rows[t], rows[TEACHER]) for t in students},
            "self-similarity": {
                "mean": {title: found.mean() for title, found in self.cosines.items()},
                "Wasserstein distance from the teacher": {
                    title: self.cosines[title].wasserstein(self.cosines[TEACHER])
                    for title in students
                },
                # Every 20th part of the axis, for a figure.
                "shares": {t: _coarse(found.share) for t, found in self.cosines.items()},
            },
            "distance": distances,
            "plane": {t: plane(values)[:SHOWN].tolist() for t, values in rows.items()},
            "plane's classes": _classes_of_rows(self.groups["class"], self.rows[TEACHER]),
        }


def analyze(subject: Subject, *, limit: int | None = None) -> dict[str, Any]:
    """Look into a subject's networks, image by image.

    Args:
        subject: what is compared.
        limit: images, evenly spread over the test set; None for all.

    Returns:
        the content of ``analysis.json``: see docs/analysis.md.

    Raises:
        SetupError: the data set shows no classes, or a tap isn't in the student alone.
        DataError: a file can't be used.
    """
    task = subject.task
    if not isinstance(task, SemanticSegmentation):
        raise SetupError(
            [f"an analysis takes classes; {task.dataset.spec.name} is of the task {task.TITLE}"]
        )
    spec, records = task.dataset.spec, spread(task.dataset.records, limit)
    classes, titles = spec.classes, list(subject.networks)
    taps = {objective.name: Tap(objective) for objective in subject.objectives.objectives}
    evaluators = {title: task.evaluator() for title in titles}
    # Pixels by class of each hard case: all, and those that a network gets right.
    pixels: dict[str, Any] = defaultdict(lambda: np.zeros(len(classes)))
    right: dict[str, dict[str, Any]] = {
        title: defaultdict(lambda: np.zeros(len(classes))) for title in titles
    }
    images = []
    keep = -(-ROWS // len(records))
    for number, record in enumerate(progress(records, "analysing")):
        labels = task.targets()(record)
        counted = labels != spec.ignore_label
        bands, sizes = boundary_bands(labels), region_sizes(labels)
        hard = {
            "thin structures": thin_pixels(labels) & counted,
            "small regions": (sizes == 0) & counted,
            "within 2 % of a boundary": (bands <= 1) & counted,
            "everything": counted,
        }
        for name, mask in hard.items():
            pixels[name] += np.bincount(labels[mask], minlength=len(classes))
        maps: dict[str, dict[str, torch.Tensor]] = {name: {} for name in taps}
        seen: dict[str, tuple[int, int]] = {}
        image: dict[str, Any] = {"image": str(record.get("image_id", record["file_name"]))}
        for title, network in subject.networks.items():
            paths = {name: _path(tap.objective, title) for name, tap in taps.items()}
            output, found, seen[title] = network.see(record, list(dict.fromkeys(paths.values())))
            for name, path in paths.items():
                maps[name][title] = found[path]
            prediction = task.decode(output)
            evaluators[title].confusion.update(prediction, labels)
            evaluators[title].boundary.update(prediction, labels)
            correct = prediction == labels
            for name, mask in hard.items():
                hits = np.bincount(labels[correct & mask], minlength=len(classes))
                right[title][name] += hits
            image[title] = 100 * float(correct[counted].mean()) if counted.any() else None
        images.append(image)
        groups = {
            kind: np.where(counted, values, -1)
            for kind, values in (
                ("class", labels.astype(np.int64)),
                ("region size", sizes),
                ("distance from a boundary", bands),
            )
        }
        for name, tap in taps.items():
            maps[name][TEACHER] = to_grid(maps[name][TEACHER], seen[TEACHER], seen[DISTILLED])
            layers = subject.objectives if subject.trained else None
            tap.add(maps[name], groups, layers, keep=keep, seed=number)
    figures = {title: evaluators[title].evaluate() for title in titles}
    counts = pixels["everything"]
    share = counts / max(counts.sum(), 1)
    rare = (share > 0) & (share < RARE)
    for found in (pixels, *right.values()):
        found["rare classes"] = found["everything"] * rare
    cases = [name for name, number in pixels.items() if number.any()]
    return {
        "data set": spec.name,
        "images": len(records),
        "of": len(task.dataset.records),
        "runs": subject.folders,
        "scores": {t: {k: v for k, v in f.items() if "-" not in k} for t, f in figures.items()},
        "classes": {
            name: {
                "share of pixels": 100 * float(share[n]),
                "IoU": {t: figures[t][f"IoU-{name}"] for t in titles},
                "boundary IoU": {t: figures[t][f"BoundaryIoU-{name}"] for t in titles},
            }
            for n, name in enumerate(classes)
            if counts[n]
        },
        "hard cases": {
            "rare classes": [name for name, r in zip(classes, rare, strict=True) if r],
            "pixels right": {
                case: {t: _percent(right[t][case].sum(), pixels[case].sum()) for t in titles}
                for case in cases
            },
            "mean over classes": {
                case: {t: _percent(right[t][case], pixels[case]) for t in titles} for case in cases
            },
        },
        "changed most": _changed(images) if ALONE in titles else {},
        "taps": {name: tap.result(classes) for name, tap in taps.items()},
    }


def _path(objective: Objective, title: str) -> str:
    return objective.teacher_tap if title == TEACHER else objective.student_tap


def _rows(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The positions [n, C] of a map [1, C, H, W], by their numbers."""
    return features[0].flatten(1).T[places.to(features.device)]


def _at_centres(pixels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The values [h, w] at the pixels in the middle of a grid's positions."""
    rows, columns = (
        ((np.arange(cells) + 0.5) * side / cells).astype(int)
        for cells, side in zip(grid, pixels.shape, strict=True)
    )
    return pixels[rows[:, None], columns]


def _coarse(share: np.ndarray) -> list[float]:
    """Shares of the cosines in 40 equal parts of -1 to 1; the last one holds 1 itself."""
    parts = share[:-1].reshape(40, -1).sum(1)
    parts[-1] += share[-1]
    return parts.tolist()


def _classes_of_rows(classes: list[np.ndarray], rows: list[torch.Tensor]) -> list[int]:
    kept = [c[: len(r)] for c, r in zip(classes, rows, strict=True)]
    return [int(label) for label in np.concatenate(kept)[:SHOWN]]


def _percent(part: Any, whole: Any) -> float:
    """Percent of the whole; the mean over the classes that there are, where both are by class."""
    known = np.asarray(whole) > 0
    return 100 * float((np.asarray(part)[known] / np.asarray(whole)[known]).mean())


def _changed(images: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The images whose share of right pixels changed most, each way."""
    known = [image for image in images if image[ALONE] is not None]
    changes = [{**image, "change": image[DISTILLED] - image[ALONE]} for image in known]
    changes.sort(key=lambda image: image["change"])
    return {
        "gained": [image for image in reversed(changes) if image["change"] > 0][:NAMED],
        "lost": [image for image in changes if image["change"] < 0][:NAMED],
    }
