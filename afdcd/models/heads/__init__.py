"""Segmentation heads: feature maps by stage in, logits out."""
