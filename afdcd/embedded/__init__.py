"""The embedded runtime: train, evaluate, resume and export on one device, without Detectron2."""

from afdcd.embedded.run import run

__all__ = ["run"]
