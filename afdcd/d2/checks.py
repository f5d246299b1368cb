"""What can be known to be wrong before any process starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.solver.build import GradientClipType

from afdcd.checks.data import FILES_CHECKED, file_problems, find_tasks, task_problems
from afdcd.checks.frozen import frozen_problems
from afdcd.checks.output import lost_run_problems, occupied_problems
from afdcd.checks.unlabeled import (
    find_unlabeled_sets,
    overlap_problems,
    unlabeled_file_problems,
)
from afdcd.checks.weights import result_problems, teacher_problems, weights_problems
from afdcd.d2 import record_files
from afdcd.d2.config import trained_architecture
from afdcd.d2.datasets import find_dataset, is_own_in_catalog
from afdcd.d2.evaluation import evaluator_problem
from afdcd.d2.mappers import MAPPERS
from afdcd.d2.panoptic_data import PANOPTIC_TYPES, is_standard, separated_classes
from afdcd.d2.record_files import SEMANTIC
from afdcd.data import DataError, LabelMap
from afdcd.data.labels import IGNORE
from afdcd.distill import distiller_settings
from afdcd.engine.build import SettingsReader
from afdcd.engine.checkpoints import Checkpoints
from afdcd.engine.runtime import Runtime
from afdcd.evaluation.build import inference_settings
from afdcd.tasks import Task, task_of
from afdcd.tasks.semantic_segmentation import ignore_value_problems
from afdcd.utils.folders import folder_problems
from afdcd.utils.problems import constructed, name_problems, raise_problems

# Heads of Detectron2's DeepLab project, whose pooling is fixed to the crops of its training.
POOLS_CROPS = ("DeepLabV3Head", "DeepLabV3PlusHead")
SCHEDULES = (
    "WarmupPolyLR",
    "WarmupMultiStepLR",
    "WarmupCosineLR",
    "WarmupStepWithFixedGammaLR",
)
CLIP_TYPES = [kind.value for kind in GradientClipType]
# Meta-architectures that learn from boxes.
DETECTORS = ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork", "RetinaNet")
# Metadata that name files or folders.
PATHS = ("image_root", "json_file", "panoptic_root", "panoptic_json", "sem_seg_root")


def check(
    run: Runtime, processes: int, num_gpus: int | None, *, eval_only: bool, resume: bool
) -> None:
    """Raise one SetupError with everything that is known to be wrong."""
    cfg = run.cfg
    problems = config_problems(cfg) + process_problems(cfg, processes, num_gpus)
    tasks: dict[str, list[Task]] = {"TRAIN": [], "TEST": []}
    for key in ["TEST"] if eval_only else ["TRAIN", "TEST"]:
        names, title = cfg.DATASETS[key], f"DATASETS.{key}"
        if cfg.INPUT.MAPPER != "scale_crop":
            problems += catalog_problems(cfg, names, title, scored=key == "TEST")
            problems += class_count_problems(cfg, names, title)
        else:
            needed = key == "TEST" or not run.unlabeled_names
            tasks[key] = find_tasks(names, title, problems, find_dataset, needed=needed)
    train, test = tasks["TRAIN"], tasks["TEST"]
    unlabeled = [] if eval_only or not run.own_mapper else find_unlabeled_sets(run, problems)
    if eval_only:
        checks = [
            result_problems(run.result_weights, fetches=run.FETCHES),
            folder_problems(run.output),
        ]
    else:
        folder = run.output
        checks = [
            teacher_problems(run),
            weights_problems(run.weights, "MODEL.WEIGHTS", needed=False, fetches=run.FETCHES),
            folder_problems(folder),
            overlap_problems(unlabeled, test),
            (lost_run_problems if resume else occupied_problems)(Checkpoints(folder)),
            [] if resume and Checkpoints(folder).last() else frozen_problems(run),
        ]
    raise_problems(problems, task_problems(train, test, run.channels, run.ignore_value), *checks)
    if eval_only or resume:
        return
    if cfg.INPUT.MAPPER == "scale_crop":
        settings = run.evaluation_settings()
        raise_problems(
            file_problems(train, test, settings.loading, settings.inference),
            unlabeled_file_problems(unlabeled, settings.loading),
        )
    else:
        found = [p for key in tasks for p in record_files.file_problems(cfg, key, FILES_CHECKED)]
        raise_problems([text for _, text in found])


def config_problems(cfg: Any) -> list[str]:
    """Settings that can't work, whatever the data and the number of processes."""
    architectures = [("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE)]
    if cfg.MODEL.META_ARCHITECTURE == "Distiller":
        architectures.append(("MODEL.DISTILLER.STUDENT", cfg.MODEL.DISTILLER.STUDENT))
    problems = []
    for key, name in architectures:
        problems += name_problems(key, name, _names(META_ARCH_REGISTRY))
    problems += name_problems(
        "MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, _names(BACKBONE_REGISTRY)
    )
    trained = trained_architecture(cfg)
    if trained in SEMANTIC:
        head = cfg.MODEL.SEM_SEG_HEAD.NAME
        problems += name_problems("MODEL.SEM_SEG_HEAD.NAME", head, _names(SEM_SEG_HEADS_REGISTRY))
    if cfg.MODEL.META_ARCHITECTURE == "Distiller":
        constructed(lambda: distiller_settings(cfg), problems)
    problems += SettingsReader(cfg).training_problems()
    problems += name_problems("SOLVER.LR_SCHEDULER_NAME", cfg.SOLVER.LR_SCHEDULER_NAME, SCHEDULES)
    mappers = ("scale_crop", *MAPPERS.names())
    problems += name_problems("INPUT.MAPPER", cfg.INPUT.MAPPER, mappers)
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        key = "SOLVER.CLIP_GRADIENTS.CLIP_TYPE"
        problems += name_problems(key, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, CLIP_TYPES)
        problems += _positive(cfg.SOLVER.CLIP_GRADIENTS, "SOLVER.CLIP_GRADIENTS", "CLIP_VALUE")
        problems += _positive(cfg.SOLVER.CLIP_GRADIENTS, "SOLVER.CLIP_GRADIENTS", "NORM_TYPE")
    if cfg.SOLVER.LR_SCHEDULER_NAME != "WarmupPolyLR":
        problems += _schedule_problems(cfg.SOLVER)
    if cfg.INPUT.MAPPER == "scale_crop":
        if cfg.INPUT.CROP.ENABLED:
            problems.append(
                "INPUT.CROP is of Detectron2's mapper; with INPUT.MAPPER scale_crop set "
                "INPUT.SCALE_CROP.SIZE and leave INPUT.CROP.ENABLED off (DeepLab's head would fix "
                "its pooling to the crop's size and refuse whole images)"
            )
        if trained in DETECTORS:
            problems.append(f"{trained} takes more than label maps: set INPUT.MAPPER detectron2")
    elif (inference := constructed(lambda: inference_settings(cfg), [])) and not inference.plain:
        problems.append(
            "TEST.SCALES, TEST.FLIP and TEST.WINDOW are of INPUT.MAPPER scale_crop: with "
            "Detectron2's mapper whole images are predicted once, so leave them off"
        )
    problems += [
        f"{key} is not supported by this trainer: leave it off"
        for key, on in (
            ("TEST.PRECISE_BN.ENABLED", cfg.TEST.PRECISE_BN.ENABLED),
            ("TEST.AUG.ENABLED", cfg.TEST.AUG.ENABLED),
            ("MODEL.LOAD_PROPOSALS", cfg.MODEL.LOAD_PROPOSALS),
        )
        if on
    ]
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        problems.append(
            "DATALOADER.SAMPLER_TRAIN: samples come in a resumable order of their own, so only "
            f"TrainingSampler is supported; got {cfg.DATALOADER.SAMPLER_TRAIN}"
        )
    return problems


def _positive(node: Any, where: str, key: str) -> list[str]:
    return [] if node[key] > 0 else [f"{where}.{key} must be above 0; got {node[key]}"]


def _schedule_problems(solver: Any) -> list[str]:
    """Settings of Detectron2's schedules that can't work."""
    problems = _positive(solver, "SOLVER", "GAMMA")
    if solver.BASE_LR_END < 0 or solver.BASE_LR_END > solver.BASE_LR:
        problems.append(
            f"SOLVER.BASE_LR_END must be from 0 to BASE_LR {solver.BASE_LR}; got "
            f"{solver.BASE_LR_END}"
        )
    if solver.NUM_DECAYS < 1:
        problems.append(f"SOLVER.NUM_DECAYS must be at least 1; got {solver.NUM_DECAYS}")
    if list(solver.STEPS) != sorted(solver.STEPS) or min(solver.STEPS, default=0) < 0:
        problems.append(f"SOLVER.STEPS must rise from 0 on; got {list(solver.STEPS)}")
    return problems


def process_problems(cfg: Any, processes: int, num_gpus: int | None) -> list[str]:
    """What can't work with so many processes in all, of ``num_gpus`` on this machine."""
    problems = []
    available = torch.cuda.device_count()
    if num_gpus is not None and num_gpus < 0:
        problems.append(f"--num-gpus must be at least 0; got {num_gpus}")
    elif num_gpus and cfg.MODEL.DEVICE != "cpu" and num_gpus > available:
        seen = f"PyTorch sees {available}" if available else "PyTorch sees no GPU"
        problems.append(
            f"--num-gpus {num_gpus}, but {seen}: use --num-gpus 0 for the CPU, or MODEL.DEVICE cpu "
            f"for {num_gpus} processes on the CPU"
        )
    if processes > 1 and available and cfg.MODEL.DEVICE == "cpu":
        problems.append(
            "MODEL.DEVICE is cpu, but where PyTorch sees a GPU, Detectron2 connects several "
            "processes by NCCL, for GPUs only: use --num-gpus 1, or set CUDA_VISIBLE_DEVICES to "
            "nothing"
        )
    synchronised = cfg.MODEL.SYNC_BN and available > 0 and cfg.MODEL.DEVICE != "cpu"
    if processes > 1 or synchronised:
        problems += SettingsReader(cfg).batch_problems(
            processes=processes, synchronised=synchronised
        )
    return problems


def teacher_config_problems(cfg: Any) -> list[str]:
    """What can't work in the config of a teacher."""
    model = cfg.MODEL
    crop = cfg.INPUT.CROP
    if crop.ENABLED and model.SEM_SEG_HEAD.NAME in POOLS_CROPS:
        return [
            f"INPUT.CROP.ENABLED makes {model.SEM_SEG_HEAD.NAME} average over {list(crop.SIZE)} "
            "pixels and refuse images that these don't divide: add INPUT.CROP.ENABLED False to "
            "MODEL.DISTILLER.TEACHER.OPTS, and it averages over the whole image"
        ]
    problems = name_problems("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, _teachers())
    return problems + name_problems(
        "MODEL.BACKBONE.NAME", model.BACKBONE.NAME, _names(BACKBONE_REGISTRY)
    )


def _names(registry: Any) -> list[str]:
    return [name for name, _ in registry]


def _teachers() -> list[str]:
    return [name for name in _names(META_ARCH_REGISTRY) if name != "Distiller"]


def catalog_problems(cfg: Any, names: Sequence[str], title: str, *, scored: bool) -> list[str]:
    """What is wrong with data sets that Detectron2's mapper reads."""
    if not names:
        return [f"{title} is empty: name a data set"]
    problems = []
    for name in names:
        unknown = name_problems(title, name, DatasetCatalog.list())
        problems += unknown or _dataset_problems(cfg, name, title, scored=scored)
    if not problems and len({is_standard(MetadataCatalog.get(name)) for name in names}) == 2:
        problems.append(
            f"{title}: panoptic data sets in the standard and in the separated form don't mix"
        )
    return problems


def _dataset_problems(cfg: Any, name: str, title: str, *, scored: bool) -> list[str]:
    if name.startswith("shapes_"):
        try:
            DatasetCatalog.get(name)  # draws them
        except DataError as error:
            return [f"{title}: {error}"]
    metadata = MetadataCatalog.get(name)
    # The mapper of the standard panoptic form writes the head's own value.
    learns = not scored and trained_architecture(cfg) in SEMANTIC and not is_standard(metadata)
    ignore_label = getattr(metadata, "ignore_label", IGNORE)
    ignore_value = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    problems = ignore_value_problems(name, ignore_label, ignore_value) if learns else []
    if is_own_in_catalog(name):
        label_map = find_dataset(name).label_map
        plain = LabelMap(label_map.num_classes, ignored=label_map.ignored)
        if label_map != plain or label_map.ignored - {IGNORE}:
            return [
                *problems,
                f"{title}: the label maps of {name} hold other values than classes, which "
                "Detectron2's mapper doesn't translate: use INPUT.MAPPER scale_crop",
            ]
        return problems
    kind = getattr(metadata, "evaluator_type", "")
    if kind == "cityscapes_instance":
        problems.append(
            f"{title}: Detectron2 can't load {name}, since it imports a module that its public "
            "releases lack ('deeplearning'); cityscapes_fine_panoptic_* works"
        )
    elif scored and (problem := evaluator_problem(name)):
        problems.append(f"{title}: {problem}")
    # The standard panoptic form is read without COCO's instances.
    needed = [key for key in PATHS if key != "json_file" or not is_standard(metadata)]
    missing = [
        str(path)
        for path in (getattr(metadata, key, None) for key in needed)
        if path and "://" not in str(path) and not Path(path).exists()
    ]
    if missing:
        problems.append(
            f"{title}: {name} needs {', '.join(missing)}: set DETECTRON2_DATASETS to the folder "
            "that holds the data sets"
            + (
                f". Without prepared label maps use {name.removesuffix('_separated')}"
                if name.endswith("_panoptic_separated") and len(missing) == 1
                else ""
            )
        )
    return problems


def class_count_problems(cfg: Any, names: Sequence[str], title: str) -> list[str]:
    """Whether the heads have as many classes as the data sets, where they exist."""
    model, architecture = cfg.MODEL, trained_architecture(cfg)
    problems = []
    for name in [name for name in names if name in DatasetCatalog.list()]:
        if is_own_in_catalog(name):
            channels = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
            problems += task_of(find_dataset(name)).channel_problems(channels)
            continue
        metadata = MetadataCatalog.get(name)
        panoptic = getattr(metadata, "evaluator_type", "") in PANOPTIC_TYPES
        expected = {}
        if panoptic and architecture == "PanopticFPN":
            things, stuff = separated_classes(metadata)
            expected = {"ROI_HEADS": len(things), "SEM_SEG_HEAD": len(stuff) + 1}
        elif architecture == "GeneralizedRCNN" and hasattr(metadata, "thing_classes"):
            expected = {"ROI_HEADS": len(metadata.thing_classes)}
        problems += [
            f"MODEL.{head}.NUM_CLASSES is {model[head].NUM_CLASSES}, but {title} {name} needs "
            f"{count}"
            for head, count in expected.items()
            if count != model[head].NUM_CLASSES
        ]
    return problems
