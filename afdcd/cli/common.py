"""What the commands share: flags, the choice of a runtime, error reports and exit codes."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Callable

from tqdm.contrib.logging import logging_redirect_tqdm

from afdcd.config import ConfigError
from afdcd.data import DataError
from afdcd.embedded.runtime import EmbeddedRuntime
from afdcd.engine.failures import NonFiniteLoss, ProcessLost
from afdcd.engine.interrupt import Interrupted
from afdcd.engine.runtime import Runtime
from afdcd.utils.problems import INSTALL_DETECTRON2, SetupError
from afdcd.utils.progress import silence


def overrides_of(args: argparse.Namespace) -> list[str]:
    """The words of `add_overrides`."""
    return [word for word in args.opts if word != "--"]


def uses_detectron2(runtime: str) -> bool:
    """Whether ``--runtime`` means Detectron2: named, or ``auto`` where it is installed.

    Raises:
        SetupError: it is asked for and not installed.
    """
    installed = importlib.util.find_spec("detectron2") is not None
    if runtime == "detectron2" and not installed:
        raise SetupError([f"--runtime detectron2: it is not installed. {INSTALL_DETECTRON2}"])
    return runtime == "detectron2" or (runtime == "auto" and installed)


def choose_runtime(name: str) -> type[Runtime]:
    """The runtime that ``--runtime`` names.

    Raises:
        SetupError: Detectron2 is asked for and not installed.
    """
    if not uses_detectron2(name):
        return EmbeddedRuntime
    # Imported at use: without Detectron2 everything else here works.
    from afdcd.d2.runtime import Detectron2Runtime

    return Detectron2Runtime


def set_up_logging() -> None:
    """What the library says goes to standard error, with the time."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")


def report_errors(command: Callable[[], None], *, quiet: bool = False) -> int:
    """Run a command with logging set up; turn what users can mend into a line and an exit code.

    Args:
        command: to run.
        quiet: whether warnings and errors alone are printed, and no bars shown.

    Returns:
        0; 1 (the command failed on its way), 2 (it can't start), 130 (stopped by a person).
    """
    set_up_logging()
    root = logging.getLogger()
    level = root.level
    silence(quiet)
    if quiet:
        root.setLevel(logging.WARNING)
    try:
        with logging_redirect_tqdm():
            command()
    except (ConfigError, SetupError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # a reader that has seen enough: afdcd.cli.entry
        raise
    except (NonFiniteLoss, ProcessLost, OSError) as error:  # OSError: a full disk, say
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        root.setLevel(level)
    return 0
