"""PanopticFPN ResNet-101 -> ResNet-18 on COCO with Af-DCD, as a Python config.

For Detectron2's own tools/lazyconfig_train_net.py, and scripts like it:

    python lazyconfig_train_net.py --config-file afdcd_panoptic_fpn_r18.py --num-gpus 8

Optimizer, schedule and data are Detectron2's for PanopticFPN.
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from afdcd.d2.lazy import distill
from afdcd.d2.panoptic import PanopticEvaluator

base = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py"
dataloader = model_zoo.get_config(base).dataloader
# Detectron2's own needs panopticapi, which is not on PyPI.
dataloader.evaluator[2] = L(PanopticEvaluator)(name="${...test.dataset.names}")
lr_multiplier = model_zoo.get_config(base).lr_multiplier
optimizer = model_zoo.get_config(base).optimizer
train = model_zoo.get_config(base).train

teacher = model_zoo.get_config(base).model
teacher.backbone.bottom_up.stages.depth = 101

student = model_zoo.get_config(base).model
student.backbone.bottom_up.stages.depth = 18
del student.backbone.bottom_up.stages.stride_in_1x1  # its blocks have no 1x1 convolutions
# torchvision's weights (README.md says how the file is made) expect red, green, blue.
student.pixel_mean = [123.675, 116.28, 103.53]
student.pixel_std = [58.395, 57.12, 57.375]
student.input_format = "RGB"
dataloader.train.mapper.image_format = "RGB"
dataloader.test.mapper.image_format = "RGB"

model = L(distill)(
    student=student,
    teacher=teacher,
    student_weights="weights/r18_torchvision.pkl",
    teacher_weights=(
        "detectron2://COCO-PanopticSegmentation/panoptic_fpn_R_101_3x/139514519/"
        "model_final_cafdb1.pkl"
    ),
    student_format="RGB",
    teacher_format="BGR",
    image_size=[640, 640],
    settings={
        "DISTILLER": {
            "LOSSES": {
                "logit_kd": {"NAME": "logit_kd", "WEIGHT": 0.5},
                "afdcd": {
                    "NAME": "afdcd",
                    "TAPS": [
                        ["backbone.fpn_output3", "backbone.fpn_output3"],
                        ["backbone.fpn_output4", "backbone.fpn_output4"],
                        ["backbone.fpn_output5", "backbone.fpn_output5"],
                    ],
                    "WEIGHT": [0.5, 1.0, 1.0],
                    "RECONSTRUCTION_WEIGHT": 1.0,
                    "CONTRAST_WEIGHT": 0.0024,
                    "REDUCTION": "mean",
                    "GROUPS": 8,
                    "POOL": 2,
                },
            },
        },
    },
)
train.init_checkpoint = ""  # the weights above
train.output_dir = "output/lazy/afdcd_panoptic_fpn_r18"
