"""AfDCD in Detectron2, which it needs. Importing this registers its models and data sets.

After it, Detectron2's own scripts can build the paper's networks (``SemanticSegmentor`` with
``build_dilated_resnet_backbone`` and ``ASPPHead``, for example) and the ``Distiller``, from a
config made by `get_cfg`.
"""

from afdcd.d2 import datasets, distiller, modeling, shapes  # noqa: F401  (they register what they define)
from afdcd.d2.config import get_cfg
from afdcd.d2.mappers import MAPPERS
from afdcd.d2.trainer import DistillTrainer

__all__ = ["MAPPERS", "DistillTrainer", "get_cfg"]
