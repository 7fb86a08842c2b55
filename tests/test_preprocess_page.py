"""report.html and the dataset card: everything is on them, nothing from elsewhere, hostile text stays text."""

import base64
import hashlib
import html
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from medvl.demo.images import build_tree
from preprocess.flare import main
from preprocess.page import bars, thumbnail, token_bars

pytestmark = pytest.mark.subprocess

HOSTILE = "<script>alert('x')</script><img src=http://elsewhere/x.png>"


@pytest.fixture(scope="module")
def dirty_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn data with a truncated image, an unknown task, hostile text and an image that is in both splits."""
    root = tmp_path_factory.mktemp("dirty")
    build_tree(root, train=6, val=2)
    questions = sorted((root / "training").rglob("*_questions_train.json"))
    for number, file in enumerate(questions):
        rows = json.loads(file.read_text())
        first = rows[0]["ImageName"] if isinstance(rows[0]["ImageName"], str) else rows[0]["ImageName"][0]
        if number == 0:
            (file.parent / first).write_bytes((file.parent / first).read_bytes()[:-50])
        rows[1]["TaskType"] = HOSTILE
        rows[2]["Question"] = f"{HOSTILE} A: yes, B: no"
        file.write_text(json.dumps(rows))
    train = sorted((root / "training").rglob("demo-tissue*.png"))[-1]
    val = sorted((root / "validation-public").rglob("demo-tissue*.png"))[0]
    train.write_bytes(val.read_bytes())
    return root


def convert(tree: Path, out: Path, *options: str) -> dict[str, Any]:
    arguments = ["--root", str(tree), "--out", str(out), "--dataset-info", str(out / "dataset_info.json")]
    assert main([*arguments, "--workers", "1", *options]) == 0
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def output(dirty_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("output")
    convert(dirty_tree, out, "--cutoff-len", "150")
    return out


class _Page(html.parser.HTMLParser):
    """Tags, attributes that name addresses, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


