"""How many images a second a run trains on, and how long it waits for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Throughput:
    """Sums over some steps.

    Attributes:
        steps: done.
        waited: seconds spent on waiting for the loader.
        seconds: in all.
    """

    steps: int = 0
    waited: float = 0.0
    seconds: float = 0.0

    def add(self, *, steps: int = 0, waited: float = 0.0, seconds: float = 0.0) -> None:
        """Count some more."""
        self.steps += steps
        self.waited += waited
        self.seconds += seconds

    def figures(self, images: int) -> dict[str, float]:
        """For the metrics: ``data_time`` (seconds a step), its share, and the rate.

        Args:
            images: in a step.
        """
        seconds = max(self.seconds, 1e-9)
        return {
            "data_time": self.waited / max(self.steps, 1),
            "data_share": self.waited / seconds,
            "images_per_second": self.steps * images / seconds,
        }
