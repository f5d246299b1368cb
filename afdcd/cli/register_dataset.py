"""Describe a data set of your own in a YAML file that configs can name, and check its files."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tabulate import tabulate

from afdcd.cli.arguments.register_dataset import SAMPLE, parser
from afdcd.cli.common import report_errors
from afdcd.config import ConfigError
from afdcd.data.datasets import Dataset
from afdcd.data.description import NOTHING, Description, read_description
from afdcd.data.labels import IGNORE, DataError, read_stored_labels
from afdcd.data.listing import Listing, read_listing
from afdcd.tasks.depth.scan import check_splits
from afdcd.tasks.semantic_segmentation.scan import Scan, ignored_hint, judge_classes, scan_files
from afdcd.utils.files import write_text
from afdcd.utils.findings import Report
from afdcd.utils.problems import SetupError, first_few

# Label maps that are looked into for values where no classes are given.
LOOKED_INTO = 50


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0, or 2 where something is wrong."""
    args = parser().parse_args(argv)
    return report_errors(lambda: _main(args))


def _main(args: argparse.Namespace) -> None:
    if _describes(args):
        _write(args)
        print(f"Wrote {args.file}")
    _check(args.file, full=args.full)


def _describes(args: argparse.Namespace) -> bool:
    others = ("file", "force", "full")
    return any(value for name, value in vars(args).items() if name not in others)


def _write(args: argparse.Namespace) -> None:
    if args.file.exists() and not args.force:
        raise ConfigError(f"{args.file} exists: add --force to overwrite it")
    if args.file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"a description's name ends in .yaml; got {args.file}")
    content = _content(args)
    if not args.file.parent.is_dir():
        raise ConfigError(f"no folder {args.file.parent.absolute()}")
    text = (
        "# A data set's description: see docs/datasets.md. Checked by tools/register_dataset.py.\n"
        + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    )
    # Nothing is written that couldn't be read again.
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / args.file.name
        trial.write_text(text)
        try:
            read_description(trial)
        except DataError as error:
            raise ConfigError(str(error).replace(str(trial), str(args.file))) from error
    write_text(args.file, text)


def _content(args: argparse.Namespace) -> dict[str, Any]:
    if not args.split:
        raise ConfigError("name a --split, e.g. --split train=0.8 --split val=0.2")
    encoding = args.encoding or ("panoptic" if args.panoptic else "index")
    files = {
        key: getattr(args, key)
        for key in ("images", "labels", "image_suffix", "label_suffix", "csv", "panoptic")
        if getattr(args, key)
    }
    listing = Listing.parse(files, "the options")
    root = args.file.parent / (args.root or ".")
    classes: list[Any] = [_class(word) for word in args.classes]
    mapping = _once([_assignment(word, "--map", encoding) for word in args.map], "--map")
    ignore = _ignored(args.ignore, encoding)
    if not classes:
        if mapping:
            raise ConfigError("--map needs the classes that it names: add --class for each")
        classes, mapping = _found_classes(listing, root, encoding, ignore)
    labels: dict[str, Any] = {"encoding": encoding}
    if mapping:
        labels["mapping"] = mapping
    if ignore is not None:
        labels["ignore"] = ignore
    content: dict[str, Any] = {"root": args.root} if args.root else {}
    content |= {"classes": classes, "labels": labels}
    if args.window:
        content["images"] = {"window": list(args.window)}
    content["files"] = files
    content["splits"] = _once([_split(word) for word in args.split], "--split")
    return content


def _class(word: str) -> Any:
    name, has_color, color = word.rpartition("=")
    return {"name": name, "color": color} if has_color else word


def _assignment(word: str, option: str, encoding: str) -> tuple[Any, str]:
    stored, equals, name = word.partition("=")
    if not equals:
        raise ConfigError(f"{option} takes STORED=CLASS; got {word!r}")
    return _stored(stored, encoding), name


def _once(pairs: list[tuple[Any, Any]], option: str) -> dict[Any, Any]:
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ConfigError(f"{option} {twice[0]} is there twice")
    return dict(pairs)


def _stored(word: str, encoding: str) -> Any:
    if encoding == "rgb":
        return word
    try:
        return int(word)
    except ValueError as error:
        raise ConfigError(f"a stored value is a whole number; got {word!r}") from error


def _ignored(words: list[str], encoding: str) -> list[Any] | None:
    """The stored values that don't count; None where it is left to the default."""
    if NOTHING in words and len(words) > 1:
        raise ConfigError(f"--ignore none says that every value counts; got also {words}")
    values = [_stored(word, encoding) for word in words if word != NOTHING]
    return values if words else None