class TestPage:
    @pytest.fixture(scope="class")
    def page(self, output: Path) -> _Page:
        return _Page((output / "report.html").read_text(encoding="utf-8"))

    def test_nothing_comes_from_elsewhere(self, page: _Page, output: Path) -> None:
        assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in page.addresses)
        assert not re.search(r"@import|url\(", (output / "report.html").read_text(encoding="utf-8"))

    def test_hostile_text_stays_text(self, page: _Page) -> None:
        assert page.tags.count("script") == 1
        assert HOSTILE in page.text

    def test_its_policy_lets_no_script_run_but_its_own(self, output: Path) -> None:
        text = (output / "report.html").read_text(encoding="utf-8")
        (policy,) = re.findall(r'Security-Policy" content="([^"]+)"', text)
        (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        rules = dict(rule.split(maxsplit=1) for rule in html.unescape(policy).split("; "))
        assert (rules["default-src"], rules["script-src"]) == ("'none'", f"'sha256-{digest}'")

    def test_counts_findings_and_files_are_there(self, page: _Page, output: Path) -> None:
        report = json.loads((output / "report.json").read_text())
        assert {"IMAGE_UNREADABLE", "TASK_UNKNOWN", "OVER_BUDGET", "LEAK_EXACT"} <= set(report["codes"])
        for text in [*report["codes"], *report["codes"].values(), *(file["entry"] for file in report["outputs"].values())]:  # fmt: skip  # noqa: E501
            assert text in page.text
        for part in report["datasets"]:
            assert part["dataset"] in page.text

    def test_boxes_are_drawn_and_leaks_shown_in_pairs(self, page: _Page) -> None:
        assert page.tags.count("rect") >= 4
        assert "exact: train and val" in page.text
        assert "cannot be shown" in page.text  # the truncated one

    def test_it_reads_on_a_phone_and_by_night(self, output: Path) -> None:
        text = (output / "report.html").read_text(encoding="utf-8")
        assert 'name="viewport"' in text
        assert "prefers-color-scheme: dark" in text

    def test_same_bytes_again(self, dirty_tree: Path, output: Path, tmp_path: Path) -> None:
        convert(dirty_tree, tmp_path, "--cutoff-len", "150")
        for name in ("report.html", "README.md", "report.json", "manifest.json"):
            assert (tmp_path / name).read_bytes() == (output / name).read_bytes()


def test_card_names_terms_counts_hashes_and_options(output: Path) -> None:
    card, manifest = (output / "README.md").read_text(), json.loads((output / "manifest.json").read_text())
    assert card.startswith("---\nlicense: other\n")
    assert "gated" in card
    assert manifest["report_sha256"] in card
    for file in manifest["files"].values():
        assert f"| `{file['entry']}` | {file['records']} |" in card
        assert file["sha256"][:16] in card
    assert "| box_style | `json` |" in card


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("<img src=x onerror=alert(1)>", id="HTML"),
        pytest.param("<script>alert(1)<", id="script"),
        pytest.param("[click](http:x.html)", id="link"),
        pytest.param("![x](http:x.png)", id="picture"),
        pytest.param("a`b``c | <b>x<b>", id="code and a column"),
        pytest.param("a\nb\r# heading", id="lines"),
        pytest.param("&lt;b&gt; \\[x\\]", id="escapes"),
    ],
)
def test_the_card_takes_names_of_folders_as_text(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "tree/training/Xray" / name
    (folder / "imagesTr").mkdir(parents=True)
    Image.new("L", (9, 9)).save(folder / "imagesTr/1.png")
    row = {"TaskType": "counting", "ImageName": "imagesTr/1.png", "Question": "How many?", "Answer": 1}
    (folder / "x_train.json").write_text(json.dumps([row]))
    convert(tmp_path / "tree", tmp_path / "out", "--datasets", name)
    shown = MarkdownIt("gfm-like", {"linkify": False}).render((tmp_path / "out/README.md").read_text())
    parts = _Page(shown)
    assert not {"img", "script", "b", "a"} & set(parts.tags[parts.tags.index("table") :])
    assert " ".join(name.split()) in " ".join(parts.text.split())
    assert parts.tags.count("table") == 3


class TestEarlierRun:
    @pytest.mark.parametrize("killed", [False, True])
    def test_of_another_name_is_not_taken_away(
        self, dirty_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], killed: bool
    ) -> None:
        convert(dirty_tree, tmp_path, "--name", "starter")
        if killed:  # a run that had set the manifest aside, and rewritten it
            convert(dirty_tree, tmp_path, "--name", "starter", "--limit", "2")
            (tmp_path / "manifest.json").rename(tmp_path / ".manifest.before.json")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        arguments = ["--root", str(dirty_tree), "--out", str(tmp_path)]
        assert main([*arguments, "--dataset-info", str(tmp_path / "dataset_info.json"), "--workers", "1"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "holds the output of --name starter, which --name flare would take away; choose another --out" in said
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    def test_its_files_and_entries_go(self, dirty_tree: Path, tmp_path: Path) -> None:
        convert(dirty_tree, tmp_path, "--dev-fraction", "0.4")
        registry = tmp_path / "dataset_info.json"
        registry.write_text(json.dumps(json.loads(registry.read_text()) | {"mine": {"file_name": "mine.json"}}))
        (tmp_path / "mine.json").write_text("[]")
        convert(dirty_tree, tmp_path)
        assert not list(tmp_path.glob("*_dev.json"))
        assert "mine" in json.loads(registry.read_text())
        assert not [name for name in json.loads(registry.read_text()) if name.endswith("_dev")]
        assert (tmp_path / "mine.json").exists()

    def test_a_run_that_was_killed_is_still_cleaned_up(self, dirty_tree: Path, tmp_path: Path) -> None:
        convert(dirty_tree, tmp_path, "--dev-fraction", "0.4")
        (tmp_path / "manifest.json").rename(tmp_path / ".manifest.before.json")  # what a run does before it writes
        convert(dirty_tree, tmp_path)
        assert not list(tmp_path.glob("*_dev.json"))
        assert not (tmp_path / ".manifest.before.json").exists()

    def test_names_that_lead_elsewhere_are_not_followed(self, dirty_tree: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        convert(dirty_tree, out, "--limit", "2")
        (tmp_path / "precious.json").write_text("[]")
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["files"]["../precious.json"] = {"entry": "precious", "records": 0, "sha256": ""}
        (out / "manifest.json").write_text(json.dumps(manifest))
        convert(dirty_tree, out)
        assert (tmp_path / "precious.json").exists()


class TestThumbnail:
    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
    def test_every_kind_of_image(self, tmp_path: Path, mode: str) -> None:
        image = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
        image = image if mode == "I;16" else image.convert("L").convert(mode)
        path = tmp_path / ("x.png" if mode not in ("CMYK", "F") else "x.tiff")
        image.save(path)
        assert (thumbnail(path, 16) or "").startswith("data:image/jpeg")

    def test_what_cannot_be_shown_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
        assert thumbnail(tmp_path / "x.png", 16) is None
        assert thumbnail(tmp_path / "gone.png", 16) is None


def test_bars_are_shares_of_the_longest_and_mark_what_is_cut() -> None:
    assert [bar["width"] for bar in bars([("A", 4), ("B", 1)])] == [100, 25]
    assert bars([]) == []
    histogram = [{"up_to": 512, "records": 9}, {"up_to": 768, "records": 2}, {"up_to": None, "records": 1}]
    assert [(bar["label"], bar["over"]) for bar in token_bars(histogram, 512)] == [
        ("to 512", False), ("to 768", True), ("above 16,384", True)]  # fmt: skip
