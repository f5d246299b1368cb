"""Several processes whose errors end up as one in the process that started them."""

from __future__ import annotations

import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from afdcd.config import ConfigError
from afdcd.data import DataError
from afdcd.engine.failures import NonFiniteLoss
from afdcd.engine.interrupt import Interrupted
from afdcd.utils.problems import SetupError

# What the command reports in a line, without a traceback. (OSError: a full disk, say.)
REPORTED = (ConfigError, SetupError, DataError, NonFiniteLoss, Interrupted, OSError)


def launch_reporting(
    function: Callable[..., Any], processes: int, *args: Any, **place: Any
) -> None:
    """Detectron2's ``launch``; an error of `REPORTED` in a process is raised here, as itself.

    Args:
        function: of the module level, called with ``args`` in each process.
        processes: on this machine.
        args: picklable.
        place: ``num_machines``, ``machine_rank`` and ``dist_url`` of ``launch``.
    """
    with tempfile.TemporaryDirectory(prefix="afdcd_") as folder:
        try:
            with _children_handle_interrupts():
                launch(_reporting, processes, args=(folder, function, *args), **place)
        except (ProcessRaisedException, ProcessExitedException):
            # A process that fails takes the others with it: what is known goes first.
            for path in sorted(Path(folder).iterdir()):
                raise _read(path) from None
            raise


def _reporting(folder: str, function: Callable[..., Any], *args: Any) -> None:
    """What each process runs."""
    try:
        function(*args)
        _leave_group()
    except REPORTED as error:
        content = error.problems if isinstance(error, SetupError) else str(error)
        path = Path(folder) / f"{comm.get_local_rank():05d}"
        path.write_bytes(pickle.dumps((type(error), content)))
        sys.exit(1)


def _leave_group() -> None:
    """End the communication before the interpreter does, whose exit may find its threads at work.

    That would end a process that has done all its work with an abort.
    """
    if dist.is_available() and dist.is_initialized():
        comm.synchronize()  # nobody leaves while others still wait for an answer
        dist.destroy_process_group()


def _read(path: Path) -> BaseException:
    kind, content = pickle.loads(path.read_bytes())
    if issubclass(kind, ConfigError):  # its kinds have constructors of their own
        return ConfigError(content)
    return kind(content)


@contextmanager
def _children_handle_interrupts() -> Iterator[None]:
    """Ctrl-C reaches all processes; the children save and stop, and this one waits for them.

    Raises:
        KeyboardInterrupt: there was one, and the children stopped without a word.
    """
    interrupts: list[int] = []
    try:
        # A function, since children would inherit that a signal is ignored.
        before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        raise KeyboardInterrupt
