"""M3LLM's data: training files, the meta file, stage records and PMC-MI-Bench become records, or coded findings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.references import read_references
from medvl.sharegpt import Record, read_records
from medvl.sources.pmc_position import centre, in_words, relation_of, relation_said
from medvl.sources.pmc_sets import kind_named
from preprocess import pmc

FIGURE, PANELS = "PMC1_f1.jpg", [f"PMC1_f1.jpg_{place}.jpg" for place in range(3)]
NAMES = {
    "qa-puretext", "qa-bbox", "qa-single_subimage", "qa-multiple_subimage", "qa-subimage-option", "qa-compound-image",
}  # fmt: skip


def turns(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]


def row(prompt: str, answer: str = "A nodule in the lung.", **more: Any) -> dict[str, Any]:
    return {"id": "1", "conversations": turns(prompt, answer), **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `images`: one figure of 400 x 200 and its three panels."""
    (tmp_path / "images").mkdir()
    for place, name in enumerate([FIGURE, *PANELS]):
        Image.new("RGB", (400, 200) if name == FIGURE else (90, 60), (40 * place, 9, 9)).save(
            tmp_path / "images" / name
        )
    return tmp_path


@pytest.fixture
def convert(folder: Path) -> Callable[..., int]:
    """Run the script on a file or folder; what it writes goes to `out`."""

    def run(data: Path, *more: str) -> int:
        words = [str(data), "--out", str(folder / "out"), "--dataset-info", str(folder / "info.json"), "--workers",
                 "1", "--contamination", "off", *more]  # fmt: skip
        return pmc.main(words)

    return run


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def records(folder: Path, entry: str = "pmc_all_train") -> list[Record]:
    return read_records(folder / "out" / f"{entry}.json")


def findings(folder: Path) -> list[tuple[str, str, int]]:
    """Code, action and place of every finding."""
    report = json.loads((folder / "out" / "report.json").read_text())
    return [(finding["code"], finding["action"], finding["index"]) for finding in report["findings"]]


# prompt, image, prompt of the record, images
SHOWN: list[tuple[str, str, Any, str, int]] = [
    ("none", "What is a stent?", None, "What is a stent?", 0),
    ("empty list", "What is a stent?", [], "What is a stent?", 0),
    ("empty text", "What is a stent?", "", "What is a stent?", 0),
    ("a text", "Fig-0: <image>\nWhat?", FIGURE, "Fig-0: <image>\nWhat?", 1),
    ("a list", "Fig-0: <image>\nFig-2: <image>\nWhat does Fig-2 show?", [FIGURE, PANELS[1]],
     "Fig-0: <image>\nFig-2: <image>\nWhat does Fig-2 show?", 2),
    ("on one line", "Fig-0: <image> Fig-1: <image> What?", [FIGURE, PANELS[0]],
     "Fig-0: <image>\nFig-1: <image>\nWhat?", 2),
    ("without names", "<image>\n<image>\nWhat?", [FIGURE, PANELS[0]], "<image>\n<image>\nWhat?", 2),
    ("no tag", "What?", FIGURE, "<image>\nWhat?", 1),
    ("inside the text", "See <image> and say what.", FIGURE, "<image>\nSee  and say what.", 1),
    ("one of them named", "<image>\nFig-1: <image>\nWhat?", [FIGURE, PANELS[0]],
     "Image-0: <image>\nFig-1: <image>\nWhat?", 2),
    ("a folder of Windows", "<image>\nWhat?", f".\\{FIGURE}", "<image>\nWhat?", 1),
    ("another machine's path", "<image>\nWhat?", f"D:\\pmc\\images\\{FIGURE}", "<image>\nWhat?", 1),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "image", "expected", "count"), [case[1:] for case in SHOWN],
                         ids=[case[0] for case in SHOWN])  # fmt: skip
