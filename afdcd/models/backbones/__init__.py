"""Backbones: images in, feature maps by stage out."""
