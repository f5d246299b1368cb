"""Whatever a key is set to: it is taken, or refused in a sentence that says what to write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from afdcd.checks.weights import teacher_problems
from afdcd.config import ConfigError, embedded_config, merge_content
from afdcd.config.types import fitted
from afdcd.embedded.runtime import EmbeddedRuntime


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        ("1e-6", 0.1, 1e-6),
        (1, 0.1, 1.0),
        (40000.0, 5, 40000),
        ("4e4", 5, 40000),
        ("100", 5, 100),
        ([1, 2], (3,), (1, 2)),
        ((1, 2.5, "1e-1"), [3.0], [1, 2.5, 0.1]),
        ([], (1,), ()),
        (["a", 1], [], ["a", 1]),
        ("x", "y", "x"),
        (None, None, None),
        ([["a", "b"]], [["c"]], [["a", "b"]]),
    ],
)
def test_taken(value: Any, default: Any, expected: Any):
    got = fitted(value, default, "here")
    assert got == expected and type(got) is type(expected)
    if isinstance(got, (list, tuple)):
        assert [type(item) for item in got] == [type(item) for item in expected]


@pytest.mark.parametrize(
    ("value", "default", "message"),
    [
        ("res5", ["res4"], r"takes a list: write \[res5\]; got 'res5'"),
        (96, (96, 96), r"takes a list: write \[96\]; got 96"),
        (["96", "x"], (96, 96), r"item 2 takes a whole number; got 'x'"),
        ([96.5, 1], (96, 96), r"item 1 takes a whole number; got 96.5"),
        ([5], ["a"], r"item 1 takes a text: quote it \('5'\); got 5"),
        (10, "a", r"takes a text: quote it \('10'\); got 10"),
        (["a"], "a", r"takes a text, not a list; got \['a'\]"),
        ("yes", True, r"takes True or False; got 'yes'"),
        (1, False, r"takes True or False; got 1"),
        (True, 1, r"takes a whole number; got True"),
        (1.5, 1, r"takes a whole number; got 1.5"),
        (1e30, 1, r"takes whole numbers up to 2147483647; got 1e\+30"),
        ("much", 0.1, r"takes a number; got 'much'"),
        (None, "a", r"is empty: it takes a text, such as 'a'"),
        (None, [1], r"is empty: it takes a list, such as \[1\]"),
    ],
)
def test_refused_with_what_to_write(value: Any, default: Any, message: str):
    with pytest.raises(ConfigError, match=f"a.yaml: KEY:? {message}$"):
        fitted(value, default, "a.yaml: KEY")


def keys(node: Any, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if not hasattr(value, "items"):
            yield prefix + name
        elif name != "LOSSES":
            yield from keys(value, f"{prefix}{name}.")


ODD: list[Any] = [
    *(-1, 0, 1.5, 1e30, float("nan"), float("inf"), "x", "", None, True, 10**12),
    *([], [1], ["a", "b"], [0, 0], [-1, -1], [1.5, 2.5], [96, -1], [float("nan"), 1.0], [[1]]),
]


@pytest.mark.parametrize("key", list(keys(embedded_config())))
def test_odd_values_of_every_key(configs, key: str):
    for value in ODD:
        setup = EmbeddedRuntime.configure(str(configs / "distilled.yaml"), [])
        content = value
        for name in reversed(key.split(".")):
            content = {name: content}
        try:
            merge_content(setup.cfg, content, "a.yaml")
            problems = setup.problems() + teacher_problems(setup)
        except ConfigError as error:
            problems = [str(error)]
        for text in problems:
            assert "<class" not in text and "Traceback" not in text, text
        if key.startswith("SOLVER.") and value == "x":
            assert problems, value
