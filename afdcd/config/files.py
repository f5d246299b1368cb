"""Reading YAML configs with ``_BASE_`` and KEY VALUE overrides, with errors that help."""

from __future__ import annotations

import ast
import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import BASE_KEY, CfgNode

from afdcd.config import imports
from afdcd.config.errors import ConfigError, ConfigKeyError
from afdcd.config.losses import merge_losses, take_losses
from afdcd.config.paths import absolute_path, expand_paths, expanded_path
from afdcd.config.types import fitted
from afdcd.utils.strict_yaml import read_strict_yaml

# A list whose items are of several types, and a number that may be None.
MIXED = "MODEL.DISTILLER.TEACHER.OPTS"
OPTIONAL = "SOLVER.WEIGHT_DECAY_BIAS"
# Where overrides are from, for errors.
COMMAND_LINE = "command line"
# How the name of a file of class names ends.
CLASS_FILE = ".txt"


def merge_file(cfg: CfgNode, path: str | Path) -> None:
    """Merge a YAML file, and the files it is based on, into ``cfg``.

    ``MODEL.DISTILLER.TEACHER.CONFIG_FILE``, config files in its ``OTHERS``, and data set
    descriptions and folders in ``DATASETS``, are made absolute: a relative one is looked for beside
    the YAML file that names it. So are files in ``IMPORTS``, which are imported, in order, before
    anything else of the config is looked at.

    Raises:
        ConfigError: a file is missing or no YAML, or a value has another type than the default.
        ConfigKeyError: an unknown key; the message names the nearest ones.
    """
    _merge(cfg, _load(Path(expanded_path(str(path), "config file")), ()), str(path))


def merge_content(cfg: CfgNode, content: Mapping[str, Any], source: str) -> None:
    """Merge nested keys and values into ``cfg``.

    Args:
        cfg: changed.
        content: as a YAML file would hold it.
        source: where it is from, for errors.

    Raises:
        ConfigError, ConfigKeyError: as `merge_file`.
    """
    _merge(cfg, copy.deepcopy(dict(content)), source)


def merge_overrides(cfg: CfgNode, overrides: Sequence[str], source: str = COMMAND_LINE) -> None:
    """Merge ``KEY VALUE KEY VALUE ...`` into ``cfg``, as on Detectron2's command line.

    Data set descriptions and folders in ``DATASETS`` are made absolute, from the working directory.

    Args:
        cfg: changed.
        overrides: keys and values by turns.
        source: where they are from, for errors.

    Raises:
        ConfigError: a key without a value, or a value of another type than the default.
        ConfigKeyError: an unknown key; the message names the nearest ones.
    """
    if flags := [word for word in overrides if word.startswith("--")]:
        raise ConfigError(f"{' '.join(flags)}: flags go before the KEY VALUE pairs")
    if len(overrides) % 2:
        raise ConfigError(
            f"overrides are KEY VALUE pairs; got {len(overrides)} words: {' '.join(overrides)}"
        )
    pairs = list(zip(overrides[::2], overrides[1::2], strict=True))
    # Imported first, since the other pairs may set keys that come with it.
    for key, value in sorted(pairs, key=lambda pair: pair[0] != imports.KEY):
        content: Any = _literal(value)
        for name in reversed(key.split(".")):
            content = {name: content}
        _anchor_datasets(content, Path.cwd(), source)
        _merge(cfg, content, source, switching_off=True)


def is_overridden(key: str, overrides: Sequence[str]) -> bool:
    """Whether a key is among ``KEY VALUE KEY VALUE ...``."""
    return key in overrides[::2]


def _literal(value: str) -> Any:
    """What a word of the command line stands for: Python's literal, or a list or keys of YAML."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    if value.startswith(("[", "{")):  # [a,b] without quotes
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            pass
    return value  # a word or a path


def flat_keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys, nodes among them."""
    for name, value in cfg.items():
        yield prefix + name
        if isinstance(value, CfgNode):
            yield from flat_keys(value, f"{prefix}{name}.")


def differences(first: CfgNode, second: CfgNode) -> list[str]:
    """Keys whose values differ, as ``KEY: first -> second``, sorted."""
    found = differing(flat_values(first), flat_values(second))
    return [f"{key}: {was} -> {now}" for key, (was, now) in found.items()]


