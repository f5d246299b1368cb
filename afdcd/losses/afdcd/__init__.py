"""Augmentation-free dense contrastive distillation: the loss and its parts."""
