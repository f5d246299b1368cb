"""The key IMPORTS: what is imported when, and what is said where that can't be."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from afdcd.cli.train_net import main
from afdcd.config import ConfigError, embedded_config, merge_file, merge_overrides
from afdcd.embedded.runtime import EmbeddedRuntime

# Counts its runs, and has a key of its own.
PART = """
import sys
sys.modules.setdefault("count_{name}", []).append(__name__)

def add_config(cfg):
    cfg.MODEL.{name} = type(cfg)({{"SIZE": 3}})
"""


@pytest.fixture
def write(tmp_path):
    """Write files into the test's folder; a part's name stands for the code above."""

    def call(**files: str | None) -> Path:
        for name, text in files.items():
            path = tmp_path / (f"{name}.py" if text is None else name.replace("__", "."))
            path.write_text(PART.format(name=name) if text is None else text)
        return tmp_path

    yield call
    for name in [name for name in sys.modules if name.startswith("count_")]:
        del sys.modules[name]


def runs(name: str) -> int:
    return len(sys.modules.get(f"count_{name}", ()))


def read(path: Path, *overrides: str):
    cfg = embedded_config()
    merge_file(cfg, path)
    merge_overrides(cfg, list(overrides))
    return cfg


def test_a_file_beside_the_config_is_run_once_and_adds_keys(write):
    folder = write(ONE=None, a__yaml="IMPORTS: [ONE.py]\nMODEL: {ONE: {SIZE: 5}}")
    for _ in range(2):
        cfg = read(folder / "a.yaml", "MODEL.ONE.SIZE", "7")
        assert cfg.MODEL.ONE.SIZE == 7 and [str(folder / "ONE.py")] == cfg.IMPORTS
    assert read(folder / "a.yaml").MODEL.ONE.SIZE == 5
    assert runs("ONE") == 1


def test_bases_and_command_line_add(write, tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    write(
        ONE=None,
        TWO=None,
        THREE=None,
        a__yaml="IMPORTS: [ONE.py]",
        b__yaml="IMPORTS: [TWO.py, ONE.py]",
        c__yaml="_BASE_: [a.yaml, b.yaml]\nIMPORTS: TWO.py",
    )
    monkeypatch.chdir(tmp_path / "below")
    # The key is there although its module is named behind it.
    words = ["MODEL.THREE.SIZE", "9", "IMPORTS", "../THREE.py"]
    cfg = read(tmp_path / "c.yaml", *words)
    assert [str(tmp_path / f"{name}.py") for name in ("ONE", "TWO", "THREE")] == cfg.IMPORTS
    assert cfg.MODEL.THREE.SIZE == 9
    words[-1] = "['../THREE.py', 'json']"
    assert read(tmp_path / "a.yaml", *words).IMPORTS[1:] == [str(tmp_path / "THREE.py"), "json"]


def test_a_copy_of_the_config_reads_from_anywhere(write, tmp_path):
    folder = write(ONE=None, a__yaml="IMPORTS: [ONE.py]\nMODEL: {ONE: {SIZE: 5}}")
    cfg = read(folder / "a.yaml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(cfg.dump())
    assert read(tmp_path / "run/config.yaml") == cfg


def test_modules_are_imported_by_name(write, tmp_path, monkeypatch):
    package = tmp_path / "own_package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(PART.format(name="FOUR"))
    monkeypatch.syspath_prepend(tmp_path)
    folder = write(a__yaml="IMPORTS: [own_package_of_a_test.parts]")
    assert read(folder / "a.yaml").MODEL.FOUR.SIZE == 3


def test_a_teachers_config_has_its_own(write, tmp_path):
    folder = write(
        FIVE=None,
        t__yaml="IMPORTS: [FIVE.py]\nMODEL: {FIVE: {SIZE: 1}}",
        s__yaml="MODEL: {DISTILLER: {TEACHER: {CONFIG_FILE: t.yaml, OPTS: [MODEL.FIVE.SIZE, 2]}}}",
    )
    cfg = read(folder / "s.yaml")
    assert cfg.IMPORTS == [] and "FIVE" not in cfg.MODEL
    assert EmbeddedRuntime(cfg).teacher().cfg.MODEL.FIVE.SIZE == 2
    cfg.MODEL.DISTILLER.TEACHER.OPTS = ["MODEL.FIVE.SIZES", 2]
    with pytest.raises(ConfigError, match=r"OPTS: there is no key MODEL\.FIVE\.SIZES"):
        EmbeddedRuntime(cfg).teacher()


LINES = "import os\n\n"  # what fails stands in line 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", r"part\.py, line 3: ZeroDivisionError: division by zero$"),
        ("raise KeyError", r"part\.py, line 3: KeyError$"),
        ("def f(:\n    pass", r"part\.py, line 3: SyntaxError: invalid syntax$"),
        ("raise SystemExit('done')", r"part\.py, line 3: SystemExit: done$"),
        ("import no_such_module_at_all", "line 3: ModuleNotFoundError: No module named 'no_such"),
        ("import beside", r"named 'beside'. beside lies beside it, .* add \S+ to PYTHONPATH$"),
        (
            "from afdcd.models import BACKBONES\nBACKBONES.register('mine')(int)",
            r"part\.py, line 4: TypeError: BACKBONES takes subclasses of .*Backbone; got .*int",
        ),
        (
            "from afdcd.models import HEADS, PSPHead\n@HEADS.register('ASPPHead')\n"
            "class Mine(PSPHead): ...",
            r"part\.py, line [45]: ValueError: HEADS already has 'ASPPHead', of \S+aspp_head\.py",
        ),
        (
            "import json\njson.loads('{')",
            r"part\.py, line 4: JSONDecodeError: Expecting",
        ),
        ("def add_config(cfg):\n    cfg.MODEL.X.Y = 1", r"add_config of .*line 4: AttributeError"),
    ],
)
def test_a_file_that_fails(write, code: str, message: str):
    folder = write(part__py=LINES + code, beside__py="", a__yaml="IMPORTS: [part.py]")
    for _ in range(2):  # as wrong the second time
        with pytest.raises(ConfigError, match=message) as error:
            read(folder / "a.yaml")
        assert str(error.value).startswith(f"{folder}/a.yaml: IMPORTS: ")


def test_a_module_whose_helper_fails(write, tmp_path, monkeypatch):
    package = tmp_path / "failing_package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("from failing_package_of_a_test import helper")
    (package / "helper.py").write_text("\nopen('/no/such/file')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = write(a__yaml="IMPORTS: [failing_package_of_a_test.parts]")
    with pytest.raises(ConfigError, match=r"test\.parts, /\S+/helper\.py, line 2: FileNotFoundErr"):
        read(folder / "a.yaml")


@pytest.mark.parametrize(
    ("imports", "message"),
    [
        ("[my_lose.py]", r"no file \S+/my_lose\.py; did you mean my_loss\.py\?"),
        ("[nowhere/my_loss.py]", r"no file \S+: there is no folder \S+/nowhere$"),
        ("[jsn]", r"no module jsn in /\S+, .*did you mean .*json.* Add its folder to PYTHONPATH"),
        ("[json.decode]", r"no module json\.decode in \S+json; did you mean decoder"),
        ("[jsn.decoder]", "no module jsn in"),
        ("[string.more]", r"no module string\.more: string is no package"),
        ("[folder/my_loss]", r"'folder/my_loss' is no module's name, and a file's ends in \.py"),
        ("[3]", r"takes a list of modules .* and files .*; got \[3\]"),
        ("{a: b}", "takes a list of modules"),
        ("true", "takes a list of modules"),
    ],
)
def test_what_isnt_there(write, imports: str, message: str):
    folder = write(my_loss__py="", a__yaml=f"IMPORTS: {imports}")
    with pytest.raises(ConfigError, match=message):
        read(folder / "a.yaml")


def test_nothing_to_import(write):
    assert read(write(a__yaml="IMPORTS:\nSEED: 1") / "a.yaml").IMPORTS == []


def test_the_command_says_it_in_a_line(write, configs, capsys):
    (configs / "part.py").write_text("\nraise ValueError('a bad part')")
    content = yaml.safe_load((configs / "student.yaml").read_text())
    (configs / "student.yaml").write_text(yaml.safe_dump(content | {"IMPORTS": ["part.py"]}))
    assert main(["--config-file", str(configs / "student.yaml")]) == 2
    said = capsys.readouterr().err
    assert re.search(r"^error: .*part\.py, line 2: ValueError: a bad part$", said, re.MULTILINE)
    assert "Traceback" not in said