def flat_values(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested mappings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= flat_values(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The names, sorted, that stand for different values, with both; ``(none)`` for no value."""
    return {
        key: (one.get(key, "(none)"), two.get(key, "(none)"))
        for key in sorted(one.keys() | two.keys())
        if _plain(one.get(key)) != _plain(two.get(key))
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def flat_value(cfg: CfgNode, key: str) -> Any:
    """The value of a dotted key."""
    node: Any = cfg
    for name in key.split("."):
        node = node[name]
    return node


def _load(path: Path, opened: tuple[Path, ...]) -> dict[str, Any]:
    """The content of a YAML file merged over that of the files it is based on."""
    if path.resolve() in opened:
        raise ConfigError(f"{path}: its {BASE_KEY} leads back to itself")
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        )
        hint = (
            f"; did you mean {', '.join(str(path.parent / name) for name in near)}?" if near else ""
        )
        by = f" (the {BASE_KEY} of {opened[-1]})" if opened else ""
        raise ConfigError(f"no config file at {path}{by}{hint}")
    try:
        content = read_strict_yaml(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold KEY: value lines; it holds a {type(content).__name__}")
    bases = content.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) and base for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY} takes a file, or a list of files; got {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        file = path.parent / expanded_path(base, f"{path}: {BASE_KEY}")
        _overlay(merged, _load(file, (*opened, path.resolve())), path)
    _anchor_imports(content, path)
    _anchor_teacher(content, path)
    _anchor_datasets(content, path.parent, str(path))
    return _overlay(merged, content, path)


def _overlay(
    below: dict[str, Any], above: dict[str, Any], path: Path, prefix: str = ""
) -> dict[str, Any]:
    for key, value in above.items():
        if key == imports.KEY and not prefix:
            below[key] = [*below.get(key, []), *value]
        elif isinstance(value, dict) and below.get(key) is not None:
            if not isinstance(below[key], dict):
                raise ConfigError(f"{path}: {prefix}{key} holds keys here but a value in its base")
            _overlay(below[key], value, path, f"{prefix}{key}.")
        else:
            below[key] = value
    return below


def _anchor_imports(content: dict[str, Any], path: Path) -> None:
    if imports.KEY in content:
        names = imports.listed(content[imports.KEY], str(path))
        content[imports.KEY] = imports.anchored(names, path.parent, str(path))


def _anchor_teacher(content: dict[str, Any], path: Path) -> None:
    node: Any = content
    for name in ("MODEL", "DISTILLER", "TEACHER"):
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return
    where = f"{path}: MODEL.DISTILLER.TEACHER"
    if isinstance(node.get("CONFIG_FILE"), str) and node["CONFIG_FILE"]:
        where_file = f"{where}.CONFIG_FILE"
        node["CONFIG_FILE"] = absolute_path(node["CONFIG_FILE"], path.parent, where_file)
    if isinstance(node.get("CLASSES"), str):
        node["CLASSES"] = [node["CLASSES"]]
    classes = node.get("CLASSES")
    if isinstance(classes, list) and len(classes) == 1 and str(classes[0]).endswith(CLASS_FILE):
        node["CLASSES"] = [absolute_path(classes[0], path.parent, f"{where}.CLASSES")]
    others = node.get("OTHERS")
    for pair in others if isinstance(others, list) else []:
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair):
            pair[0] = absolute_path(pair[0], path.parent, f"{where}.OTHERS")
            pair[1] = expanded_path(pair[1], f"{where}.OTHERS")


def _list_class_map(content: dict[str, Any]) -> None:
    """Turn the keys of ``TEACHER.CLASS_MAP``, which are names of classes, into a list of pairs."""
    node: Any = content
    for name in ("MODEL", "DISTILLER", "TEACHER"):
        node = node.get(name) if isinstance(node, dict) else None
    if isinstance(node, dict) and isinstance(node.get("CLASS_MAP"), dict):
        node["CLASS_MAP"] = [[theirs, mine] for theirs, mine in node["CLASS_MAP"].items()]


def _is_path(name: str, key: str) -> bool:
    """Whether a data set's name is a description's, or that of a folder of images."""
    return bool(re.search(r"\.ya?ml:", name)) or (key == "UNLABELED" and "/" in name)


def _anchor_datasets(content: Any, folder: Path, where: str) -> None:
    """Make relative ``<description>.yaml:<split>`` names absolute, from ``folder``.

    So are folders of unlabelled images, which are written with a slash.
    """
    node = content.get("DATASETS") if isinstance(content, dict) else None
    if not isinstance(node, dict):
        return
    for key in ("TRAIN", "TEST", "UNLABELED"):
        names = node.get(key)
        if isinstance(names, list | tuple):
            node[key] = [
                absolute_path(name, folder, f"{where}: DATASETS.{key}")
                if isinstance(name, str) and _is_path(name, key)
                else name
                for name in names
            ]


def _merge(
    cfg: CfgNode, content: dict[str, Any], source: str, *, switching_off: bool = False
) -> None:
    if imports.KEY in content and imports.KEY in cfg:
        names = imports.listed(content.pop(imports.KEY), source)
        imports.import_all(cfg, imports.anchored(names, Path.cwd(), source), source)
    try:
        losses = take_losses(content)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    _list_class_map(content)
    _fit_keys(cfg, content, source)
    expand_paths(content, source)
    try:
        cfg.merge_from_other_cfg(type(cfg)(content))
        if losses is not None:
            merge_losses(cfg, losses, switching_off=switching_off)
    except (ValueError, AssertionError, KeyError) as error:
        raise ConfigError(f"{source}: {error}") from error


def _fit_keys(cfg: CfgNode, content: dict[str, Any], source: str, prefix: str = "") -> None:
    """Check that ``cfg`` has the keys of ``content``, and fit the values to the defaults' types.

    Raises:
        ConfigKeyError: for the first key that doesn't exist.
        ConfigError: a value where there are keys, keys where there is a value, or a value of
            another type.
    """
    for name, value in content.items():
        key = f"{prefix}{name}"
        known = list(flat_keys(cfg))
        if key not in known:
            raise ConfigKeyError(key, _nearest(key, known), source)
        default = flat_value(cfg, key)
        if isinstance(default, CfgNode):
            if not isinstance(value, dict):
                raise ConfigError(
                    f"{source}: {key} holds the keys {', '.join(default)}; got the value {value!r}"
                )
            _fit_keys(cfg, value, source, f"{key}.")
        elif isinstance(value, dict):
            raise ConfigError(f"{source}: {key} takes a value, not keys; got {value!r}")
        elif key == OPTIONAL:
            content[name] = value if value is None else fitted(value, 0.0, f"{source}: {key}")
        else:
            default = [] if key == MIXED else default
            content[name] = fitted(value, default, f"{source}: {key}")


def _nearest(key: str, known: Sequence[str]) -> list[str]:
    """Known keys that are spelt alike, or that end alike."""
    last = key.rpartition(".")[2]
    same_ending = [k for k in known if k.rpartition(".")[2].lower() == last.lower()]
    alike = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    return list(dict.fromkeys(same_ending + alike))[:3]
