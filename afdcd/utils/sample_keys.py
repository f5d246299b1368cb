"""Names of sample entries beside Detectron2's: the data's rooms fill them, the distiller reads."""

from __future__ import annotations

# (image, view): which view of which training image it is.
VIEW = "view"
# True of an image whose label map is never opened; also an entry of its record.
UNLABELED = "unlabeled"
# Tensors of the recorded teacher, by name.
RECORDED = "recorded"
# What a teacher at a resolution of its own sees.
TEACHER_IMAGE = "teacher_image"
# (batch, times): the number of a batch that comes several times, and how often it will come again.
ECHO = "echo"
