"""The page of scores and the Markdown tables as files: what is in them, how large, and the same bytes every time."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.numbers import interval, number
from evaluation.page import failures
from evaluation.page.text import script_json, shortened, visible
from evaluation.run import main
from medvl.images import decode, shown
from tests.support.scored_tree import build_tree, write_json


def write_run(folder: Path, count: int = 40) -> tuple[Path, Path]:
    """A tree with `count` questions of each of three kinds, and predictions half of which are wrong."""
    rows: list[dict[str, Any]] = []
    for index in range(count):
        for task, question, answer in (
            ("classification", "Which? A: Yes, B: No", "AB"[index % 2]),
            ("detection", "Box the lesion.", f"[[10, 20, {30 + index}, 60]]"),
            ("regression", "How much, in percent?", index / 2),
        ):
            rows.append({"TaskType": task, "Modality": "Xray", "ImageName": f"imagesVal/{index}.png",
                         "Question": question, "Answer": answer, "Split": "val"})  # fmt: skip
    tree = folder / "tree" / "validation-public" / "Xray" / "made_up"
    tree.mkdir(parents=True)
    (tree / "made_up_questions_val.json").write_text(json.dumps(rows))
    wrong = ["B", "I cannot tell.", "[[500, 500, 900, 900]]", "", "17"]
    answered = [row | ({"Answer": wrong[place % 5]} if place % 2 else {}) for place, row in enumerate(rows)]
    (folder / "predictions.json").write_text(json.dumps(answered))
    return folder / "predictions.json", folder / "tree"


def scored(folder: Path, *more: str, count: int = 40) -> str:
    predictions, tree = write_run(folder, count)
    arguments = [str(predictions), "--references", str(tree), "--out", str(folder / "out"), "--bootstrap", "20"]
    assert main([*arguments, "--force", *more]) == 0
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


def embedded(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="failures-data">(.*?)</script>', page, re.DOTALL)
    assert found
    records: list[dict[str, Any]] = json.loads(found[1])
    return records


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    arguments = ["--rules", "strict,official"]
    first = scored(tmp_path, *arguments)
    predictions, tree, out = tmp_path / "predictions.json", tmp_path / "tree", tmp_path / "out"
    assert main([str(predictions), "--references", str(tree), "--out", str(out), "--bootstrap", "20", "--force",
                 *arguments]) == 0  # fmt: skip
    assert (out / "report.html").read_text(encoding="utf-8") == first


def test_page_holds_every_sample_that_lost_points_and_none_other(tmp_path: Path) -> None:
    page = scored(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "out" / "per_sample.jsonl").read_text().splitlines()]
    lost = {line["id"] for line in lines if line["status"] != "valid"
            or (line["score"] > 0 if line["task"] == "regression" else line["score"] < 1)}  # fmt: skip
    assert {record["id"] for record in embedded(page)} == lost
    assert len(embedded(page)) == len(lost) > 0


@pytest.mark.slow
def test_large_input_makes_a_small_page_that_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = scored(tmp_path, count=1500)
    assert len(embedded(page)) == failures.MOST_SAMPLES == 2000
    total = int(re.search(r"([\d,]+) samples lost points", page)[1].replace(",", ""))  # type: ignore[index]
    assert f"{total - 2000:,} are not shown" in page
    per_task = [sum(record["task"] == task for record in embedded(page))
                for task in ("classification", "detection", "regression")]  # fmt: skip
    assert min(per_task) > 500  # every task has its share of the cap
    assert len(page) < 2_000_000


@pytest.mark.slow
def test_images_are_limited_small_and_their_absence_is_said(tmp_path: Path) -> None:
    page = scored(tmp_path / "without", "--images", "5")
    assert page.count("<figure") == 5 and page.count("No image: it is not there") == 5
    assert "5 of 5 images absent" in page and "data:image" not in page
    predictions, tree = write_run(tmp_path / "with")
    folder = tree / "validation-public" / "Xray" / "made_up" / "imagesVal"
    folder.mkdir()
    for index in range(40):
        Image.effect_noise((800, 600), 80).save(folder / f"{index}.png")
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert main([str(predictions), "--references", str(tree), "--out", str(tmp_path / "out"), "--force",
                 "--bootstrap", "0", "--images", "40"]) == 0  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    sizes = [len(data) for data in re.findall(r'href="data:image/jpeg;base64,([^"]*)"', page)]
    assert len(sizes) == page.count("<figure") - page.count("No image: it cannot be read") > 20
    assert max(sizes) < 200_000
    assert 'viewBox="0 0 800 600"' in page  # boxes stay in pixels of the original


def test_samples_that_rules_leave_out_are_not_called_wrong(tmp_path: Path) -> None:
    reasons = {record["reason"] for record in embedded(scored(tmp_path, "--rules", "official"))
               if record["task"] == "detection" and record["score"] is None}  # fmt: skip
    assert reasons == {"left out by the rules"}


def test_page_has_no_address_to_fetch_from(tmp_path: Path) -> None:
    page = scored(tmp_path)
    assert re.findall(r'(?:src|href|action|srcset|data)="(?!data:|#)[^"]*"', page) == []
    assert "http://" not in page and "https://" not in page
    policy = html.unescape(re.findall(r'Policy" content="([^"]*)"', page)[0])
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy


def test_no_page_and_no_images_on_request(tmp_path: Path) -> None:
    predictions, tree = write_run(tmp_path)
    arguments = [str(predictions), "--references", str(tree), "--out", str(tmp_path / "out"), "--force"]
    assert main([*arguments, "--no-page"]) == 0
    assert not (tmp_path / "out" / "report.html").exists()
    assert main([*arguments, "--images", "0"]) == 0
    assert "<figure" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_several_files_have_a_page_each_and_one_for_all(tmp_path: Path) -> None:
    predictions, tree = write_run(tmp_path)
    other = tmp_path / "perfect.json"
    other.write_text(json.dumps(json.loads(next(tree.rglob("*.json")).read_text())))
    out = tmp_path / "out"
    assert main([str(predictions), str(other), "--references", str(tree), "--out", str(out), "--force"]) == 0
    together = (out / "report.html").read_text(encoding="utf-8")
    for name in ("predictions", "perfect"):
        assert f'href="{name}/report.html"' in together
        assert (out / name / "report.html").is_file()
    assert 'class="best">1.000' in together and "failures-data" not in together
    assert "every sample is perfect" in (out / "perfect" / "report.html").read_text(encoding="utf-8")


def test_baseline_has_its_table_with_verdicts(tmp_path: Path) -> None:
    predictions, tree = write_run(tmp_path)
    perfect = tmp_path / "perfect.json"
    perfect.write_text(next(tree.rglob("*.json")).read_text())
    arguments = ["--references", str(tree), "--out", str(tmp_path / "out"), "--bootstrap", "200", "--force"]
    assert main([str(predictions), *arguments, "--baseline", str(perfect)]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    table = re.findall(r'Table: Differences to the baseline"(.*?)</table>', page, re.DOTALL)[0]
    assert table.count(">worse<") >= 3 and ">better<" not in table
    assert main([str(perfect), *arguments, "--baseline", str(perfect)]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    table = re.findall(r'Table: Differences to the baseline"(.*?)</table>', page, re.DOTALL)[0]
    assert "not told apart" in table and ">better<" not in table and ">worse<" not in table


def test_boxes_in_another_frame_are_the_first_thing_said(tmp_path: Path) -> None:
    predictions, tree = write_run(tmp_path)
    images = next(tree.rglob("*.json")).parent / "imagesVal"
    images.mkdir()
    rows = json.loads(next(tree.rglob("*.json")).read_text())
    for index, row in enumerate(row for row in rows if row["TaskType"] == "detection"):
        Image.new("L", (250, 200)).save(images / f"{index}.png")
        left, top, right, bottom = json.loads(row["Answer"])[0]
        row["Answer"] = f"[[{left * 4}, {top * 5}, {right * 4}, {bottom * 5}]]"
    predictions.write_text(json.dumps(rows))
    assert main([str(predictions), "--references", str(tree), "--out", str(tmp_path / "out")]) == 0
    main_part = (tmp_path / "out" / "report.html").read_text(encoding="utf-8").partition("<main")[2]
    first = re.sub(r"<[^>]*>|\s+", " ", main_part[: main_part.index("</li>")])
    assert re.search(r"Boxes of\s+made_up\s+\(detection\) fit the references far better as\s+norm1000", first), first
    assert "--frame norm1000" in main_part


def test_markdown_is_two_tables_whose_cells_hold_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, tree = write_run(tmp_path)
    (tree / "validation-public" / "Xray" / "made_up").rename(tree / "validation-public" / "Xray" / "a|b](x)<i>")
    assert main([str(predictions), "--references", str(tree), "--out", str(tmp_path / "out"), "--force",
                 "--markdown"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    tables = [block.splitlines() for block in re.split(r"\n\n", printed) if block.startswith("|")]
    assert [table[0] for table in tables] == [
        "| task | metric | pooled | macro | n | invalid |",
        "| dataset | task | metric | value | n | invalid |",
    ]
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert r"a\|b\]\(x\)\<i\>" in printed and "<i>" not in printed.replace(r"\<i\>", "")


@pytest.mark.parametrize(("text", "shown"), [
    ("plain\ttext\nsecond line", "plain\ttext\nsecond line"),  # what may stay
    ("\u202egpj.exe", "⟨U+202E⟩gpj.exe"),  # reorders what follows
    ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),  # nothing to see
    ("\x1b[31mred\x00", "⟨U+001B⟩[31mred⟨U+0000⟩"),  # terminal controls
    ("Z" + "\u0301" * 90, "Z" + "\u0301" * 4),  # marks piled up
    ("\ud800", "⟨U+D800⟩"),  # half a surrogate pair, which UTF-8 cannot hold
    ("café, 東京, عربي", "café, 東京, عربي"),  # other scripts stay
])  # fmt: skip
def test_invisible_characters_are_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_long_texts_keep_both_ends() -> None:
    assert shortened("a" * 100 + "b" * 100, 40) == "a" * 30 + " […160 characters…] " + "b" * 10
    assert len(visible("x" * 1_000_000, 300)) < 340


def test_json_in_a_script_element_cannot_end_it() -> None:
    hostile = ["</script>", "<!--", "\u2028", "&", "]]>"]
    text = str(script_json(hostile))
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == hostile


@pytest.mark.parametrize(("value", "shown"), [
    (None, "-"), (0.87349, "0.873"), (1.0, "1.000"), (-0.25, "-0.250"), (9.9996, "10.000"), (7.0, "7"),
    (271.47, "271.5"), (1664.0, "1,664"), (3e18, "3e+18"),
])  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_interval_has_as_many_decimals_at_both_ends() -> None:
    assert interval({"ci95": [8.794, 18.25]}) == "8.8 to 18.2"
    assert interval({"ci95": [1.0, 12.0]}) == "1 to 12" and interval({"ci95": [0.0, 1.0]}) == "0.000 to 1.000"
    assert interval({"ci95": None}) == "" and interval(None) == ""


@pytest.mark.parametrize(("rules", "said"), [("strict", True), ("strict,official", True), ("official", False)])
def test_the_page_says_what_an_unreadable_answer_costs(rules: str, said: bool, tmp_path: Path) -> None:
    page = scored(tmp_path, "--rules", rules, count=5)
    assert ("counts in every F1, micro and macro, as one wrong box or label besides those it misses" in page) is said


NO_NUMBERS = {
    "unparsable boxes, official": ("detection", "???", "official"),
    "unparsable instances, official": ("instance_detection", "{", "official"),
    "counts that overflow": ("counting", "1e308", "strict"),
    "counts that overflow, official": ("counting", "1e308", "official,strict"),
    "negative ones": ("regression", "-1e308", "strict"),
    "boxes that overflow": ("detection", "[[-1e308, -1e308, 1e308, 1e308]]", "strict,official"),
}


@pytest.mark.parametrize(("task", "answer", "rules"), NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_drawn(
    task: str, answer: str, rules: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    rows = build_tree(tmp_path / "tree", with_images=True)
    rows = [row | ({"Answer": answer} if row["TaskType"].lower() == task else {}) for row in rows]
    predictions = write_json(tmp_path / "predictions.json", rows)
    assert main([str(predictions), "--references", str(tmp_path / "tree"), "--out", str(tmp_path / "out"),
                 "--rules", rules, "--bootstrap", "20", "--force"]) == 0  # fmt: skip
    assert "</html>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []


@pytest.mark.parametrize("files", [1, 2])
def test_a_page_that_cannot_be_drawn_costs_nothing_else(
    files: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> bytes:
        raise OverflowError("cannot convert float infinity to integer")

    predictions, tree = write_run(tmp_path)
    out = tmp_path / "out"
    monkeypatch.setattr("evaluation.results.render_page", broken)
    out.mkdir()
    (out / "report.html").write_text("of an earlier run")
    assert main([*[str(predictions)] * files, "--references", str(tree), "--out", str(out), "--bootstrap", "0",
                 "--force"]) == 0  # fmt: skip
    printed = capsys.readouterr()
    assert "balanced_accuracy" in printed.out
    said = f"note: {out / 'report.html'} is not there, it could not be drawn (OverflowError: cannot convert float"
    assert said in printed.err and not (out / "report.html").exists()
    folders = [out] if files == 1 else [folder for folder in out.iterdir() if folder.is_dir()]
    assert len(folders) == files
    for folder in folders:
        assert {"metrics.json", "per_sample.jsonl", "diagnosis.json"} == {path.name for path in folder.iterdir()}


def test_images_of_16_bits_are_windowed_as_in_conversion(tmp_path: Path) -> None:
    predictions, tree = write_run(tmp_path, 1)
    folder = next(tree.rglob("*.json")).parent / "imagesVal"
    folder.mkdir()
    values = np.linspace(20_000, 50_000, 200 * 100, dtype=np.uint16).reshape(100, 200)
    Image.fromarray(values).save(folder / "0.png")
    out = tmp_path / "out"
    assert main([str(predictions), "--references", str(tree), "--out", str(out), "--force", "--bootstrap", "0"]) == 0
    data = re.findall(r"data:image/jpeg;base64,([\w+/=]+)", (out / "report.html").read_text(encoding="utf-8"))
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[0]))).convert("L"), dtype=float)
    expected = np.asarray(shown(decode(folder / "0.png")), dtype=float)
    assert drawn.shape == expected.shape == (100, 200)
    assert np.abs(drawn - expected).max() < 12 and expected.min() == 0 and expected.max() == 255