def _split(word: str) -> tuple[str, dict[str, Any]]:
    name, equals, value = word.partition("=")
    if not equals:
        return name, {}
    try:
        return name, {"share": float(value)}
    except ValueError:
        return name, {"list": value}


def _found_classes(
    listing: Listing, root: Path, encoding: str, ignore: list[Any] | None
) -> tuple[list[str], dict[Any, str]]:
    """Classes called after the values that label maps hold."""
    if encoding != "index":
        raise ConfigError(f"encoding {encoding} needs the classes: --class NAME=#RRGGBB ...")
    pairs = read_listing(listing, root, "the options")
    step = max(1, len(pairs) // LOOKED_INTO)
    values: set[int] = set()
    for pair in pairs[::step]:
        values |= set(np.unique(read_stored_labels(pair.label)).tolist())
    ignored = {IGNORE} if ignore is None else set(ignore)
    kept = sorted(values - ignored)
    said = "each but the ignored ones became a class"
    if ignore is None and IGNORE in values:
        if len(kept) <= 1:  # a mask: with 255 ignored there would be nothing to tell apart
            kept = sorted(values)
            said = "each became a class, 255 too (--ignore 255 says that it doesn't count)"
        else:
            said = "each but 255 became a class (--ignore none makes 255 a class, too)"
    if not kept:
        raise ConfigError(
            f"the label maps hold only the values {', '.join(map(str, sorted(values)))}, all of "
            "them ignored: --ignore none makes them classes"
        )
    mapping: dict[Any, str] = {value: f"value_{value}" for value in kept}
    print(
        f"The label maps hold the values {', '.join(map(str, sorted(values)))}; {said}: rename "
        "them in the file"
    )
    return list(mapping.values()), mapping


def _check(path: Path, *, full: bool) -> None:
    description = read_description(path)
    if description.form is not None:
        print(check_splits(path, description, None if full else SAMPLE))
        return
    problems: list[str] = []
    scans: dict[str, Scan] = {}
    owners: dict[str, str] = {}
    trained: dict[str, tuple[Dataset, Scan]] = {}
    for split in description.splits:
        try:
            records, label_map = description.load(split=split)
        except DataError as error:
            problems.append(str(error))
            continue
        spec = description.spec(split, f"{path}:{split}")
        scan = scan_files(Dataset(spec, records, label_map), limit=None if full else SAMPLE)
        scans[f"{split} ({scan.files} of {len(records)} files)"] = scan
        trained[split] = Dataset(spec, records, label_map), scan
        problems += [*first_few(scan.problems), *first_few(scan.damaged)]
        if scan.unlabelled:
            hint = ignored_hint([trained[split]]) if not scan.pixels.any() else ""
            problems.append(
                f"{split}: {len(scan.unlabelled)} label maps show no class, e.g. "
                f"{scan.unlabelled[0]}{hint}"
            )
        if scan.flat:
            problems.append(
                f"{split}: {len(scan.flat)} images show one colour, e.g. {scan.flat[0]}: are "
                "they of 16 bits? Then set images: {window: [lowest, highest]}"
            )
        shared = [owners[r["file_name"]] for r in records if r["file_name"] in owners]
        if shared:
            problems.append(f"{split} and {shared[0]} share {len(shared)} images")
        owners |= {record["file_name"]: split for record in records}
    print(_table(description, scans))
    report = Report()
    judge_classes(_training_splits(trained), report)
    for finding in report.findings:
        if finding.fix:
            problems.append(finding.text)
        else:
            print(f"Remark: {finding.text}")
    if problems:
        raise SetupError(problems)
    print("OK. In a config: DATASETS: {TRAIN: [" + f'"{path}:{next(iter(description.splits))}"]}}')


def _training_splits(splits: dict[str, tuple[Dataset, Scan]]) -> list[tuple[Dataset, Scan]]:
    """What is trained on, by the splits' names; all where no name says it."""
    named = [part for name, part in splits.items() if name.lower().startswith("train")]
    return named or list(splits.values())


def _table(description: Description, scans: dict[str, Scan]) -> str:
    """Each class's share of the labelled pixels, by split."""
    rows = [
        [name, *(f"{100 * scan.shares()[k]:.2f} %" for scan in scans.values())]
        for k, name in enumerate(description.classes)
    ]
    return tabulate(rows, headers=["class", *scans], disable_numparse=True)


if __name__ == "__main__":
    sys.exit(main())
