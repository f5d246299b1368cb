"""The registry that data sets choose their task from."""

from afdcd.utils.registry import Registry

TASKS = Registry("TASKS")