def test_images_of_a_training_row(
    folder: Path, convert: Callable[..., int], prompt: str, image: Any, expected: str, count: int
) -> None:
    data = lines(folder / "mine.jsonl", row(prompt, **({} if image is None else {"image": image})))
    assert convert(data, "--images", str(folder / "images")) == 0
    (record,) = records(folder)
    assert record.conversations[0].value == expected
    assert [Path(name).name for name in record.images] == [FIGURE, PANELS[1 if "Fig-2" in prompt else 0]][:count]
    assert (record.task, record.dataset) == ("report_generation", "mine")
    moved = "TAGS_MOVED" in {code for code, *_ in findings(folder)}
    assert moved == (count > 0 and (prompt.count("<image>") == 0 or prompt.startswith(("See", "<image>\nFig-1"))))


BAD = [
    ("one tag for two images", row("<image>\nWhat?", image=[FIGURE, PANELS[0]]), "TAG_COUNT"),
    ("a tag and no image", row("<image>\nWhat?"), "TAG_COUNT"),
    ("two tags for one", row("<image><image>\nWhat?", image=FIGURE), "TAG_COUNT"),
    ("a number", row("What?", image=3), "IMAGE_NAME"),
    ("a blank among names", row("<image>\nWhat?", image=[FIGURE, " "]), "IMAGE_NAME"),
    ("not there", row("<image>\nWhat?", image="PMC9.jpg"), "IMAGE_MISSING"),
    ("four turns", {"conversations": turns("a", "b") * 2}, "TURNS"),
    ("no turns", {"conversations": None}, "TURNS"),
    ("a question that is no text", {"conversations": turns(None, "b")}, "TURNS"),  # type: ignore[arg-type]
    ("no question", row("<image>\n", image=FIGURE), "QUESTION_EMPTY"),
    ("no answer", row("What?", ""), "ANSWER_EMPTY"),
    ("a number as the answer", {"conversations": turns("What?", 3)}, "ANSWER_UNUSABLE"),  # type: ignore[arg-type]
    ("a tag in the answer", row("What?", "See <image>"), "LITERAL_TAG"),
]


