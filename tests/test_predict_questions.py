"""What `medvl predict` asks: trees, folders of question files, single files and converted records."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from medvl.errors import DataError
from medvl.instructions import Instruction, fingerprint, instruct_record
from medvl.predict.questions import choose, read_questions, source_rows
from medvl.sharegpt import MANIFEST, Record, Source, encode_records, make_record
from medvl.tasks import Task

ROW = {"TaskType": "counting", "Modality": "X", "ImageName": "imagesVal/a.png", "Question": "How many?", "Answer": ""}
INSTRUCTIONS = {Task.COUNTING: Instruction("A number."), Task.DETECTION: Instruction("Boxes.", "prefix")}


def question_file(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps([ROW | row for row in rows] or [ROW]))
    return folder / name


def record(task: Task = Task.COUNTING, question: str = "How many?", **changes: Any) -> Record:
    source = Source(split="training", file="/q.json", index=0, sizes=[(8, 6)], answer="3")
    fields = {"id": "r/0", "images": ["/x.png"], "source": source, "dataset": "d"} | changes
    return make_record(question=question, answer="3", task=str(task), **fields)


def test_a_tree_is_asked_without_its_training_split(tmp_path: Path) -> None:
    question_file(tmp_path / "training" / "X" / "d", "d_questions_train.json")
    question_file(tmp_path / "validation-public" / "X" / "d", "d_questions_val.json", {}, {})
    question_file(tmp_path / "testing" / "X" / "e", "e_questions_test.json")
    ids = [question.id for question in read_questions(tmp_path)]
    assert ids == [
        "flare/validation-public/X/d/000000",
        "flare/validation-public/X/d/000001",
        "flare/testing/X/e/000000",
    ]
    assert [question.id for question in read_questions(tmp_path, splits=["train"])] == ["flare/training/X/d/000000"]
    assert [question.id for question in read_questions(tmp_path / "testing" / "X")] == ["flare/testing/X/e/000000"]
    file = tmp_path / "testing" / "X" / "e" / "e_questions_test.json"
    assert [question.id for question in read_questions(file)] == ["flare/testing/X/e/000000"]


def test_a_tree_of_training_alone_is_asked(tmp_path: Path) -> None:
    question_file(tmp_path / "training" / "X" / "d", "d_questions_train.json")
    assert len(read_questions(tmp_path)) == 1


def test_a_mounted_folder_is_searched_for_question_files(tmp_path: Path) -> None:
    question_file(tmp_path / "d", "d_questions_test.json", {"Question": "One?"})
    question_file(tmp_path / "d", "d_questions_test_withGT.json", {"Question": "One?"})
    question_file(tmp_path / "deep" / "e", "e_test.json", {"Question": "Two?"})
    (tmp_path / "d" / "predictions.json").write_text(json.dumps([ROW]))
    (tmp_path / "d" / "other.json").write_text('{"a": 1}')
    asked = read_questions(tmp_path)
    assert [question.id for question in asked] == ["d/d_questions_test_withGT/000000", "deep/e/e_test/000000"]
    assert [question.text for question in asked] == ["One?", "Two?"]
    with pytest.raises(DataError, match="no splits"):
        read_questions(tmp_path, splits=["val"])


def test_no_question_file_of_a_folder_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "inputs"
    question_file(folder, "report_generation.json")
    question_file(folder / ".hidden", "x.json")
    assert [question.id for question in read_questions(folder)] == ["report_generation/000000"]
    (folder / "torn.json").write_text('[{"Question": ')
    with pytest.raises(DataError, match=r"torn\.json"):
        read_questions(folder)


def test_a_folder_above_a_tree_is_read_as_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "download" / "FLARE"
    question_file(tree / "training" / "X" / "d", "d_questions_train.json")
    question_file(tree / "testing" / "X" / "e", "e_questions_test.json")
    question_file(tmp_path / ".cache" / "testing" / "X" / "e", "e_questions_test.json")
    (tmp_path / "testing.json").write_text('{"no": "questions"}')
    assert [question.id for question in read_questions(tmp_path)] == ["flare/testing/X/e/000000"]
    assert read_questions(tmp_path, splits=["train"]) == read_questions(tree, splits=["train"])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        pytest.param("B/testing/X/e/e_questions_test.json", "2 FLARE trees lie below it: ", id="two trees"),
        pytest.param("loose/mine.json", "a FLARE tree lies below it and question files beside: ", id="other files"),
    ],
)
def test_a_folder_above_more_than_a_tree_is_refused(tmp_path: Path, other: str, says: str) -> None:
    question_file(tmp_path / "A" / "testing" / "X" / "e", "e_questions_test.json")
    beside = tmp_path / other
    question_file(beside.parent, beside.name)
    shown = tmp_path / "B" if "testing" in other else beside
    with pytest.raises(DataError) as refusal:
        read_questions(tmp_path)
    assert str(refusal.value) == f"{tmp_path}: {says}{tmp_path / 'A'}, {shown}; give one of them as --data"


def test_splits_that_choose_nothing_are_refused(tmp_path: Path) -> None:
    file = question_file(tmp_path / "testing" / "X" / "e", "e_questions_test.json")
    assert len(read_questions(tmp_path / "testing", splits=["test"])) == 1
    for path in (tmp_path / "testing", file):
        with pytest.raises(DataError, match="remove --splits"):
            read_questions(path, splits=["val"])


def test_a_file_outside_a_tree_is_asked_by_its_name(tmp_path: Path) -> None:
    file = question_file(tmp_path, "mine.json", {"ImageName": ["a.png", "b.png"], "TaskType": "poetry"})
    (asked,) = read_questions(file)
    assert (asked.id, asked.head, asked.text, asked.task) == ("mine/000000", "<image>\n<image>\n", "How many?", None)
    assert [path.name for path in asked.images] == ["a.png", "b.png"]
    assert not asked.normalised
    assert next(source_rows([asked])) == ROW | {"ImageName": ["a.png", "b.png"], "TaskType": "poetry"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        pytest.param({"Question": "What is <image>?"}, "literal <image>", id="a tag in the question"),
        pytest.param({"Question": "Read <|image_pad|>."}, "holds <|image_pad|>, which", id="Qwen's image token"),
        pytest.param({"Question": "Read <IMG_CONTEXT>."}, "holds <IMG_CONTEXT>, which", id="InternVL's image token"),
        pytest.param({"Question": "One<|im_end|>\n<|im_start|>"}, "<|im_end|>, <|im_start|>", id="ends of a turn"),
        pytest.param({"Question": "Where is <box>?"}, "holds <box>, which", id="tag of a box"),
        pytest.param({"Question": " "}, "expected text", id="no question"),
        pytest.param({"ImageName": 7}, "ImageName is 7", id="no image name"),
        pytest.param({"ImageName": "../../x.png"}, "leads out", id="a name that leads out"),
    ],
)
def test_a_bad_row_is_a_problem_of_its_own(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    bad, good = read_questions(question_file(tmp_path, "q.json", row, {}))
    assert problem in (bad.problem or "")
    assert good.problem is None


def test_text_that_looks_like_a_control_token_is_asked(tmp_path: Path) -> None:
    texts = ["Is x < y?", "<img_context>", "<|image|>", "< |im_end| >", "|im_end|", "<answer>"]
    asked = read_questions(question_file(tmp_path, "q.json", *({"Question": text} for text in texts)))
    assert [question.problem for question in asked] == [None] * len(texts)


@pytest.mark.parametrize(("question", "images"), [("Read <|image_pad|>.", 1), ("<IMG_CONTEXT> <image>?", 2)])
def test_a_record_with_control_tokens_is_not_asked(tmp_path: Path, question: str, images: int) -> None:
    made = record(images=[f"/{place}.png" for place in range(images)])
    head = "<image>\n" * (images - question.count("<image>"))
    human = msgspec.structs.replace(made.conversations[0], value=head + question)
    bad = msgspec.structs.replace(made, conversations=[human, made.conversations[1]])
    (tmp_path / "r.json").write_bytes(encode_records([bad, record(id="r/1")]))
    asked, good = read_questions(tmp_path / "r.json")
    assert "which the model does not read as text" in (asked.problem or "")
    assert good.problem is None


def test_nothing_to_ask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "no questions"), (tmp_path / "gone", "no such file or folder")):
        with pytest.raises(DataError, match=message):
            read_questions(path)


@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("task", [Task.COUNTING, Task.DETECTION, Task.REPORT])
def test_records_are_asked_as_they_were_before_their_instruction(
    tmp_path: Path, task: Task, numbered: bool, images: int
) -> None:
    titles = [f"Image-{place}" for place in range(1, images + 1)] if numbered else []
    plain = record(task, images=[f"/{place}.png" for place in range(images)], titles=titles)
    instructed = instruct_record(plain, INSTRUCTIONS)
    (tmp_path / "r.json").write_bytes(encode_records([instructed]))
    (asked,) = read_questions(tmp_path / "r.json", instructions=INSTRUCTIONS)
    assert asked.text == "How many?"
    assert asked.head + asked.text == plain.conversations[0].value
    assert (asked.id, asked.task, asked.size, asked.normalised) == ("r/0", task, (8, 6), True)


def test_records_made_with_other_instructions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(encode_records([instruct_record(record(), INSTRUCTIONS)]))
    options = {"profiles_fingerprint": fingerprint(INSTRUCTIONS)}
    (tmp_path / MANIFEST).write_text(json.dumps({"options": options, "files": {"r.json": {}}}))
    assert read_questions(tmp_path / "r.json", instructions=INSTRUCTIONS)[0].text == "How many?"
    with pytest.raises(DataError, match="other profiles"):
        read_questions(tmp_path / "r.json")


COCO = {"info": {}, "images": [{"file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(json.dumps(COCO), "one object with the keys info, images, annotations", id="COCO"),
        pytest.param(json.dumps(COCO["annotations"]), "rows with the keys image_id, bbox", id="COCO annotations alone"),
        pytest.param(json.dumps(CHAT), "one object with the keys messages", id="one conversation"),
        pytest.param('[{"img": "a.png", "q": "How many?"}]', "rows with the keys img, q", id="own keys"),
        pytest.param(
            '{"data": [{"img": "a.png"}]}', "one object with the keys data, and img in its data", id="wrapped"
        ),
        pytest.param('[{"Question": "How many?"}]', "rows with the keys Question", id="no image anywhere"),
        pytest.param('["a"]', "rows of the type str", id="no objects"),
    ],
)
def test_a_file_of_something_else_is_refused_with_its_keys(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError) as refusal:
        read_questions(tmp_path / "x.json")
    assert found in str(refusal.value)
    assert "expected a JSON list with ImageName and Question in each row" in str(refusal.value)
    with pytest.raises(DataError, match=r"x\.json.*found|no questions in it\n  x\.json"):
        read_questions(tmp_path)


def test_other_faults_of_a_question_file_are_said_as_they_are(tmp_path: Path) -> None:
    row = json.dumps(ROW)
    (tmp_path / "q.json").write_text(f"[{row[:-1]}, {row[1:]}]")
    with pytest.raises(DataError, match="twice"):
        read_questions(tmp_path / "q.json")


def test_ids_must_be_unique(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(encode_records([record(), record()]))
    with pytest.raises(DataError, match="r/0"):
        read_questions(tmp_path / "r.json")


def test_shards_share_the_questions(tmp_path: Path) -> None:
    asked = read_questions(question_file(tmp_path, "q.json", *[{}] * 7))
    shards = [choose(asked, 5, (part, 3)) for part in (1, 2, 3)]
    assert sorted(question.index for shard in shards for question in shard) == [0, 1, 2, 3, 4]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert choose(asked, None, (1, 1)) == asked


def test_the_row_of_a_record_is_that_of_its_question_file(tmp_path: Path) -> None:
    file = question_file(tmp_path, "q.json", {}, {"Question": "How many cells?"})
    source = Source(split="s", file=str(file), index=1, sizes=[(8, 6)], answer="")
    (tmp_path / "r.json").write_bytes(encode_records([record(question="How many cells?", source=source)]))
    (asked,) = read_questions(tmp_path / "r.json")
    assert next(source_rows([asked]))["Question"] == "How many cells?"


@pytest.mark.parametrize(("index", "name"), [(0, "q.json"), (9, "q.json"), (0, "gone.json")])
def test_a_question_file_that_has_changed_is_refused(tmp_path: Path, index: int, name: str) -> None:
    question_file(tmp_path, "q.json", {"Question": "Something else?"})
    source = Source(split="s", file=str(tmp_path / name), index=index, sizes=[(8, 6)], answer="")
    (tmp_path / "r.json").write_bytes(encode_records([record(source=source)]))
    (asked,) = read_questions(tmp_path / "r.json")
    with pytest.raises(DataError, match="r/0"):
        next(source_rows([asked]))
