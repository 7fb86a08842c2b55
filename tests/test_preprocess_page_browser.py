"""The conversion report in a real browser: it fetches nothing, filters work, it fits a phone, all can read it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medvl.demo.images import build_tree
from preprocess.flare import main


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on drawn data with hostile rows, broken images and leaks."""
    root = tmp_path_factory.mktemp("page")
    build_tree(root / "tree", train=8, val=3)
    for file in sorted((root / "tree" / "training").rglob("*_questions_train.json")):
        rows = json.loads(file.read_text())
        names = rows[0]["ImageName"]
        image = file.parent / (names if isinstance(names, str) else names[0])
        image.write_bytes(image.read_bytes()[:-60])
        rows[1]["TaskType"] = "</td><script>alert(1)</script><img src=x onerror=alert(1)>"
        rows[2]["Question"] = "</pre><script>alert(1)</script> A: \u202egpj.exe, B: no"
        file.write_text(json.dumps(rows))
    command = ["--root", str(root / "tree"), "--out", str(root / "out"), "--workers", "1", "--dev-fraction", "0.3",
               "--dataset-info", str(root / "out" / "dataset_info.json"), "--cutoff-len", "150",
               "--balance", "small"]  # fmt: skip
    assert main(command) == 0
    return root / "out" / "report.html"


def opened(browser: Any, report: Path, *, quiet: bool = True, **options: Any) -> Iterator[tuple[Any, list[str]]]:
    with browser.new_context(**options) as context:
        page = context.new_page()
        trouble: list[str] = []
        page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: trouble.append(f"error {error}"))
        page.on("console", lambda message: trouble.append(f"console {message.text}"))
        context.route(re.compile("^(?!data:)"), lambda route: (trouble.append(f"fetch {route.request.url}"),
                                                               route.continue_()))  # fmt: skip
        page.add_init_script("window.alerted = []; window.alert = text => alerted.push(text);")
        page.goto(report.as_uri())
        assert not quiet or trouble == [f"fetch {report.as_uri()}"]
        yield page, trouble[1:]


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_it_fits_fetches_nothing_and_all_can_read_it(browser: Any, report: Path, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    size = {"width": width, "height": 800}
    for page, trouble in opened(browser, report, viewport=size, color_scheme=scheme):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # axe draws text on a canvas to measure contrast; the policy of the page lets it.
        violations = Axe().run(page).response["violations"]
        assert [(item["id"], [node["target"] for node in item["nodes"]][:3]) for item in violations] == []
        assert trouble == []


def test_no_script_but_its_own_runs(browser: Any, report: Path, tmp_path: Path) -> None:
    """As if text had come through unescaped: the policy stops it, in a handler, a script and an address."""
    text = report.read_text(encoding="utf-8")
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)></svg>"
    (tmp_path / "report.html").write_text(text.replace("<main", f"{hostile}<main", 1), encoding="utf-8")
    for page, _ in opened(browser, tmp_path / "report.html", quiet=False):
        assert page.locator("#list tbody tr").count() > 20
        page.select_option("#code", "IMAGE_UNREADABLE")
        assert page.locator("#list tbody tr:visible").count() == 9  # its own does run
        assert page.evaluate("alerted") == []


def test_findings_are_filtered(browser: Any, report: Path) -> None:
    findings = json.loads((report.parent / "report.json").read_text())["findings"]
    for page, trouble in opened(browser, report):
        shown = page.locator("#list tbody tr:visible")
        assert shown.count() > 20
        page.select_option("#code", "IMAGE_UNREADABLE")
        assert shown.count() == sum(finding["code"] == "IMAGE_UNREADABLE" for finding in findings) == 9
        page.fill("#words", "demo-LESION")
        assert (shown.count(), page.inner_text("#count")) == (1, "1")
        page.select_option("#action", "kept")
        assert shown.count() == 0
        assert trouble == []
