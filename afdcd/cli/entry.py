"""``afdcd COMMAND``, and the scripts in ``tools/``: which command it is, before anything is loaded.

PyTorch takes seconds to import. So ``--help``, a misspelt command, a missing flag and Ctrl-C are
answered without it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from afdcd import __version__


class Command(NamedTuple):
    """A command.

    Attributes:
        module: its name in `afdcd.cli` and in `afdcd.cli.arguments`.
        summary: what it does, in a few words.
        flags: that stand before the user's.
    """

    module: str
    summary: str
    flags: tuple[str, ...] = ()


COMMANDS = {
    "quickstart": Command("quickstart", "train and compare three small models on a CPU"),
    "train": Command("train_net", "train a config, or go on with --resume"),
    "eval": Command("train_net", "score a trained model", ("--eval-only",)),
    "doctor": Command("doctor", "check a config: data, weights, losses, memory"),
    "predict": Command("predict", "overlays and label maps of images and videos"),
    "record": Command("record_teacher", "record a teacher's targets ahead of training"),
    "compare": Command("compare", "compare ways of training over several seeds"),
    "report": Command("report", "one HTML file of a run, several, or a comparison"),
    "analyze": Command("analyze", "features, classes and hard cases of a distilled student"),
    "register": Command("register_dataset", "describe a data set of your own, and check it"),
    "benchmark": Command("benchmark", "what a step costs, in times the student's own"),
    "benchmark-loading": Command("benchmark_loading", "how fast samples are loaded"),
    "gpu-check": Command("gpu_check", "check values and cost on a GPU"),
}
USAGE, STOPPED, UNREAD = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """``afdcd COMMAND ...``. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return _to_a_reader(lambda: _main(words))


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else USAGE
    if words[0] == "--version":
        print(f"afdcd {__version__}")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f": one of {', '.join(COMMANDS)}"
        print(f"afdcd: no command {words[0]!r}{hint}", file=sys.stderr)
        return USAGE
    command = COMMANDS[words[0]]
    # What argparse calls the program in its messages.
    sys.argv[0] = f"afdcd {words[0]}"
    return _run(command.module, [*command.flags, *words[1:]])


def run_command(module: str, argv: Sequence[str] | None = None) -> int:
    """Run a command's module with these words, the process's own by default.

    Returns:
        the exit code: 130 where it was stopped while it was loading, 2 where this Python lacks a
        package that it needs.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return _to_a_reader(lambda: _run(module, words))


def _run(module: str, words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        importlib.import_module(f"afdcd.cli.arguments.{module}").parser().parse_args(words)
    try:
        try:
            command = importlib.import_module(f"afdcd.cli.{module}")
        except ModuleNotFoundError as error:
            print(_missing(error.name), file=sys.stderr)
            return USAGE
        code: int = command.main(words)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    return code


def _missing(package: str | None) -> str:
    return (
        f"error: {sys.executable} has no {package}, which AfDCD needs: run it with a Python that "
        "AfDCD is installed in (after `make setup`: .venv/bin/python), or install it into this one "
        "(docs/install.md)"
    )


def _to_a_reader(command: Callable[[], int]) -> int:
    """Run a command; a reader that has seen enough (``| head``) ends it without a traceback."""
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still unwritten goes nowhere, or the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return code


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items()]
    text = [
        "usage: afdcd COMMAND ...",
        "",
        "Augmentation-free dense contrastive distillation.",
        "",
        *lines,
        "",
        "afdcd COMMAND --help describes a command; afdcd --version says which version this is.",
    ]
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
