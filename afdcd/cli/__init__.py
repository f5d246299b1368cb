"""The command-line tools: they parse arguments and call a runtime.

Importing this, before PyTorch, shortens the time for which OpenMP's threads spin while they wait for
each other. Where other processes want the cores, spinning threads keep those from working that are
waited for: on a crowded machine a step takes a third of the time so, on a quiet one as long
(docs/performance.md). Whoever sets ``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY`` is left alone.
"""

import os

SPIN_COUNT = "10000"

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
