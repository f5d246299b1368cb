"""AfDCD: augmentation-free dense contrastive distillation for Detectron2 (NeurIPS 2023)."""

__version__ = "0.1.0"
