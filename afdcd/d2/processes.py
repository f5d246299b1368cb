"""Several processes whose errors end up as one in the process that started them."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from afdcd.config import ConfigError
from afdcd.data import DataError
from afdcd.engine.failures import NonFiniteLoss, ProcessLost
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
        except (ProcessRaisedException, ProcessExitedException) as error:
            # A process that fails takes the others with it: what is known goes first.
            for path in sorted(Path(folder).iterdir()):
                raise _read(path) from None
            if isinstance(error, ProcessExitedException):
                raise ProcessLost(_obituary(error)) from error
            raise


def _obituary(error: ProcessExitedException) -> str:
    how = f"ended with exit code {error.exit_code}"
    if error.exit_code < 0:
        name = error.signal_name or f"signal {-error.exit_code}"
        reason = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        how = f"was ended by {name}{reason}"
    return (
        f"process {error.error_index} {how}; the others were stopped. Its messages, if any, stand "
        "above. Go on from the last checkpoint with --resume"
    )


def _reporting(folder: str, function: Callable[..., Any], *args: Any) -> None:
    """What each process runs."""
    try:
        function(*args)
        if dist.is_available() and dist.is_initialized():
            comm.synchronize()  # nobody leaves while others still wait for an answer
            dist.destroy_process_group()
    except REPORTED as error:
        content = error.problems if isinstance(error, SetupError) else str(error)
        path = Path(folder) / f"{comm.get_local_rank():05d}"
        path.write_bytes(pickle.dumps((type(error), content)))
        _end(1)
    _end(0)


def _end(code: int) -> NoReturn:
    """End this process without taking the interpreter apart.

    That may find threads of the communication or of autograd at work, and would then end a process
    that has done all its work with an abort.
    """
    atexit._run_exitfuncs()  # loader processes, log files
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _read(path: Path) -> BaseException:
    kind, content = pickle.loads(path.read_bytes())
    if issubclass(kind, ConfigError):  # its kinds have constructors of their own
        return ConfigError(content)
    return kind(content)


@contextmanager
def _children_handle_interrupts() -> Iterator[None]:
    """The children save and stop on Ctrl-C and SIGTERM, and this process waits for them.

    Ctrl-C reaches all processes of a terminal; SIGTERM is passed on.

    Raises:
        KeyboardInterrupt: there was one, and the children stopped without a word.
    """
    interrupts: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        interrupts.append(number)
        if number == signal.SIGTERM:
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):
                    child.terminate()

    try:
        # A function, since children would inherit that a signal is ignored.
        before = {
            number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupts:
        raise KeyboardInterrupt
