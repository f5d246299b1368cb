"""`afdcd COMMAND`: names, help without PyTorch, and a wheel outside of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from afdcd import __version__
from afdcd.cli import benchmark_timed
from afdcd.cli.arguments import benchmark as benchmark_arguments
from afdcd.cli.arguments import register_dataset as register_arguments
from afdcd.cli.entry import COMMANDS, main, run_command
from afdcd.data.description import ENCODINGS

ROOT = Path(__file__).parents[2]


def choices(parser, flag: str) -> set[str]:
    return set(next(a for a in parser._actions if flag in a.option_strings).choices)


def test_the_overview_names_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"afdcd {__version__}\n")


def test_a_misspelt_command(capsys):
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_comes_without_pytorch(name: str):
    code = (
        "import sys; from afdcd.cli.entry import main\n"
        f"try: main([{name!r}, '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules), 'slow'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: afdcd {name} ")


@pytest.mark.parametrize("words", ["--help", "train --help"])
def test_a_reader_that_has_seen_enough(words: str):
    command = f"{sys.executable} -m afdcd.cli.entry {words} | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_every_script_is_a_command():
    scripts = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert scripts == {command.module for command in COMMANDS.values()}


@pytest.mark.parametrize("script", sorted({command.module for command in COMMANDS.values()}))
def test_a_python_without_the_packages(script: str):
    """It says which Python lacks what, and where there may be one that has it."""
    done = subprocess.run(
        [sys.executable, "-S", f"tools/{script}.py", "--config-file", "x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"error: {sys.executable} has no ")
    assert ".venv/bin/python" in done.stderr


def test_choices_are_those_of_what_they_choose():
    parser = benchmark_arguments.parser()
    assert choices(parser, "--over") == set(benchmark_timed.SCALES)
    assert choices(register_arguments.parser(), "--encoding") == set(ENCODINGS)


def test_stopped_while_loading(monkeypatch, capsys):
    def stop(name: str):
        raise KeyboardInterrupt

    monkeypatch.setattr("afdcd.cli.entry.importlib.import_module", stop)
    assert run_command("doctor", ["--config-file", "x"]) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.slow
def test_a_wheel_outside_of_the_checkout(tmp_path):
    """Its own configs are found, and a model trained by them is doctored and evaluated."""
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    source = tmp_path / "source"
    ignored = {".git", ".venv", "output", "datasets", "build", "tests"}
    source.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ignored and not path.name.endswith("-info"):
            (source / path.name).symlink_to(path)
    pytest.importorskip("setuptools", minversion="77")
    subprocess.run([*wheel, "-w", str(tmp_path / "dist"), str(source)], check=True)
    (file,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "installed")
    place = tmp_path / "elsewhere"
    place.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "installed"),
        "OMP_NUM_THREADS": "1",
        "DETECTRON2_DATASETS": str(tmp_path / "data"),
    }

    def afdcd(*words: str) -> str:
        command = [sys.executable, "-P", "-m", "afdcd.cli.entry", *words]
        if sys.version_info < (3, 11):
            command.remove("-P")
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    config = ["--runtime", "embedded", "--config-file", "configs/quickstart/student.yaml"]
    tiny = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"]
    afdcd("train", *config, *tiny)
    assert "OK" in afdcd("doctor", *config, "OUTPUT_DIR", "other")
    assert "mIoU" in afdcd("eval", *config)


def test_a_reader_that_leaves_while_a_command_runs(monkeypatch, tmp_path):
    """What it hasn't read is no error, as where nothing has been said yet."""

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("afdcd.cli.common.logging_redirect_tqdm", closed)
    monkeypatch.setattr("afdcd.cli.entry.os.dup2", lambda *_: None)
    assert run_command("compare", [f"a={tmp_path}"]) == 141
