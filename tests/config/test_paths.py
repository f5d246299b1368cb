"""One rule for the paths that people write: ``~`` and variables, as a shell replaces them."""

from __future__ import annotations

from pathlib import Path

import pytest

from afdcd.config import ConfigError, embedded_config, merge_file, merge_overrides
from afdcd.config.paths import PATH_KEYS
from afdcd.utils.paths import expanded


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNS", "runs of mine")
    monkeypatch.delenv("NOT_SET", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("a/b", "a/b"),
        ("~", "{home}"),
        ("~/x", "{home}/x"),
        ("a/~/x", "a/~/x"),
        ("$RUNS/x", "runs of mine/x"),
        ("${RUNS}x", "runs of minex"),
        ("~/$RUNS/${RUNS}", "{home}/runs of mine/runs of mine"),
        ("costs 5$", "costs 5$"),
        ("https://host/~user/$NOT_SET", "https://host/~user/$NOT_SET"),
    ],
)
def test_expanded(text: str, expected: str, home):
    assert expanded(text) == expected.format(home=home)


@pytest.mark.parametrize(
    ("text", "part"),
    [("$NOT_SET/x", "variable NOT_SET isn't set"), ("~nobody_here/x", "no home folder of ~nobody")],
)
def test_what_cannot_be_replaced_is_said(text: str, part: str, tmp_path):
    with pytest.raises(ValueError, match=part):
        expanded(text)
    with pytest.raises(ConfigError, match=f"command line: OUTPUT_DIR: .*{part}"):
        merge_overrides(embedded_config(), ["OUTPUT_DIR", text])
    with pytest.raises(ConfigError, match=part):
        merge_file(embedded_config(), text)
    (tmp_path / "a.yaml").write_text(f"_BASE_: {text}")
    with pytest.raises(ConfigError, match=rf"a\.yaml: _BASE_: .*{part}"):
        merge_file(embedded_config(), tmp_path / "a.yaml")


@pytest.mark.parametrize("key", PATH_KEYS)
def test_every_key_from_file_and_command_line(key: str, home):
    content = "~/$RUNS/x"
    for name in reversed(key.split(".")):
        content = f"{{{name}: {content}}}"
    (home / "a.yaml").write_text(content)
    by_file, by_words = embedded_config(), embedded_config()
    merge_file(by_file, "~/a.yaml")
    merge_overrides(by_words, [key, "~/$RUNS/x"])
    for cfg in (by_file, by_words):
        node = cfg
        for name in key.split("."):
            node = node[name]
        assert node == str(home / "runs of mine/x")


def test_bases_descriptions_and_imports(home):
    (home / "runs of mine").mkdir()
    (home / "runs of mine/base.yaml").write_text("SEED: 7")
    (home / "runs of mine/mine.py").write_text("")
    (home / "a.yaml").write_text(
        "_BASE_: ~/$RUNS/base.yaml\n"
        "IMPORTS: [$HOME/$RUNS/mine.py]\n"
        "DATASETS: {TRAIN: ['~/tiles.yaml:train'], TEST: ['${RUNS}/tiles.yaml:val']}\n"
    )
    cfg = embedded_config()
    merge_file(cfg, home / "a.yaml")
    assert cfg.SEED == 7
    assert [str(home / "runs of mine/mine.py")] == cfg.IMPORTS
    assert list(cfg.DATASETS.TRAIN) == [f"{home}/tiles.yaml:train"]
    assert list(cfg.DATASETS.TEST) == [f"{home}/runs of mine/tiles.yaml:val"]
