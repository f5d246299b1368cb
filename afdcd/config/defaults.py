"""The subset of Detectron2's configuration that the embedded runtime reads, with its defaults."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from afdcd.config.keys import add_afdcd_config

# What the embedded runtime reads of Detectron2's configuration. A key that is not here is refused
# rather than ignored.
_DETECTRON2_DEFAULTS = {
    "VERSION": 2,
    "OUTPUT_DIR": "./output",
    "SEED": -1,
    "CUDNN_BENCHMARK": False,
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "DEVICE": "cuda",
        "WEIGHTS": "",
        "PIXEL_MEAN": [103.53, 116.28, 123.675],
        "PIXEL_STD": [1.0, 1.0, 1.0],
        "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": 2},
        "RESNETS": {
            "DEPTH": 50,
            "OUT_FEATURES": ["res4"],
            "NORM": "FrozenBN",
            "STEM_OUT_CHANNELS": 64,
            "RES2_OUT_CHANNELS": 256,
        },
        "SEM_SEG_HEAD": {
            "NAME": "SemSegFPNHead",
            "IN_FEATURES": ["p2", "p3", "p4", "p5"],
            "IGNORE_VALUE": 255,
            "NUM_CLASSES": 54,
            "CONVS_DIM": 128,
            "NORM": "GN",
            "LOSS_WEIGHT": 1.0,
        },
    },
    "INPUT": {
        "FORMAT": "BGR",
        "MIN_SIZE_TRAIN": (800,),
        "MIN_SIZE_TEST": 800,
        "RANDOM_FLIP": "horizontal",
    },
    "DATASETS": {"TRAIN": (), "TEST": ()},
    "DATALOADER": {"NUM_WORKERS": 4},
    "SOLVER": {
        "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
        "MAX_ITER": 40000,
        "BASE_LR": 0.001,
        "MOMENTUM": 0.9,
        "NESTEROV": False,
        "WEIGHT_DECAY": 0.0001,
        "WEIGHT_DECAY_NORM": 0.0,
        "WEIGHT_DECAY_BIAS": None,
        "BIAS_LR_FACTOR": 1.0,
        "WARMUP_FACTOR": 0.001,
        "WARMUP_ITERS": 1000,
        "WARMUP_METHOD": "linear",
        "CHECKPOINT_PERIOD": 5000,
        "IMS_PER_BATCH": 16,
        "AMP": {"ENABLED": False},
    },
    "TEST": {"EVAL_PERIOD": 0},
}


def embedded_config() -> CfgNode:
    """A new config with every key that the embedded runtime knows."""
    cfg = CfgNode(_DETECTRON2_DEFAULTS)
    add_afdcd_config(cfg)
    return cfg
