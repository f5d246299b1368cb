"""The report: its structure, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from afdcd.cli.report import main
from afdcd.report.page import ROOM, Panel, Tile, render

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page(HTMLParser):
    """Every element's name and attributes, and the text of scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.open: list[str] = []
        self._script = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "line", "circle", "polyline", "wbr"):
            self.open.append(tag)
        if tag == "script":
            self._script = dict(attrs).get("id") or ""

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[self._script] = data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    runs = [str(folder / name) for name in ("student", "student_s6", "distilled")]
    assert main([*runs, "--output", str(path), "--runtime", "embedded"]) == 0
    return path


def test_structure(report: Path):
    text = report.read_text()
    page = Page(text)
    assert page.open == [] and len(text) < 10_000_000
    images = page.all("img")
    # Two validation images: input, truth, teacher, student, distilled and the difference.
    assert len(images) == 12 and all(image["alt"] for image in images)
    assert all((image["src"] or "").startswith("data:image/webp;base64,") for image in images)
    addresses = [a.get(k) for _, a in page.elements for k in ("src", "href", "srcset", "action")]
    assert all(value is None or value.startswith("data:") for value in addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert all(a["aria-labelledby"] in names for a in page.all("section"))
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in page.all("svg"))
    assert page.all("html")[0]["lang"] == "en" and len(page.all("h1")) == 1


def test_its_json_is_the_runs(report: Path, folder: Path):
    content = json.loads(Page(report.read_text()).scripts["figures"])
    assert [way["name"] for way in content["ways"]] == ["student", "distilled"]
    for way in content["ways"]:
        for run in way["runs"]:
            results = json.loads((Path(run["folder"]) / "results.json").read_text())
            assert run["figures"] == results["figures"] and run["seed"] == results["seed"]
            assert run["seconds"] == results["seconds"]
    scores = {way["name"]: way["score"]["mean"] for way in content["ways"]}
    assert all(f">{value:.4g}</span>" in report.read_text() for value in scores.values())
    assert "tools/report.py" in content["command"] and len(content["images"]) == 2
    for image in content["images"]:
        change = image["scores"]["distilled"] - image["scores"]["student"]
        assert image["change"] == pytest.approx(change)


def test_networks_that_are_gone_are_remarked_on(folder: Path, tmp_path):
    """A run whose weights are gone still has figures; a teacher that is gone takes no one along."""
    shutil.copytree(folder / "distilled", tmp_path / "moved")
    config = tmp_path / "moved/config.yaml"
    config.write_text(config.read_text().replace("teacher.pth", "gone.pth"))
    shutil.copytree(folder / "student", tmp_path / "bare")
    for path in (tmp_path / "bare").glob("*.pth"):
        path.unlink()
    words = [str(tmp_path / "moved"), str(tmp_path / "bare"), "--runtime", "embedded"]
    path = tmp_path / "report.html"
    assert main([*words, "--output", str(path)]) == 0
    content = json.loads(Page(path.read_text()).scripts["figures"])
    remarks = " ".join(content["remarks"])
    assert "gone.pth are gone" in remarks and "bare: no pictures, since" in remarks
    assert list(content["images"][0]["scores"]) == ["moved"]
    assert content["images"][0]["change"] is None


def test_errors(folder: Path, capsys):
    assert main([str(folder / "nothing"), "--output", str(folder / "x.html")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert main([str(folder / "student"), "--output", str(folder)]) == 2
    assert "is a folder: name a file" in capsys.readouterr().err
    assert main([str(folder / "student"), "--images", "0"]) == 2
    assert "--images must be above 0" in capsys.readouterr().err


def test_names_are_text(report: Path):
    """What looks like HTML in a name isn't any, in the page or in its JSON."""
    content = json.loads(Page(report.read_text()).scripts["figures"])
    content["ways"][0]["name"] = name = "</script><b>&"
    page = Page(render(content, [], {}))
    assert page.open == [] and not page.all("b")
    assert json.loads(page.scripts["figures"])["ways"][0]["name"] == name


def test_too_many_pictures_are_left_out(report: Path):
    content = json.loads(Page(report.read_text()).scripts["figures"])
    large = Tile("input", "image", "A" * (ROOM // 3), 9, 9, True)
    panels = [Panel(n, str(n), 0.0, {}, [large]) for n in range(5)]
    text = render(content, panels, {})
    assert len(Page(text).all("img")) == 3 and len(text) < 10_000_000
    assert "2 more images would have made this file too large" in text


LOOK = """
<script>
window.addEventListener("load", () => {
  const seen = {}, get = (name) => document.getElementById(name);
  const shown = () => [...document.querySelectorAll(".panel")].filter((p) => !p.hidden);
  const changes = () => [...document.querySelectorAll(".panel")].map((p) => +p.dataset.change);
  seen.broken = [...document.images].filter((i) => !i.complete || !i.naturalWidth).length;
  seen.shown = shown().length;
  seen.gain = changes();
  const first = shown()[0];
  get("next").click();
  seen.turned = shown()[0] !== first && shown().length === 1;
  get("next").focus();
  get("next").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", bubbles: true}));
  seen.back = shown()[0] === first;
  get("order").value = "loss";
  get("order").dispatchEvent(new Event("change"));
  seen.loss = changes();
  get("all").click();
  seen.all = shown().length;
  seen.wide = document.documentElement.scrollWidth > window.innerWidth;
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script>
"""


@pytest.mark.slow
def test_in_a_browser(report: Path, tmp_path):
    """Nothing on the console, all pictures there, and the buttons and keys do what they say."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    page = tmp_path / "page.html"
    page.write_text(report.read_text().replace("</body>", LOOK + "</body>"))
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    words += ["--window-size=600,900", f"--user-data-dir={tmp_path}/profile"]
    words += ["--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)
    assert found, done.stdout[-500:]
    seen = json.loads(found[1])
    assert seen["broken"] == 0 and not seen["wide"]
    assert (seen["shown"], seen["all"]) == (1, 2)
    assert seen["turned"] and seen["back"]
    assert seen["gain"] == sorted(seen["gain"], reverse=True)
    assert seen["loss"] == sorted(seen["loss"])


def test_contrast():
    """Text and lines against both backgrounds of both schemes: WCAG's AA, 4.5 and 3 to 1."""
    style = (Path(__file__).parents[2] / "afdcd/report/page.css").read_text()
    light, dark = style.split("prefers-color-scheme: dark")
    for scheme in (light, dark):
        colors = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        assert len(colors) == 11
        for ground in ("paper", "card"):
            for name in ("ink", "faint"):
                assert _contrast(colors[name], colors[ground]) >= 4.5
            for kind in range(6):
                assert _contrast(colors[f"k{kind}"], colors[ground]) >= 3


def _contrast(one: str, two: str) -> float:
    low, high = sorted(map(_luminance, (one, two)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    values = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
