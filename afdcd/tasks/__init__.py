"""What a dense task is: its targets, loss, scores and pictures, for trainers and checks."""

from afdcd.tasks import depth as _depth  # noqa: F401  (it registers its tasks)
from afdcd.tasks.registry import TASKS
from afdcd.tasks.semantic_segmentation import SemanticSegmentation
from afdcd.tasks.task import Evaluator, PredictionStyle, Task, task_of

__all__ = ["TASKS", "Evaluator", "PredictionStyle", "SemanticSegmentation", "Task", "task_of"]