@pytest.mark.parametrize(("bad", "code"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_row_that_cannot_be_used_is_under_a_code(
    folder: Path, convert: Callable[..., int], bad: dict[str, Any], code: str
) -> None:
    data = lines(folder / "mine.jsonl", row("What is a stent?"), bad)
    assert convert(data) == 0
    assert len(records(folder)) == 1
    (found,) = [finding for finding in findings(folder) if finding[1] != "kept"]
    assert found[0] == code and found[2] == 1


def test_options_are_choices_whose_letter_is_trained_on(folder: Path, convert: Callable[..., int]) -> None:
    asked = "The question is Which one? The candidate options are: A. Smooth borders\nB. Rough (A) ones"
    data = lines(folder / "any.jsonl", row(asked, "B"), row(asked, "A. Smooth borders"), row(asked, "Neither is."))
    assert convert(data) == 0
    tasks = [(record.task, record.target, record.source.answer) for record in records(folder)]
    assert tasks == [
        ("classification", "B", "B"),
        ("classification", "A", "A. Smooth borders"),
        ("report_generation", "Neither is.", "Neither is."),
    ]
    named = lines(folder / "subimage_option.jsonl", row(asked, "B"), row(asked, "A. Smooth borders"))
    assert convert(named) == 0
    tasks = [(record.task, record.target, record.source.answer) for record in records(folder)]
    assert tasks == [("classification", "B", "B"), ("classification", "A", "A. Smooth borders")]
    assert ("ANSWER_REWRITTEN", "kept", 1) in findings(folder)
    assert [item.answer for item in read_references(folder / "out" / "pmc_all_train.json").items] == ["B", "A"]


def test_figures_that_are_not_shown_are_named(folder: Path, convert: Callable[..., int]) -> None:
    two = {"image": [FIGURE, PANELS[0]]}
    data = lines(
        folder / "mine.jsonl",
        row("Fig-0: <image>\nFig-1: <image>\nCompare Fig-1 with Fig-2.", **two),
        row("Fig-0: <image>\nFig-1: <image>\nWhat does Fig-1 show?", "Fig-3 shows a mass.", **two),
        row("Fig-1: <image>\nFig-1: <image>\nWhat does Fig-1 show?", **two),
        row("What does Fig-1 show?"),
        row("Fig-0: <image>\nFig-1: <image>\nWhat does Fig-1 show in Fig-0?", **two),
    )
    assert convert(data) == 0
    assert [place for code, _, place in findings(folder) if code == "FIGURE_NUMBER"] == [0, 1, 2, 3]
    assert len(records(folder)) == 5


def test_questions_of_an_article_stay_in_one_split(folder: Path, convert: Callable[..., int]) -> None:
    data = lines(
        folder / "mine.jsonl",
        *(row(f"What is {place}?", id=f"PMC{place % 4}_fig{place}") for place in range(12)),
        row("<image>\nWhat?", image=FIGURE),
    )
    assert convert(data, "--dev-fraction", "0.4") == 0
    groups = [{record.source.group for record in records(folder, f"pmc_all_{split}")} for split in ("train", "dev")]
    assert groups[0] | groups[1] == {f"PMC{number}" for number in range(4)}
    assert not groups[0] & groups[1]


def meta(folder: Path, **changes: Any) -> Path:
    """PMC-data.json below the folder that its paths are relative to, as in the reference's clone."""
    lines(folder / "text.jsonl", *(row(f"What is {place}?") for place in range(5)))
    lines(folder / "bbox.jsonl", row("Fig-0: <image>\nWhere?", image=FIGURE))
    entry = {"data_augment": False, "max_dynamic_patch": 1, "repeat_time": 1}
    sets = {
        "qa-puretext": entry | {"root": "images/", "annotation": "./text.jsonl", "length": "5"},
        "qa-bbox": entry | {"root": "images/", "annotation": "./bbox.jsonl", "length": "1"},
    }
    for key, value in changes.items():
        sets["qa-puretext" if key != "root" else "qa-bbox"][key] = value
    path = folder / "shell" / "data" / "PMC-data.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\ufeff" + json.dumps(sets))
    return path


def test_the_sets_of_a_meta_file(folder: Path, convert: Callable[..., int]) -> None:
    assert convert(meta(folder)) == 0
    assert len(records(folder, "pmc_qa_puretext_train")) == 5
    assert [Path(name).name for name in records(folder, "pmc_qa_bbox_train")[0].images] == [FIGURE]
    assert {code for code, *_ in findings(folder)} == {"META_KEY", "ID_REPEATED"}
    assert "num_samples" not in json.loads((folder / "info.json").read_text())["pmc_qa_puretext_train"]


def test_repeat_time_and_length(folder: Path, convert: Callable[..., int]) -> None:
    assert convert(meta(folder, repeat_time=0.5, length="7")) == 0
    assert [record.question for record in records(folder, "pmc_qa_puretext_train")] == ["What is 0?", "What is 1?"]
    assert {"LENGTH_DIFFERS", "REPEAT_TIME"} <= {code for code, *_ in findings(folder)}
    assert convert(meta(folder, repeat_time=3)) == 0
    assert json.loads((folder / "info.json").read_text())["pmc_qa_puretext_train"]["num_samples"] == 15
    ids = [record.id for record in records(folder, "pmc_all_train")]
    assert len(set(ids)) == len(ids) == 16
    assert convert(meta(folder, repeat_time=3), "--sample", "qa-puretext=2") == 0
    assert json.loads((folder / "info.json").read_text())["pmc_qa_puretext_train"]["num_samples"] == 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repeat_time": 1.5}, "repeat_time is 1.5"),
        ({"repeat_time": 0}, "expected a number above 0"),
        ({"repeat_time": True}, "repeat_time is True"),
        ({"length": "many"}, "length is 'many'"),
        ({"annotation": "gone.jsonl"}, "gone.jsonl"),
        ({"annotation": None}, "annotation is not"),
        ({"root": "your_data_path/images/"}, "--images"),
    ],
)
def test_a_meta_file_that_cannot_be_followed(
    folder: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert convert(meta(folder, **changes)) == 3
    assert said in capsys.readouterr().err.replace("\n", " ")
    if "root" in changes:
        assert convert(meta(folder, **changes), "--images", str(folder / "images")) == 0


def stage(**pair: Any) -> dict[str, Any]:
    """A record of one question about panels with idx 0 to 2."""
    boxes = [[100, 50], [300, 52], "(unknown)"]
    panels = [
        {"image": name, "idx": idx, "text": "A panel.", "bounding_box": boxes[idx]} for idx, name in enumerate(PANELS)
    ]
    return {"image": FIGURE, "caption": "All.", "subcaptions": panels, "qa_pairs": [pair]}


STAGES: list[tuple[str, dict[str, Any], str, str]] = [
    ("text", {"context": "c", "improved context": "**: About it.", "question": "What?", "image_path": FIGURE,
              "image_index": "Fig-0"}, "About it. What?", "report_generation"),
    ("compound", {"context": "About it.", "question": "What?"}, "Fig-0: <image>\nAbout it. What?", "report_generation"),
    ("single", {"context": "Seen.", "question": "What does Fig-2 show?", "selected_image_paths": [PANELS[1]],
                "image_index": ["Fig-1"]}, "Fig-0: <image>\nFig-2: <image>\nSeen. What does Fig-2 show?",
     "report_generation"),
    ("multiple", {"context": {"Index": "0"}, "question": "Compare Fig-3 and Fig-1.",
                  "selected_image_paths": [PANELS[2], PANELS[0]], "image_index": ["Fig-2", "Fig-0"]},
     "Fig-0: <image>\nFig-3: <image>\nFig-1: <image>\nCompare Fig-3 and Fig-1.", "report_generation"),
    ("choice", {"question": "Which?", "option": "A. Smooth\nB. Rough", "answer": "B",
                "selected_image_paths": [PANELS[0]], "image_index": ["Fig-1"]},
     "Fig-0: <image>\nFig-1: <image>\nThe question is Which? The candidate options are: A. Smooth\nB. Rough",
     "classification"),
    ("numbers as stored", {"context": "Seen.", "question": "What does Fig-1 show?",
                           "selected_image_paths": [PANELS[1]], "image_index": ["Fig-1"]},
     "Fig-0: <image>\nFig-1: <image>\nSeen. What does Fig-1 show?", "report_generation"),
]  # fmt: skip


@pytest.mark.parametrize(("pair", "prompt", "task"), [case[1:] for case in STAGES], ids=[case[0] for case in STAGES])
def test_prompts_of_stage_records(
    folder: Path, convert: Callable[..., int], pair: dict[str, Any], prompt: str, task: str
) -> None:
    data = folder / "chunk_000.json"
    data.write_text(json.dumps([stage(answer="It shows a lung.") | {"qa_pairs": [{"answer": "A lung.", **pair}]}]))
    assert convert(data) == 0
    (record,) = records(folder)
    assert (record.conversations[0].value, record.task) == (prompt, task)
    assert record.source.row == 0 and record.source.group == "PMC1"
    renumbered = "FIGURE_RENUMBERED" in {code for code, *_ in findings(folder)}
    assert renumbered == (pair.get("image_index") in (["Fig-2", "Fig-0"],) or "Fig-2 show" in prompt)


def test_records_with_several_questions_or_none(folder: Path, convert: Callable[..., int]) -> None:
    two = stage() | {"qa_pairs": [{"question": f"What {n}?", "answer": "A lung.", "context": ""} for n in (1, 2)]}
    data = folder / "stage.json"
    data.write_text(json.dumps([two, stage() | {"qa_pairs": []}, stage() | {"qa_pairs": ["x"]}, two]))
    assert convert(data) == 0
    assert [(record.source.row, record.source.index) for record in records(folder)] == [(0, 0), (0, 1), (3, 4), (3, 5)]
    assert [found for found in findings(folder) if found[1] == "dropped"] == [
        ("QUESTION_EMPTY", "dropped", 2), ("QUESTION_EMPTY", "dropped", 3)]  # fmt: skip


def test_positions_are_those_of_the_boxes(folder: Path, convert: Callable[..., int]) -> None:
    def asked(first: int, second: int, answer: str) -> dict[str, Any]:
        return stage(question="Where?", answer=answer, selected_image_paths=[PANELS[first], PANELS[second]],
                     image_index=[f"Fig-{first}", f"Fig-{second}"])  # fmt: skip

    data = folder / "stage.json"
    data.write_text(json.dumps([
        asked(0, 1, "Fig-1 (the left lung, above) is positioned to the left of Fig-2."),
        asked(0, 1, "Fig-2 is positioned to the right of Fig-1."),
        asked(0, 1, "Fig-1 is to the left and above Fig-2."),  # 2 of 200 pixels: level
        asked(0, 2, "Fig-1 is to the left of Fig-3."),
        asked(0, 1, "They lie side by side."),
        asked(0, 2, "Fig-1 lies at (100, 50) and Fig-3 at (unknown)."),
    ]))  # fmt: skip
    assert convert(data) == 0
    by_code = {code: [] for code in ("POSITION_DIFFERS", "POSITION_UNCHECKED", "ANSWER_UNUSABLE")}
    for code, _, place in findings(folder):
        by_code.get(code, []).append(place)
    assert by_code == {"POSITION_DIFFERS": [2], "POSITION_UNCHECKED": [3, 4], "ANSWER_UNUSABLE": [5]}
    assert records(folder)[2].target == "Fig-1 is to the left and above Fig-2."
    assert convert(data, "--positions", "boxes") == 0
    assert records(folder)[2].target == "Fig-1 is to the left of Fig-2 in the compound image."
    assert records(folder)[2].source.answer == "Fig-1 is to the left and above Fig-2."
    assert records(folder)[0].source.truth == records(folder)[0].target == records(folder)[0].source.answer


def test_a_sentence_of_a_relation_says_that_relation() -> None:
    size = (100, 50)
    for x in (-10.0, -2.0, 0.0, 2.0, 3.0):
        for y in (-5.0, -1.0, 0.0, 1.0, 2.0):
            relation = relation_of((50 + x, 25 + y), (50, 25), size)
            words = {"left": x < -2, "right": x > 2, "above": y < -1, "below": y > 1}
            assert relation == {word for word, holds in words.items() if holds}
            sentence = f"Fig-1 is {in_words(relation)} Fig-2 in the compound image."
            assert relation_said(sentence, ["Fig-1", "Fig-2"]) == relation
    assert centre([0.5, 0.5, 0.2, 0.2], size) == (50, 25)
    assert [centre(box, size) for box in ("(unknown)", None, [1], [10, 10, 50, 50], [True, 1])] == [None] * 5


def test_the_benchmark(shared_data: Path, folder: Path, convert: Callable[..., int]) -> None:
    bench = shared_data / "pmc_mi_bench"
    named = {name for file in bench.glob("*.json") for row in json.loads(file.read_text()) for name in
             row.get("images", [])}  # fmt: skip
    for name in named:
        Image.new("RGB", (40, 30)).save(folder / "images" / name)
    assert convert(bench, "--images", str(folder / "images")) == 0
    made = records(folder, "pmc_all_test")
    assert len(made) == len({record.id for record in made}) == 300
    assert {record.dataset for record in made} == NAMES
    assert {code for code, *_ in findings(folder)} <= {"ROW_REPEATED", "ROWS_CONTRADICT", "CLASS_SINGLETON"}
    choices = records(folder, "pmc_qa_subimage_option_test")
    assert {record.task for record in choices} == {"classification"}
    assert sorted(record.target for record in choices) == sorted("A" * 11 + "B" * 16 + "C" * 15 + "D" * 8)
    text = records(folder, "pmc_qa_puretext_test")
    assert not any(record.images for record in text) and all(record.source.group for record in text)
    assert {len(record.images) for record in records(folder, "pmc_qa_multiple_subimage_test")} == {3, 4}
    first = records(folder, "pmc_qa_multiple_subimage_test")[0]
    assert first.conversations[0].value.startswith(
        "Fig-0: <image>\nFig-3: <image>\nFig-4: <image>\nFig-1: <image>\nHow"
    )


def test_files_of_one_kind_are_sets_of_their_own(folder: Path, convert: Callable[..., int]) -> None:
    bench = folder / "bench"
    bench.mkdir()
    for name in ("puretextQA", "puretextQA_more"):
        asked = {"question": "What?", "images_puretext": [FIGURE], "gt": "A thing.", "image_indices": ["Fig-0"]}
        (bench / f"{name}.json").write_text(json.dumps({"data": [asked]}))
    assert convert(bench) == 0
    assert {record.id for record in records(folder, "pmc_all_test")} == {
        "pmc/test/PMC-MI-Bench/puretextQA/000000", "pmc/test/PMC-MI-Bench/puretextQA_more/000000"}  # fmt: skip
    assert {code for code, *_ in findings(folder)} >= {"FILE_WRAPPED"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no rows"),
        (b"[]", "holds no rows"),
        (b'{"conversations": []}\n{"conver', "line 2"),
        (b'[{"conversations": []},', "does not end"),
        (b"[1, 2]", "row 0 is '1'"),
        (b'{"question": "What?", "answer": "A"}', "preprocess/table.py"),
        ('{"conversations": "\u00fc"}'.encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read(
    folder: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    (folder / "mine.jsonl").write_bytes(content)
    assert convert(folder / "mine.jsonl") == 3
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_data_and_images_that_are_not_there(
    folder: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(folder / "gone") == 3
    assert convert(folder / "images") == 3
    assert convert(lines(folder / "a.jsonl", row("What?")), "--images", str(folder / "gone")) == 2
    meta(folder)
    assert convert(folder / "shell" / "data") == 3
    said = capsys.readouterr().err.replace("\n", " ")
    for part in ("no such file or folder", "no .json or .jsonl file", "there is no such folder", "give it as DATA"):
        assert part in said
    assert convert(folder / "a.jsonl", "--datasets", "b") == 2
    assert convert(folder / "a.jsonl", "--splits", "test") == 3


def test_rows_of_the_second_release(folder: Path, convert: Callable[..., int]) -> None:
    said = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "A lung."}]
    data = lines(folder / "stage1_train.jsonl", {"messages": said, "images": [f"images/{FIGURE}"]})
    assert convert(data) == 0
    (record,) = records(folder)
    assert (record.target, record.source.group, len(record.images)) == ("A lung.", "PMC1", 1)


def test_sets_that_are_not_asked_for_are_not_repeated(folder: Path, convert: Callable[..., int]) -> None:
    assert convert(meta(folder, repeat_time=3), "--datasets", "qa-bbox") == 0
    assert len(records(folder)) == 1


def test_images_in_folders_below(folder: Path, convert: Callable[..., int]) -> None:
    """As the reference keeps them: compound/group_3/…, subfigures/…/subfigures/…"""
    deep = folder / "images" / "compound" / "group_3"
    deep.mkdir(parents=True)
    (folder / "images" / FIGURE).rename(deep / FIGURE)
    data = lines(folder / "a.jsonl", row("<image>\nWhat?", image=FIGURE))
    assert convert(data, "--images", str(folder / "images")) == 0
    assert records(folder)[0].images == [str(deep / FIGURE)]


def test_windows_line_ends_and_a_byte_order_mark(folder: Path, convert: Callable[..., int]) -> None:
    data = folder / "a.jsonl"
    data.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(row(f"What {n}?")).encode() for n in range(3)))
    assert convert(data) == 0
    assert len(records(folder)) == 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("stage5_puretext_new", "text"), ("stage4_boundingboxVQA_v1", "position"), ("stage5_single_subimage", "single"),
        ("stage5_multi_subimage_new", "multiple"), ("stage5_subimage_option", "choice"),
        ("stage5_compound_image", "compound"), ("multiplechoiceVQA", "choice"), ("spatial_relation", "position"),
        ("multiplesubimageVQA", "multiple"), ("mine", None),
    ],
)  # fmt: skip
def test_kinds_by_the_published_names(name: str, kind: str | None) -> None:
    assert kind_named(name) == kind
