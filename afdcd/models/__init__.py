"""The paper's networks and others, with Detectron2's attribute names and protocol."""

from afdcd.models.adapters.timm_backbone import TimmBackbone
from afdcd.models.backbones.efficientnet_lite import EfficientNetLite
from afdcd.models.backbones.mit import MiT
from afdcd.models.backbones.mobilenetv2 import MobileNetV2
from afdcd.models.backbones.mobilenetv3 import MobileNetV3
from afdcd.models.backbones.registry import BACKBONES, Backbone
from afdcd.models.backbones.resnet import ResNet
from afdcd.models.build import build_segmentor, build_segmentor_from_config
from afdcd.models.complexity import count_multiply_adds, count_parameters
from afdcd.models.heads.aspp_head import ASPPHead
from afdcd.models.heads.lraspp_head import LRASPPHead
from afdcd.models.heads.mlp_head import MLPHead
from afdcd.models.heads.psp_head import PSPHead
from afdcd.models.heads.registry import HEADS, Head
from afdcd.models.heads.segmentation_head import SegmentationHead
from afdcd.models.layers import ConvNorm, ShapeSpec
from afdcd.models.segmentor import SemanticSegmentor
from afdcd.models.weights import load_weights

__all__ = [
    "BACKBONES",
    "HEADS",
    "ASPPHead",
    "Backbone",
    "ConvNorm",
    "EfficientNetLite",
    "Head",
    "LRASPPHead",
    "MLPHead",
    "MiT",
    "MobileNetV2",
    "MobileNetV3",
    "PSPHead",
    "ResNet",
    "SegmentationHead",
    "SemanticSegmentor",
    "ShapeSpec",
    "TimmBackbone",
    "build_segmentor",
    "build_segmentor_from_config",
    "count_multiply_adds",
    "count_parameters",
    "load_weights",
]
