"""What is odd about rows is found and listed; what is left out or mended was asked for, and is listed too."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.rows import spread
from tests.support.flare_tree import convert, converted, row, write_tree

MAP = "Return a JSON mapping chromosome identifiers to boxes."


def rows(dataset: str, *answers: Any, **changes: Any) -> list[dict[str, Any]]:
    """Rows of a dataset with these answers, each with an image of its own."""
    return [row(dataset, ImageName=f"imagesTr/{i}.png", Answer=answer, **changes) for i, answer in enumerate(answers)]


def codes(report: dict[str, Any], action: str = "kept") -> list[tuple[int, str]]:
    return [(finding["index"], finding["code"]) for finding in report["findings"] if finding["action"] == action]


DEEP = '{"1": [[1, 2, 3, 4]], "2": ' + "[" * 3000 + "]" * 3000 + "}"
# Reason -> (dataset, answers, findings by row). The first answer is always a good one.
REASONS: dict[str, tuple[str, list[Any], list[tuple[int, str]]]] = {
    "letter that is no option": ("retino", ["A", "Q"], [(1, "LETTER_NOT_OPTION")]),
    "several letters": ("retino", ["A", "A B"], [(1, "SEVERAL_LETTERS")]),
    "text instead of letter": ("retino", ["A", "Mild NPDR"], [(1, "OPTION_TEXT")]),
    "letter without options": ("CMMD", ["Luminal a", "A"], [(1, "LETTER_WITHOUT_OPTIONS")]),
    "boxes on a non-box task": ("IU_XRay", ["No acute disease.", "See [[1, 2, 3, 4]]"], [(1, "BOXES_UNEXPECTED")]),
    "zero area": ("BUSI-det", ["[[1, 2, 3, 4]]", "[[5, 5, 5, 9]]"], [(1, "ZERO_AREA_BOX")]),
    "inverted": ("BUSI-det", ["[[1, 2, 3, 4]]", "[[9, 9, 5, 5]]"], [(1, "INVERTED_BOX")]),
    "0 to 1": ("BUSI-det", ["[[1, 2, 3, 4]]", "[[0.1, 0.2, 0.3, 0.9]]"], [(1, "COORDINATE_RANGE")]),
    "negative number": ("boneresorption", ["1.5", "-3"], [(1, "NEGATIVE_NUMBER")]),
    "count with a fraction": ("neurips22cell", ["11", "11.5"], [(1, "COUNT_NOT_WHOLE")]),
    "outlier": ("boneresorption", [*map(str, range(20, 40)), "2085.5"], [(20, "NUMBER_OUTLIER")]),
    "large, but not ten times the median": ("boneresorption", [*map(str, range(20, 40)), "190"], []),
    "counting is exempt": ("neurips22cell", [*map(str, range(20, 40)), "1664"], []),
    "one word": ("IU_XRay", ["No acute disease.", "Normal."], [(1, "REPORT_SHORT")]),
    "malformed map": ("chromosome", ['{"1": [[1, 2, 3, 4]]}', "{'1': [[1, 2, 3, 4]]}"], [(1, "MAP_MALFORMED")]),
    "deep nesting": ("chromosome", ['{"1": [[1, 2, 3, 4]]}', DEEP], [(1, "MAP_MALFORMED")]),
    "normal beside findings": ("chestdr", ["Pneumonia", "Normal, Fibrosis"], [(1, "NORMAL_WITH_FINDINGS")]),
    "label twice": ("chestdr", ["Pneumonia", "Fibrosis, Nodule, fibrosis"], [(1, "LABEL_REPEATED")]),
    "singleton class": ("retino", [*"AAAAABBBBB", "C"], [(10, "CLASS_SINGLETON")]),
    "few rows": ("retino", ["A", "A", "C"], []),
}  # fmt: skip


@pytest.mark.subprocess
@pytest.mark.parametrize(("dataset", "answers", "expected"), REASONS.values(), ids=REASONS.keys())
def test_every_reason_is_a_finding_and_changes_nothing(
    tmp_path: Path, dataset: str, answers: list[Any], expected: list[tuple[int, str]]
) -> None:
    write_tree(tmp_path / "tree", {dataset: rows(dataset, *answers)})
    report = convert(tmp_path / "tree", tmp_path / "out")
    assert [found for found in codes(report) if found[1] != "ANSWER_UNUSUAL"] == expected
    assert report["counts"]["kept"] == len(answers)
    assert report["changes"] == []
    assert [record.source.answer for record in converted(tmp_path / "out", "all_train")] == answers


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param({}, [(1, "ROW_REPEATED")], id="the same"),
        pytest.param({"Answer": "B"}, [(0, "ROWS_CONTRADICT"), (1, "ROWS_CONTRADICT")], id="another answer"),
        pytest.param({"Answer": "B", "Question": "Else? A: a, B: b"}, [], id="another question"),
        pytest.param({"Answer": "B", "ImageName": "imagesTr/x.png"}, [], id="another image"),
    ],
)
def test_rows_that_repeat_or_contradict(
    tmp_path: Path, second: dict[str, Any], expected: list[tuple[int, str]]
) -> None:
    write_tree(tmp_path / "tree", {"BUSI": [row("BUSI"), row("BUSI", **second)]})
    assert codes(convert(tmp_path / "tree", tmp_path / "out")) == expected


class TestExclude:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        write_tree(tmp_path / "tree", {"retino": rows("retino", "A", "Q", "A B"), "BUSI": rows("BUSI", "A")})
        return tmp_path / "tree"

    @pytest.mark.subprocess
    def test_the_table_for_review_is_what_is_handed_back(self, tree: Path, tmp_path: Path) -> None:
        convert(tree, tmp_path / "out")
        with (tmp_path / "out/audit.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert [(line["code"], line["answer"]) for line in table] == [
            ("LETTER_NOT_OPTION", " Q"), ("SEVERAL_LETTERS", " A B"),
        ]  # fmt: skip
        table[1]["exclude"] = "x"
        with (tmp_path / "reviewed.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0].keys())
            writer.writeheader()
            writer.writerows(table)
        report = convert(tree, tmp_path / "out", "--exclude-audit", str(tmp_path / "reviewed.csv"))
        assert codes(report, "dropped") == [(2, "EXCLUDED")]
        assert report["counts"] == {"in": 4, "kept": 3, "dropped": 1, "quarantined": 0}

    @pytest.mark.subprocess
    @pytest.mark.parametrize(
        "write",
        [
            pytest.param(
                lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), id="byte order mark, CRLF"
            ),
            pytest.param(lambda text: text.replace(",", ";").encode(), id="semicolons"),
            pytest.param(lambda text: text.replace(",", "\t").encode(), id="tabs"),
            pytest.param(lambda text: text.replace("\n", "\r").encode(), id="CR"),
        ],
    )
    def test_tables_as_spreadsheets_save_them(self, tree: Path, tmp_path: Path, write: Callable[[str], bytes]) -> None:
        text = '"code","id","exclude"\nX,flare/training/Retinography/retino/000001,\nX,{},yes\n'
        (tmp_path / "t.csv").write_bytes(write(text.format("flare/training/Retinography/retino/000002")))
        report = convert(tree, tmp_path / "out", "--exclude-audit", str(tmp_path / "t.csv"))
        assert codes(report, "dropped") == [(2, "EXCLUDED")]

    def mark(self, table: Path) -> None:
        """Mark the first row, in place."""
        heading, first, *rest = table.read_text().splitlines()
        table.write_text("\n".join([heading, f"x{first}", *rest, ""]))

    @pytest.mark.subprocess
    def test_a_table_that_is_marked_where_it_lies_can_be_handed_back_again(self, tree: Path, tmp_path: Path) -> None:
        table = tmp_path / "out/audit.csv"
        convert(tree, tmp_path / "out")
        self.mark(table)
        for _ in range(2):
            report = convert(tree, tmp_path / "out", "--exclude-audit", str(table), "--seed", "1")
            assert codes(report, "dropped") == [(1, "EXCLUDED")]
        written = table.read_bytes()
        convert(tree, tmp_path / "out", "--exclude-audit", str(table), "--seed", "2")
        assert table.read_bytes() == written

    @pytest.mark.subprocess
    def test_marks_that_a_run_does_not_follow_are_kept_beside(
        self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        convert(tree, tmp_path / "out")
        self.mark(tmp_path / "out/audit.csv")
        marked = (tmp_path / "out/audit.csv").read_bytes()
        convert(tree, tmp_path / "out")
        assert (tmp_path / "out/audit.marked.csv").read_bytes() == marked
        assert "audit.marked.csv" in "".join(capsys.readouterr().err.split())

    @pytest.mark.subprocess
    def test_a_contradiction_that_a_person_resolved_is_none_any_more(self, tmp_path: Path) -> None:
        write_tree(tmp_path / "tree", {"retino": [row("retino", Answer="A"), row("retino", Answer="B")]})
        (tmp_path / "ids").write_text("flare/training/Retinography/retino/000000\n")
        report = convert(tmp_path / "tree", tmp_path / "out", "--clean", "--exclude-audit", str(tmp_path / "ids"))
        assert [item.target for item in converted(tmp_path / "out", "all_train")] == ["B"]
        assert codes(report) == [(0, "ROWS_CONTRADICT")]

    @pytest.mark.subprocess
    def test_a_plain_list(self, tree: Path, tmp_path: Path) -> None:
        (tmp_path / "ids").write_text("# reviewed\nflare/training/Retinography/retino/000001  a typo\n")
        report = convert(tree, tmp_path / "out", "--exclude-audit", str(tmp_path / "ids"))
        assert codes(report, "dropped") == [(1, "EXCLUDED")]

    @pytest.mark.subprocess
    def test_a_list_may_name_rows_that_the_limit_leaves_out(self, tree: Path, tmp_path: Path) -> None:
        (tmp_path / "ids").write_text("".join(f"flare/training/Retinography/retino/00000{row}\n" for row in range(3)))
        report = convert(tree, tmp_path / "out", "--limit", "2", "--exclude-audit", str(tmp_path / "ids"))
        assert (report["counts"]["in"], report["counts"]["kept"]) == (3, 1)

    @pytest.mark.subprocess
    def test_a_list_may_name_datasets_that_are_not_converted(self, tree: Path, tmp_path: Path) -> None:
        (tmp_path / "ids").write_text("flare/training/Retinography/retino/000001\n")
        report = convert(tree, tmp_path / "out", "--datasets", "BUSI", "--exclude-audit", str(tmp_path / "ids"))
        assert report["counts"]["kept"] == 1

    @pytest.mark.subprocess
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            pytest.param("flare/training/Retinography/retino/000009\n", "no such records", id="row that is not there"),
            pytest.param("starter/training/Retinography/retino/000001\n", "or --name", id="another name"),
            pytest.param("id,code\nx,y\n", "columns exclude and id", id="other table"),
            pytest.param(None, "No such file", id="no file"),
        ],
    )
    def test_lists_that_cannot_be_followed(
        self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
    ) -> None:
        if content is not None:
            (tmp_path / "ids").write_text(content)
        assert convert(tree, tmp_path / "out", "--exclude-audit", str(tmp_path / "ids"), code=2) == {}
        assert message in " ".join(capsys.readouterr().err.split())


# What is cleaned -> (dataset, rows or answers, answer after; None: dropped).
CLEANED: dict[str, tuple[str, str, str | None]] = {
    "zero-area box beside another": ("BUSI-det", "[[94, 5, 99, 72], [68, 10, 68, 10]]", "[[94, 5, 99, 72]]"),
    "nothing but a zero-area box": ("BUSI-det", "[[68, 10, 68, 10]]", None),
    "inverted box": ("BUSI-det", "[[30, 40, 3, 4]]", "[[3, 4, 30, 40]]"),
    "inverted line": ("BUSI-det", "[[30, 40, 3, 40], [9, 9, 1, 1]]", "[[1, 1, 9, 9]]"),
    "zero-area box in a map": (
        "chromosome", '{"1": [[1, 2, 3, 4]], "X": [[5, 5, 5, 5], [6, 6, 9, 9]]}',
        '{"1":[[1,2,3,4]],"X":[[6,6,9,9]]}',
    ),
    "names in a list": (
        "BUSI-det", '[{"label": "lesion", "bbox": [30, 40, 3, 4]}]', '{"lesion":[[3,4,30,40]]}',
    ),
    "names of some": (
        "BUSI-det", '[{"label": "lesion", "bbox": [30, 40, 3, 4]}, [1, 2, 5, 6]]',
        '[{"bbox_2d":[3,4,30,40],"label":"lesion"},{"bbox_2d":[1,2,5,6]}]',
    ),
    "T where D is no tumour": ("endo", "T", "T"),
    "endo's A B": ("endo", "A B", None),
    "T elsewhere": ("retino", "T", "T"),
}  # fmt: skip


class TestClean:
    @pytest.mark.subprocess
    @pytest.mark.parametrize(("dataset", "before", "after"), CLEANED.values(), ids=CLEANED.keys())
    def test_before_and_after(self, tmp_path: Path, dataset: str, before: str, after: str | None) -> None:
        write_tree(tmp_path / "tree", {dataset: rows(dataset, before), "BUSI": rows("BUSI", "A")})
        report = convert(tmp_path / "tree", tmp_path / "out", "--clean", "--frame", "pixel", "--box-style", "flare")
        kept = [record for record in converted(tmp_path / "out", "all_train") if record.dataset == dataset]
        where = next(part["category"] for part in report["datasets"] if part["dataset"] == dataset)
        if before == after:
            assert report["changes"] == []
        else:
            (change,) = report["changes"]
            assert (change["before"], change["after"]) == (before, after)
            assert change["id"] == f"flare/training/{where}/{dataset}/000000"
            assert (0, "CLEANED") in codes(report, "dropped" if after is None else "kept")
        assert report["counts"] == {"in": 2, "kept": 1 + len(kept), "dropped": 1 - len(kept), "quarantined": 0}
        for record in kept:  # the source's own answer travels on, untouched
            assert (record.target, record.source.answer) == (after, before)

    @pytest.mark.subprocess
    def test_names_of_a_list_of_boxes_are_kept(self, tmp_path: Path) -> None:
        write_tree(tmp_path / "tree", {"chromosome": rows("chromosome", '[{"label": "X", "bbox": [80, 60, 20, 10]}]')})
        convert(tmp_path / "tree", tmp_path / "out", "--clean")
        (kept,) = converted(tmp_path / "out", "all_train")
        assert kept.target == '{"X":[[200,125,800,750]]}'

    @pytest.mark.subprocess
    @pytest.mark.parametrize(
        "question", ["Which? A: Ulcer, B: Erosion, C: Polyp, D: Tumor, E: None", "Which one is it?"]
    )
    def test_endo_letters(self, tmp_path: Path, question: str) -> None:
        write_tree(tmp_path / "tree", {"endo": rows("endo", "T", "A B", "C", Question=question)})
        report = convert(tmp_path / "tree", tmp_path / "out", "--clean")
        assert [(change["before"], change["after"]) for change in report["changes"]] == [("T", "D"), ("A B", None)]
        assert [record.target for record in converted(tmp_path / "out", "endo_train")] == ["D", "C"]

    @pytest.mark.subprocess
    def test_outlier_and_contradictions_are_dropped(self, tmp_path: Path) -> None:
        questions = rows("boneresorption", *range(20, 40), 2085.5)
        questions.append(questions[3] | {"Answer": 99})
        write_tree(tmp_path / "tree", {"boneresorption": questions})
        report = convert(tmp_path / "tree", tmp_path / "out", "--clean")
        assert [(change["id"][-2:], change["before"], change["after"]) for change in report["changes"]] == [
            ("03", "23", None), ("20", "2085.5", None), ("21", "99", None),
        ]  # fmt: skip
        assert report["counts"] == {"in": 22, "kept": 19, "dropped": 3, "quarantined": 0}

    @pytest.mark.subprocess
    @pytest.mark.parametrize("folder", ["validation-public", "validation-hidden", "testing"])
    def test_other_splits_are_left_alone_unless_named(self, tmp_path: Path, folder: str) -> None:
        name = {"validation-public": "val", "validation-hidden": "hidden", "testing": "test"}[folder]
        write_tree(tmp_path / "tree", {"retino": [row("retino", folder=folder, Answer="A B")]}, folder)
        assert convert(tmp_path / "tree", tmp_path / "out", "--clean")["counts"]["kept"] == 1
        report = convert(tmp_path / "tree", tmp_path / "out", "--clean", "--clean-splits", "train", name)
        assert report["counts"]["dropped"] == 1

    @pytest.mark.subprocess
    def test_without_it_nothing_is_changed(self, tmp_path: Path) -> None:
        write_tree(tmp_path / "tree", {"endo": rows("endo", "T", "A B")})
        report = convert(tmp_path / "tree", tmp_path / "out")
        assert (report["counts"]["kept"], report["changes"]) == (2, [])

    @pytest.mark.subprocess
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--clean-splits", "val"], "needs --clean"),
            (["--clean", "--clean-splits", "trian"], "did you mean 'train'"),
        ],
    )
    def test_options_that_cannot_be_followed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
    ) -> None:
        write_tree(tmp_path / "tree", {"BUSI": [row("BUSI")]})
        assert convert(tmp_path / "tree", tmp_path / "out", *options, code=2) == {}
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("count", "places"),
    [(None, "abcdefgh"), (8, "abcdefgh"), (9, "abcdefgh"), (4, "acfh"), (3, "aeh"), (2, "ah"), (1, "a")],
)
def test_images_are_spread_evenly(count: int | None, places: str) -> None:
    assert "".join(spread(tuple("abcdefgh"), count)) == places


@pytest.mark.subprocess
def test_fewer_and_numbered_images(tmp_path: Path) -> None:
    names = [f"imagesTr/frame-{i}.png" for i in range(5)]
    write_tree(tmp_path / "tree", {"endo": [row("endo", ImageName=names, Answer="A")], "BUSI": [row("BUSI")]})
    report = convert(tmp_path / "tree", tmp_path / "out", "--max-images-per-sample", "3", "--number-images")
    (several,) = converted(tmp_path / "out", "endo_train")
    (one,) = converted(tmp_path / "out", "busi_train")
    assert [Path(path).name for path in several.images] == ["frame-0.png", "frame-2.png", "frame-4.png"]
    assert several.conversations[0].value.startswith("Image-1: <image>\nImage-2: <image>\nImage-3: <image>\nFinding?")
    assert several.question == row("endo")["Question"]
    assert one.conversations[0].value.startswith("<image>\nQuestion:")
    assert [finding["code"] for finding in report["findings"]] == ["IMAGES_THINNED"]
    assert json.loads((tmp_path / "out/manifest.json").read_text())["options"]["max_images_per_sample"] == 3
