"""Networks for small devices, and timm's, at toy size in whole runs of either runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from afdcd.cli.predict import main as predict
from afdcd.cli.train_net import main as train

ASPP = {"NAME": "ASPPHead", "IN_FEATURES": ["res5"], "CONVS_DIM": 8, "AUX_WEIGHT": 0.0}
LRASPP = {**ASPP, "NAME": "LRASPPHead", "IN_FEATURES": ["res3.0", "res5"], "DROPOUT": 0.0}
V3 = {"WIDTH_MULT": 0.25, "NORM": "BN"}
# Their part of MODEL.
NETWORKS: dict[str, dict[str, Any]] = {
    "deeplabv3_mbv3_small": {
        "BACKBONE": {"NAME": "build_dilated_mobilenetv3_backbone"},
        "MOBILENETV3": {**V3, "SIZE": "small"},
        "SEM_SEG_HEAD": ASPP,
    },
    "lraspp_mbv3_large": {
        "BACKBONE": {"NAME": "build_dilated_mobilenetv3_backbone", "OUTPUT_STRIDE": 16},
        "MOBILENETV3": {**V3, "SIZE": "large", "OUT_FEATURES": ["res3.0", "res4", "res5"]},
        "SEM_SEG_HEAD": {**LRASPP, "AUX_WEIGHT": 0.4},
    },
    "deeplabv3_effnet_lite1": {
        "BACKBONE": {"NAME": "build_dilated_efficientnet_lite_backbone", "OUTPUT_STRIDE": 32},
        "EFFICIENTNET_LITE": {"VARIANT": 1, "WIDTH_MULT": 0.25},
        "SEM_SEG_HEAD": ASPP,
    },
}
TIMM: dict[str, dict[str, Any]] = {
    "deeplabv3_convnext": {
        "BACKBONE": {"NAME": "timm:test_convnext"},
        "SEM_SEG_HEAD": ASPP,
    },
    "lraspp_vit": {
        "BACKBONE": {"NAME": "timm:test_vit", "OUTPUT_STRIDE": 16},
        "SEM_SEG_HEAD": {**LRASPP, "IN_FEATURES": ["res3", "res5"]},
    },
}
SETTINGS = {"SOLVER": {"MAX_ITER": 4, "CHECKPOINT_PERIOD": 2, "CHECKPOINTS_KEPT": 9}}


def write_network(configs: Path, model: dict[str, Any]) -> None:
    """Write network.yaml and network_distilled.yaml beside the tiny runs."""
    student = {"_BASE_": "student.yaml", "MODEL": model, **SETTINGS}
    distilled = {
        "_BASE_": ["distilled.yaml", "network.yaml"],
        "MODEL": {"META_ARCHITECTURE": "Distiller"},
    }
    for name, content in (("network", student), ("network_distilled", distilled)):
        (configs / f"{name}.yaml").write_text(yaml.safe_dump(content))


def weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "student_final.pth", weights_only=True)["model"]


def check_whole_run(configs: Path, folder: Path, runtime: str, name: str) -> None:
    """Train; stop and resume to the same bits; evaluate alone; predict images of an odd size."""
    flags = ["--runtime", runtime, "--config-file", str(configs / f"{name}.yaml")]
    whole, parts = folder / "whole", folder / "parts"
    for output in (whole, parts):
        assert train([*flags, "OUTPUT_DIR", str(output)]) == 0
    for file in ("model_final.pth", "student_final.pth", "model_best.pth"):
        (parts / file).unlink()
    (parts / "last_checkpoint").write_text("model_0000001.pth")
    assert train([*flags, "--resume", "OUTPUT_DIR", str(parts)]) == 0
    a, b = weights(whole), weights(parts)
    assert a.keys() == b.keys()
    assert all(torch.equal(value, b[key]) for key, value in a.items())
    start = torch.load(whole / "model_0000001.pth", weights_only=True)["model"]
    names = [key for key in a if key.endswith("weight")]
    assert any(not torch.equal(a[key], start[key]) for key in names if key.startswith("backbone"))

    assert train([*flags, "--eval-only", "OUTPUT_DIR", str(whole)]) == 0
    assert (whole / "evaluation.json").is_file()
    words = ["--input", str(folder / "data/camvid/val"), "--output", str(folder / "out")]
    odd = ["INPUT.MIN_SIZE_TEST", "37", "OUTPUT_DIR", str(whole)]
    assert predict([*flags, *words, "--num-gpus", "0", *odd]) == 0
    assert len(list((folder / "out").glob("*_labels.png"))) == 2
