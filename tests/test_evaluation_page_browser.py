"""The page of scores in a real browser: it fetches nothing, hostile text stays text, filters work, all can read it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.run import main

CELLS = "Return a JSON mapping each cell type to a list of [x_min, y_min, x_max, y_max] coordinates."
DATASET = "evil\"'><img src=x onerror=alert(1)>"
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<a href=\"javascript:alert(1)\">look</a> [look](javascript:alert(1))",
    "<!--<script>",
    "\u2028alert(1)//\u2029",
    "\u202egpj.exe\u2066",
    "\x00\x07\x1b[31m",
    "Z" + "\u0301" * 500,
    "{{ 7 * 7 }} {% include '/etc/passwd' %}",
    "<style>* { display: none }</style>",
    "</pre></article></main>",
    "&lt;b&gt; &amp;amp;",
    "<a>" * 100_000 + "x" * 700_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page made from hostile answers to every kind of question, with images, three quarters of them there."""
    folder = tmp_path_factory.mktemp("hostile")
    rows: list[dict[str, Any]] = []
    predictions = []
    tree = folder / "tree" / "validation-public" / "Xray" / DATASET
    (tree / "imagesVal").mkdir(parents=True)
    for index in range(60):
        hostile, name = HOSTILE[index % len(HOSTILE)], f"imagesVal/{index}.png"
        for task, question, truth, wrong in (
            ("classification", "Which? A: Yes, B: No", "A", hostile),
            ("report_generation", f"Describe. {hostile[:100]}", hostile[:200] or "Normal.", f"Seen: {hostile}"),
            ("counting", "How many cells?", 12, f"{index} cells"),
            ("instance_detection", CELLS, '{"RBC": [[10, 10, 60, 50]]}',
             json.dumps({hostile[:50]: [[12, 12, 60, 9999]], "RBC": [[5, 5, 55, 40]]})),
        ):  # fmt: skip
            row = {"TaskType": task, "Modality": "Xray", "ImageName": name, "Question": question, "Split": "val"}
            rows.append(row | {"Answer": truth})
            predictions.append(row | {"Answer": wrong})
        if index % 4:
            Image.new("RGB", (200, 160), (index, 90, 120)).save(tree / name)
    (tree / f"{DATASET}_questions_val.json").write_text(json.dumps(rows))
    (folder / "predictions.json").write_text(json.dumps(predictions))
    assert main([str(folder / "predictions.json"), "--references", str(folder / "tree"), "--out", str(folder / "out"),
                 "--bootstrap", "50", "--force"]) == 0  # fmt: skip
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def side_by_side(report: Path) -> Path:
    """The page of two files under two sets of rules."""
    folder = report.parents[1]
    rows = json.loads((folder / "predictions.json").read_text())
    (folder / "silent.json").write_text(json.dumps([row | {"Answer": ""} for row in rows]))
    assert main([str(folder / "predictions.json"), str(folder / "silent.json"), "--references", str(folder / "tree"),
                 "--out", str(folder / "both"), "--rules", "strict,official", "--bootstrap", "50", "--images", "0",
                 "--force"]) == 0  # fmt: skip
    return folder / "both" / "report.html"


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[tuple[Any, list[str]]]:
    """The page, open, and what went wrong so far: dialogs, script errors, refused or outside requests."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        trouble: list[str] = []
        page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: trouble.append(f"error {error}"))
        page.on("console", lambda message: trouble.append(f"console {message.text}"))
        page.on("popup", lambda popup: trouble.append(f"popup {popup.url}"))
        context.route(re.compile("^(?!data:)"), lambda route: (trouble.append(f"fetch {route.request.url}"),
                                                               route.continue_()))  # fmt: skip
        page.goto(report.as_uri())
        assert trouble == [f"fetch {report.as_uri()}"]
        trouble.clear()
        yield page, trouble


def test_hostile_text_stays_text_and_nothing_is_fetched(opened: tuple[Any, list[str]]) -> None:
    page, trouble = opened
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    assert trouble == []
    assert page.evaluate("[...document.scripts].map((script) => script.type)") == ["application/json", ""]
    for selector in ("iframe", "img", "object", "embed", "base", "form[action]", "main a:not([href^='#'])"):
        assert page.locator(selector).count() == 0, selector
    attributes = (
        "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames()).filter((n) => /^on/.test(n))"
    )
    assert page.evaluate(attributes) == []
    assert page.locator("style").count() == 1 and page.title() == "Scores: predictions"
    shown = page.locator("#samples").inner_text()
    for text in ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "&lt;b&gt;",
                 "⟨U+202E⟩gpj.exe⟨U+2066⟩", "⟨U+2028⟩alert(1)//", "⟨U+0000⟩⟨U+0007⟩⟨U+001B⟩[31m",
                 "characters…]"):  # fmt: skip
        assert text in shown, text
    unseen = re.compile("[\u202a-\u202e\u2066-\u2069\u2028\u2029\x00]|\u0301{5}")
    assert not unseen.search(page.evaluate("document.documentElement.textContent"))


def test_script_that_was_not_there_at_writing_does_not_run(opened: tuple[Any, list[str]]) -> None:
    page, trouble = opened
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.injected = true";
        document.body.append(script, Object.assign(new Image(), {src: "https://example.org/x.png"}));
        document.body.insertAdjacentHTML("beforeend", "<b onclick='window.injected = true' id='inline'>b</b>");
        document.getElementById("inline").click();
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("window.injected") is None
    assert not any(line.startswith("fetch") for line in trouble)
    assert any("Content Security Policy" in line for line in trouble)


def found(page: Any) -> int:
    page.wait_for_timeout(250)  # typing is collected before it is searched for
    return int(page.locator("#found").inner_text().split()[0].replace(",", ""))


def test_filters_narrow_the_failures(opened: tuple[Any, list[str]]) -> None:
    page, trouble = opened
    everything = found(page)
    assert everything > 200
    assert page.locator(".sample").count() == 25
    page.select_option("select[name=task]", "counting")
    assert found(page) == 59  # all but the one that says 12
    assert set(page.locator(".sample .badge").all_inner_texts()) == {"off the number"}
    page.fill("input[name=text]", "17 CELLS")
    assert found(page) == 1
    assert page.locator(".sample pre").all_inner_texts() == ["12", "17 cells"]
    page.fill("input[name=text]", "no such words")
    assert found(page) == 0 and page.locator(".sample").count() == 0 and not page.locator("#more").is_visible()
    page.fill("input[name=text]", "")
    page.select_option("select[name=task]", "")
    page.select_option("select[name=dataset]", DATASET)
    assert found(page) == everything
    page.select_option("select[name=reason]", index=1)
    reason = page.locator("select[name=reason]").input_value()
    assert 0 < found(page) < everything
    assert set(page.locator(".sample .badge").all_inner_texts()) == {reason}
    page.select_option("select[name=reason]", "")
    assert found(page) == everything
    page.locator("#more").click()
    assert page.locator(".sample").count() == 50
    assert trouble == []


def test_boxes_can_be_hidden_and_absent_images_say_so(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    truth, predicted = page.locator(".images .truth").first, page.locator(".images .predicted").first
    assert truth.is_visible() and predicted.is_visible()
    page.locator("#show-truth").uncheck()
    assert not truth.is_visible() and predicted.is_visible()
    captions = page.locator(".images figcaption").all_inner_texts()
    absent = sum("No image: it is not there" in caption for caption in captions)
    assert len(captions) == 24 and 0 < absent == len(captions) - page.locator(".images image").count()
    assert f"{absent} of 24 images absent" in page.locator("main").inner_text()
    assert any("leaves the image" in caption for caption in captions)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("which", ["report", "side_by_side"])
def test_page_is_accessible_and_no_wider_than_the_screen(
    browser: Any, request: pytest.FixtureRequest, which: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    address = request.getfixturevalue(which).as_uri()
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        results = Axe().run(page).response
    violations = [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for violation in results["violations"]
        for node in violation["nodes"][:3]
    ]
    assert violations == [], violations
