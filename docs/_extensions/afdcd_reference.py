"""Directives that write the references of keys and commands from the code itself."""

from __future__ import annotations

import ast
import importlib
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from afdcd.cli.entry import COMMANDS
from afdcd.config import keys


class Key(NamedTuple):
    """A configuration key, with its section, and the lines of its comment."""

    section: str
    name: str
    default: str
    comment: tuple[str, ...]


def read_keys(source: str) -> Iterator[Key]:
    """The keys that `add_afdcd_config` adds, in its order, and the nodes that have a comment."""
    above, beside, sections = _comments(source)
    function = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
    known = {"cfg": ""}
    for statement in function.body:
        first = last = statement.lineno - 1
        while first - 1 in above:
            first -= 1
        comment = [above[n] for n in range(first, last)]
        comment += [beside[last]] if last in beside else []
        section = max((n for n in sections if n < last), default=-1)
        for path, value in _assigned(statement, known):
            node = isinstance(value, ast.Call) and ast.unparse(value.func) == "node"
            if comment or not node:
                default = "" if node else ast.unparse(value)
                yield Key(sections.get(section, ""), path, default, tuple(comment))


def _comments(source: str) -> tuple[dict[int, str], dict[int, str], dict[int, str]]:
    """Comments by line, from 0: those with a line of their own, those beside code, titles."""
    above: dict[int, str] = {}
    beside: dict[int, str] = {}
    sections: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0] - 1, token.string.removeprefix("#").removeprefix(" ").rstrip()
        if text.startswith("---"):
            sections[line] = text.strip("- ")
        elif token.line.strip().startswith("#"):
            above[line] = text
        else:
            beside[line] = text
    return above, beside, sections


def _assigned(statement: ast.stmt, known: dict[str, str]) -> Iterator[tuple[str, ast.expr]]:
    """(dotted key, default) of a statement; names that stand for nodes join ``known``."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        if isinstance(call.func, ast.Attribute) and call.func.attr == "setdefault":
            where = _path(call.func.value, known)
            name = call.args[0]
            if where is not None and isinstance(name, ast.Constant):
                yield f"{where}.{name.value}".lstrip("."), call.args[1]
        return
    if not isinstance(statement, ast.Assign):
        return
    pairs: list[tuple[ast.expr, ast.expr]] = []
    for target in statement.targets:
        if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
            pairs += zip(target.elts, statement.value.elts, strict=True)
        else:
            pairs.append((target, statement.value))
    dotted = [path for t, _ in pairs if isinstance(t, ast.Attribute) and (path := _path(t, known))]
    for target, value in pairs:
        if isinstance(target, ast.Name):
            path = dotted[0] if dotted else _path(value, known)
            if path is not None:
                known[target.id] = path
        elif path := _path(target, known):
            yield path, value


def _path(expression: ast.expr, known: dict[str, str]) -> str | None:
    if isinstance(expression, ast.Name):
        return known.get(expression.id)
    if isinstance(expression, ast.Attribute):
        above = _path(expression.value, known)
        return None if above is None else f"{above}.{expression.attr}".lstrip(".")
    return None


class ConfigReference(Directive):
    """Every key of this package, with its default and meaning."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        section, item = None, nodes.definition_list_item()
        items = nodes.definition_list()
        for key in read_keys(Path(keys.__file__).read_text(encoding="utf-8")):
            if key.section != section:
                section, items = key.section, nodes.definition_list()
                found += [nodes.rubric(text=section), items]
            term = nodes.term("", "", nodes.literal(text=key.name))
            if key.default:
                term += [nodes.Text(" = "), nodes.literal(text=key.default)]
            if not key.comment and len(item):  # of the same comment as the key before it
                item.insert(len(item) - 1, term)
                continue
            item = nodes.definition_list_item("", term, nodes.definition("", *_text(key.comment)))
            items += item
        return found


def _text(lines: tuple[str, ...]) -> list[nodes.Node]:
    """A comment as a paragraph, or as it is where it shows code."""
    if any(line.startswith("   ") for line in lines):
        block = nodes.literal_block(text="\n".join(lines))
        block["language"] = "text"
        return [block]
    return [nodes.paragraph(text=" ".join(lines))]


class CommandReference(Directive):
    """The ``--help`` of every command."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for name, command in COMMANDS.items():
            module = importlib.import_module(f"afdcd.cli.arguments.{command.module}")
            parser = module.parser()
            parser.prog = f"afdcd {name}"
            title = nodes.rubric(text=f"afdcd {name}")
            script = nodes.paragraph(text=f"{command.summary}; tools/{command.module}.py")
            help_text = nodes.literal_block(text=parser.format_help())
            help_text["language"] = "text"
            found += [title, script, help_text]
        return found


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("afdcd-config", ConfigReference)
    app.add_directive("afdcd-commands", CommandReference)
    return {"parallel_read_safe": True}
