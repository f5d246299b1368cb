"""What the documents show can be done: Python is run, YAML is read, commands are parsed.

A block that this file knows nothing of fails: say in one of the tables below what stands in for
what the text assumes, or why the block can't be run.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from afdcd.cli.entry import COMMANDS
from afdcd.data.description import read_description
from afdcd.embedded.runtime import EmbeddedRuntime, configure

from helpers import domains
from helpers.documents import ALL, DOCUMENTS, ROOT, Block
from helpers.tiny_runs import DISTILLED, STUDENT, TEACHER

# Words in a block -> why it isn't looked at.
SKIPPED = {
    "torchvision as t": "torchvision's own download",
    "convert-torchvision-to-d2.py": "a script of Detectron2's repository",
    "mask2former": "another package's; tests/d2/test_third_party.py has one of its kind",
    "git clone https://github.com/facebookresearch/detectron2": "Detectron2's own build",
}
# Documents whose blocks are files and commands of one long example -> the test that follows it.
FOLLOWED = {
    "docs/datasets.md": "tests/test_docs_datasets.py",
    "docs/extending.md": "tests/test_docs_extending.py",
    "docs/teachers.md": "tests/test_docs_teachers.py",
    "docs/unlabeled.md": "tests/test_docs_unlabeled.py",
}
# Names that Python blocks take for granted.
STAND_INS: dict[str, Callable[[], Any]] = {
    "student_map": lambda: torch.randn(1, 512, 16, 16, requires_grad=True),
    "teacher_map": lambda: torch.randn(1, 2048, 16, 16),
    "task_loss": lambda: torch.ones(()),
}


def write_imagenet_weights(path: Path) -> None:
    """A ResNet-18's, under torchvision's names."""
    names = yaml.safe_load((ROOT / "tests/data/state_dict_names.json").read_text())
    torch.save({name: torch.rand(shape) for name, shape in names["torchvision_resnet18"]}, path)


# Files that blocks take for granted -> what writes them.
FILES: dict[str, Callable[[Path], None]] = {
    "resnet18-imagenet.pth": write_imagenet_weights,
    "my_student.yaml": lambda path: _write(path, STUDENT),
    "my_distilled.yaml": lambda path: _write(path, DISTILLED | {"_BASE_": "my_student.yaml"}),
    "teacher.yaml": lambda path: _write(path, TEACHER | {"_BASE_": "my_student.yaml"}),
    "my_teacher.yaml": lambda path: _write(path, TEACHER | {"_BASE_": "my_student.yaml"}),
}
# Config files in commands that stand for one of the reader's.
PLACEHOLDERS = {"F", "CONFIG"}


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))


def _kind(block: Block) -> str:
    """python, yaml, shell, formula or skipped; fails for a block that is none of them."""
    if any(words in block.text for words in SKIPPED):
        return "skipped"
    if block.language in ("python", "yaml"):
        return block.language
    if block.language == "indented" and not re.search(r"^(python|make|pip) ", block.text, re.M):
        return "formula"
    if block.language in ("", "bash", "sh", "indented"):
        return "shell"
    return pytest.fail(f"{block}: blocks of {block.language} are not known here: see SKIPPED")


def of_kind(kind: str) -> list[Block]:
    return [block for block in ALL if _kind(block) == kind]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working directory as the reader's: the repository's folders, and the files of FILES."""
    for name in ("configs", "projects", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, write in FILES.items():
        write(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- Python -----------------------------------------------------------------------------------


def missing_names(tree: ast.Module) -> set[str]:
    """Names that code reads and doesn't define."""
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    defined |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
    return {node.id for node in names} - defined - set(dir(builtins))


@pytest.mark.parametrize("document", sorted({block.document for block in of_kind("python")}))
def test_python(document: str, place):
    """The blocks of a document one after the other, as if typed in."""
    torch.manual_seed(0)
    known: dict[str, Any] = {"__name__": "snippet"}
    for block in of_kind("python"):
        if block.document != document:
            continue
        tree = ast.parse("\n" * (block.line - 1) + block.text, str(ROOT / document))
        if block.file:
            assert document in FOLLOWED, f"{block} is a file: name the test that uses it"
            continue
        missing = missing_names(tree) - set(known)
        unknown = missing - set(STAND_INS)
        assert not unknown, f"{block} uses {', '.join(sorted(unknown))}: see STAND_INS"
        known |= {name: STAND_INS[name]() for name in missing}
        exec(compile(tree, str(ROOT / document), "exec"), known)


# --- YAML -------------------------------------------------------------------------------------


def is_description(content: dict) -> bool:
    """A data set's keys are in lower case, a config's in capitals."""
    return all(key == key.lower() for key in content if key != "_BASE_")


def write_imports(content: dict, folder: Path, monkeypatch) -> None:
    """Empty modules in the place of those that a config imports."""
    for name in content.get("IMPORTS", []):
        path = folder / (name if name.endswith(".py") else name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.syspath_prepend(str(folder))


def check_config(path: Path) -> None:
    cfg = configure(str(path), [])
    assert EmbeddedRuntime(cfg).problems() == []
    if cfg.MODEL.META_ARCHITECTURE == "Distiller":
        assert Path(cfg.MODEL.DISTILLER.TEACHER.CONFIG_FILE).is_file()
        assert (
            EmbeddedRuntime.configure(cfg.MODEL.DISTILLER.TEACHER.CONFIG_FILE, []).problems() == []
        )


LOOSE = [block for block in of_kind("yaml") if not block.file]


@pytest.mark.parametrize("block", LOOSE, ids=str)
def test_yaml(block: Block, place, monkeypatch):
    content = yaml.safe_load(block.text)
    if is_description(content):
        domains.write_aerial(place)
        files = {"images": "tiles", "labels": "masks", "label_suffix": "_mask.png"}
        base = {"classes": ["a", "b"], "files": files, "splits": {"all": {}}}
        if "depth" in content.get("labels", {}).get("encoding", ""):
            del base["classes"]
        _write(place / "snippet.yaml", base | content)
        read_description(place / "snippet.yaml")
        return
    write_imports(content, place, monkeypatch)
    text = block.text if "_BASE_" in content else f"_BASE_: my_student.yaml\n{block.text}"
    (place / "snippet.yaml").write_text(text)
    check_config(place / "snippet.yaml")


@pytest.mark.parametrize("document", sorted({b.document for b in of_kind("yaml") if b.file}))
def test_yaml_files(document: str, place):
    """The files that a document has its reader write, beside each other."""
    assert document in FOLLOWED, f"{document} has files: name the test that uses them"
    files = {block.file: block for block in ALL if block.document == document and block.file}
    for name, block in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(block.text)
    if any(name.endswith(".py") for name in files):
        return  # registering their parts twice in one process fails: FOLLOWED runs commands
    # Descriptions that a command of the document writes.
    domains.write_aerial(place / "aerial")
    for name, block in files.items():
        content = yaml.safe_load(block.text)
        if is_description(content):
            read_description(place / name)
        elif "OUTPUT_DIR" in content:
            check_config(place / name)
        else:  # a part that others are based on
            configure(str(place / name), [])


@pytest.mark.parametrize("document", FOLLOWED)
def test_long_examples_are_followed(document: str):
    if document in DOCUMENTS:
        text = (ROOT / FOLLOWED[document]).read_text()
        assert Path(document).name in text


# --- commands ---------------------------------------------------------------------------------


# Programs only print what they are called with, a word a line; there are no others to be found.
SHELL = r"""
set -eu
python() { printf '%s\n' "@$here" python "$@"; }
make() { printf '%s\n' "@$here" make "$@"; }
afdcd() { printf '%s\n' "@$here" afdcd "$@"; }
pip() { printf '%s\n' "@$here" pip "$@"; }
seq() { local n; for ((n = 1; n <= $1; n++)); do echo $n; done; }
command_not_found_handle() { echo "$1: no command that is known here: see SKIPPED" >&2; exit 127; }
"""


def commands(blocks: list[Block], folder: Path) -> list[tuple[Block, list[str]]]:
    """The words of all commands, as bash understands loops and variables of a document's blocks."""
    script = SHELL + "".join(f"here={n}\n{block.text}" for n, block in enumerate(blocks))
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    done = subprocess.run(
        [bash, "--noprofile", "--norc", "-c", script],
        cwd=folder,
        env={"PATH": "/nowhere", "DETECTRON2_DATASETS": "data"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{blocks[0].document}: {done.stderr}"
    found: list[tuple[Block, list[str]]] = []
    for line in done.stdout.splitlines():
        if re.fullmatch(r"@\d+", line):
            found.append((blocks[int(line[1:])], []))
        else:
            found[-1][1].append(line)
    return found


def check_command(words: list[str], block: Block) -> None:
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets)
    elif program == "pip":
        assert rest[0] == "install"
        if "-c" in rest:
            assert (ROOT / rest[rest.index("-c") + 1]).is_file()
    elif program == "afdcd":
        command = COMMANDS[rest[0]]
        check_tool(f"tools/{command.module}.py", [*command.flags, *rest[1:]], block)
    elif program == "python" and rest[0].startswith("tools/"):
        check_tool(rest[0], rest[1:], block)
    elif program == "python" and rest[0] in {b.file for b in ALL if b.document == block.document}:
        assert block.document in FOLLOWED
    else:
        pytest.fail(f"{block}: {shlex.join(words)}: no command that is known here: see SKIPPED")


def check_tool(tool: str, words: list[str], block: Block) -> None:
    assert (ROOT / tool).is_file(), tool
    module = importlib.import_module(f"afdcd.cli.{Path(tool).stem}")
    parser = module.parser()
    # benchmark.py takes words before and behind flags.
    parse = parser.parse_intermixed_args if tool.endswith("benchmark.py") else parser.parse_args
    try:
        args = parse(words)
    except SystemExit:
        pytest.fail(f"{block}: {tool} doesn't take {shlex.join(words)}")
    file = getattr(args, "config_file", None)
    if file is None or file in PLACEHOLDERS:
        return
    if file in {b.file for b in ALL if b.document == block.document}:
        return
    assert (ROOT / file).is_file(), f"{block}: no {file}"
    if not file.startswith("projects/"):  # those are Detectron2's to read
        configure(str(ROOT / file), [word for word in args.opts if word != "--"])


@pytest.mark.parametrize("document", sorted({block.document for block in of_kind("shell")}))
def test_commands(document: str, tmp_path):
    shell = [block for block in of_kind("shell") if block.document == document]
    for block, words in commands(shell, tmp_path):
        check_command(words, block)


# --- this file's own eyes ---------------------------------------------------------------------


def test_nothing_that_is_skipped_is_gone():
    for words in SKIPPED:
        assert any(words in block.text for block in ALL), f"no block has {words!r}: drop it"


def test_map():
    """The map of folders in docs/use.md names what is there, and every room."""
    text = (ROOT / "docs/use.md").read_text()
    named = [path.rstrip("/") for path in re.findall(r"^\| `([\w/]+)` \|", text, re.M)]
    assert [path for path in named if not (ROOT / path).is_dir()] == []
    rooms = {f"afdcd/{path.parent.name}" for path in (ROOT / "afdcd").glob("*/__init__.py")}
    assert rooms <= set(named)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_the_text(document: str):
    """Files of the repository that a document names in code font or links to."""
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:afdcd|tests|tools|configs|docs|projects)/[\w./-]+)`", text)
    links = re.findall(r"\]\(((?!https?:)[^)#\s]+)", text)
    folder = (ROOT / document).parent
    absent = [path for path in named if not any((x / path).exists() for x in (ROOT, folder))]
    absent += [path for path in links if not (folder / path).exists()]
    assert absent == []


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("python", "print(nowhere)", "uses nowhere: see STAND_INS"),
        ("bash", "python tools/train_net.py --config-file none.yaml", "no none.yaml"),
        ("bash", "python tools/doctor.py --config-file F --fast", "doesn't take"),
        ("bash", "rm -rf x", "no command that is known here"),
        ("bash", "make testt", "testt"),
        ("toml", "a = 1", "blocks of toml are not known"),
        ("yaml", "MODEL: {DISTILER: {}}", "did you mean"),
    ],
)
def test_unknown_blocks_fail(language: str, text: str, message: str, place, monkeypatch):
    block = Block("README.md", 1, language, text)
    monkeypatch.setattr(f"{__name__}.ALL", [block])
    checks = {"python": test_python, "yaml": test_yaml, "bash": test_commands}
    with pytest.raises((Exception, pytest.fail.Exception)) as error:
        kind = _kind(block)
        if kind == "python":
            checks["python"]("README.md", place)
        elif kind == "yaml":
            checks["yaml"](block, place, monkeypatch)
        else:
            checks["bash"]("README.md", place)
    assert message in str(error.value)
