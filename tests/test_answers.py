"""Model text to structured answer, per task, and back to text."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvl.answers import answer_text, challenge_text, parse_answer, target_text, unoffered
from medvl.box_text import BOX_STYLES, BoxStyle, ParsedBoxes
from medvl.boxes import Size, from_frame
from medvl.sources.base import Sample
from medvl.sources.flare import FLARE
from medvl.tasks import Answer, Task, canonical_task

# ruff: noqa: RUF001 (characters that look like ASCII are tested)

YES_NO = "Are there root fragments? A: No, B: Yes"
FINDINGS = (
    "Select all that apply from the following, separate multiple selections with a semicolon: Dental Caries; "
    "Pulp Diseases; Endodontic Treatment, Restorative Treatment, and Complications."
)


@pytest.mark.parametrize("task", [Task.COUNTING, Task.REGRESSION])
@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("11", 11, id="bare"),
        pytest.param("0.0", 0, id="zero"),
        pytest.param("20.1631313163075", 20.1631313163075, id="many-decimals"),
        pytest.param("1,664", 1664, id="thousands"),
        pytest.param("1,200.5", 1200.5, id="thousands-and-decimals"),
        pytest.param("12,345,678", 12345678, id="millions"),
        pytest.param(".5", 0.5, id="no-leading-zero"),
        pytest.param("-4", -4, id="negative"),
        pytest.param("\u22124.5", -4.5, id="typographic-minus"),
        pytest.param("1e2", 100, id="exponent"),
        pytest.param("about 12 cells", 12, id="about"),
        pytest.param("There are 12 cells in this picture.", 12, id="sentence"),
        pytest.param("12 cells.", 12, id="unit"),
        pytest.param("```\n12\n```", 12, id="fenced"),
        pytest.param("The 2nd value is 20", 20, id="ordinal-is-no-value"),
        pytest.param("I see 7 red and 5 white cells.\nFinal answer: 12", 12, id="conclusion"),
        pytest.param("The answer is $\\boxed{12}$", 12, id="boxed"),
        pytest.param("The count is 12.", 12, id="full-stop-behind"),
        pytest.param("12. I counted twice.", 12, id="first-sentence"),
    ],
)  # fmt: skip
def test_numbers(task: Task, text: str, number: float) -> None:
    assert parse_answer(text, task) == Answer(task, float(number))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("34.7%", 34.7, id="percent"),
        pytest.param("**34.7 %**", 34.7, id="percent-emphasised"),
        pytest.param("10.0%\n[{\"box_2d\": [355, 384, 653, 644]}]", 10, id="first-line"),
        pytest.param("Of 32 teeth 4 have lost bone.\n12%", 12, id="last-line"),
        pytest.param("On 32 teeth, seen from 2 sides, roughly 35% of the bone is gone.", 35, id="the-one-percentage"),
        pytest.param("35%. That is, roughly 35% of the bone is gone.", 35, id="same-number-twice"),
    ],
)  # fmt: skip
def test_percentages_are_measured_not_counted(text: str, number: float) -> None:
    assert parse_answer(text, Task.REGRESSION) == Answer(Task.REGRESSION, float(number))
    assert parse_answer(text, Task.COUNTING).value != number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("There are 12 cells. I am 95% confident.", 12, id="sentence"),
        pytest.param("12 cells\nConfidence: 95%", 12, id="last-line"),
        pytest.param("Answer: 12 (95% confidence)", 12, id="conclusion"),
        pytest.param("12 (about 30% of the field)", 12, id="brackets"),
        pytest.param('{"count": 12}', 12, id="json"),
        pytest.param("Count: 12\n\nNote: 3 were uncertain", None, id="first-and-last-line-differ"),
    ],
)  # fmt: skip
def test_a_count_beside_other_numbers(text: str, number: float | None) -> None:
    assert parse_answer(text, Task.COUNTING).value == number


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        pytest.param("<answer>B</answer>", "B", id="tags"),
        pytest.param("<think>First I thought A.</think>\nB", "B", id="thoughts"),
        pytest.param('{"answer": "B"}', "B", id="json"),
        pytest.param('["A", "B"]', None, id="json-list-of-two"),
        pytest.param("Answer = B", "B", id="equals"),
        pytest.param("The correct choice is B", "B", id="choice"),
        pytest.param("I choose B", "B", id="choose"),
        pytest.param("\\boxed{\\text{B}}", "B", id="boxed-text"),
        pytest.param("No. B", None, id="no-means-A"),
        pytest.param("Yes, a root is there.", "B", id="an-article-is-no-letter"),
    ],
)  # fmt: skip
def test_wrapped_choices(text: str, letter: str | None) -> None:
    assert parse_answer(text, Task.CLASSIFICATION, question=YES_NO).value == letter


PLANE_ZH = "诊断是什么？A、良性病变　B、恶性病变　C、正常"
FINDINGS_ZH = "有哪些发现？从以下选项中选择所有适用项，用分号分隔：龋齿；牙髓病；牙周病（慢性）。"


@pytest.mark.parametrize(
    "question",
    [
        PLANE_ZH,
        "类型？（A）良性病变（B）恶性病变（C）正常",
        "类型？A：良性病变B：恶性病变C：正常",
        "类型？Ａ．良性病变 Ｂ．恶性病变 Ｃ．正常",
        "Type? Ａ：良性病变，Ｂ：恶性病变，Ｃ：正常",
    ],
)
@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *((text, "B") for text in ("B", "B。", "Ｂ", "ｂ", "（B）", "【Ｂ】", "\u201cB\u201d", "B\u200b", "\ufeffB")),
        *((text, "B") for text in ("B、恶性病变", "B：恶性病变", "恶性病变。", "B：恶性病变，因为边缘不规则")),
        *((text, "B") for text in ("答案：B", "答案是B。", "正确答案为：Ｂ", "最终答案：恶性病变")),
        *((text, "B") for text in ("选B", "我选择B。", "边缘不规则，因此选B。")),
        *((text, "B") for text in ("B选项", "正解はBです", "정답은 B입니다", "Ответ: B", "Respuesta correcta: B")),
        *((text, "B") for text in ("\\boxed{Ｂ}", '["Ｂ"]')),
        *((text, None) for text in ("A、C", "A和B", "Ｄ", "A：恶性病变", "无法判断", "恶性病变或良性病变")),
    ],
)  # fmt: skip
def test_choices_in_other_scripts(question: str, text: str, letter: str | None) -> None:
    assert parse_answer(text, Task.CLASSIFICATION, question=question).value == letter


@pytest.mark.parametrize("separator", [";", None])
@pytest.mark.parametrize(
    ("text", "labels"),
    [
        pytest.param("龋齿；牙髓病", {"龋齿", "牙髓病"}, id="wide-semicolon"),
        pytest.param("牙髓病； 龋齿。", {"龋齿", "牙髓病"}, id="another-order"),
        pytest.param("龋齿;牙髓病", {"龋齿", "牙髓病"}, id="ascii"),
        pytest.param("龋齿、牙髓病", {"龋齿", "牙髓病"}, id="list-comma"),
        pytest.param("1、龋齿\n2、牙髓病", {"龋齿", "牙髓病"}, id="numbered"),
        pytest.param("・龋齿\n・囊肿", {"龋齿", "囊肿"}, id="bullets"),
        pytest.param("（1）龋齿；（2）囊肿", {"龋齿", "囊肿"}, id="numbers-in-brackets"),
        pytest.param("牙周病(慢性)；龋齿", {"牙周病（慢性）", "龋齿"}, id="spelling-of-the-question"),
        pytest.param("答案：龋齿；牙髓病", {"龋齿", "牙髓病"}, id="conclusion"),
        pytest.param('["龋齿", "牙髓病"]', {"龋齿", "牙髓病"}, id="json"),
        pytest.param("无", set(), id="none"),
        pytest.param("龋齿；囊肿", {"龋齿", "囊肿"}, id="not-offered-stays"),
    ],
)
def test_labels_in_other_scripts(text: str, labels: set[str], separator: str | None) -> None:
    value = parse_answer(text, Task.MULTI_LABEL, question=FINDINGS_ZH, separator=separator).value
    assert isinstance(value, tuple)
    assert set(value) == labels


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("１２", 12, id="full-width"),
        pytest.param("１，６６４", 1664, id="full-width-thousands"),
        pytest.param("约12个细胞", 12, id="no-space-around"),
        pytest.param("答案：12。", 12, id="conclusion"),
        pytest.param("12\u200b", 12, id="no-width"),
        pytest.param("10～20", None, id="range"),
        pytest.param("10至20", None, id="range-in-words"),
        pytest.param("10²", None, id="a-power-is-not-102"),
    ],
)
def test_numbers_in_other_scripts(text: str, number: float | None) -> None:
    assert parse_answer(text, Task.COUNTING).value == number


@pytest.mark.parametrize("text", ["［［１，２，３，４］］", "【【1，2，3，4】】", "[[１，２，３，４]]"])
def test_boxes_in_full_width(text: str) -> None:
    assert boxes_of(parse_answer(text, Task.DETECTION)).boxes.tolist() == [[1, 2, 3, 4]]


def test_a_label_of_a_box_keeps_its_width() -> None:
    assert boxes_of(parse_answer('[{"bbox_2d":[1,2,3,4],"label":"病变（左）"}]', Task.DETECTION)).labels == (
        "病变（左）",
    )


def test_boxes_of_thoughts_and_drafts_do_not_count() -> None:
    for text in ("<think>[[1, 2, 3, 4]]?</think>[[5, 6, 7, 8]]", "I see [[1, 2, 3, 4]]. Final answer: [[5, 6, 7, 8]]"):
        value = parse_answer(text, Task.DETECTION).value
        assert isinstance(value, ParsedBoxes)
        assert value.boxes.tolist() == [[5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("10-20%", "range", id="range"),
        pytest.param("approximately 35% to 40%", "range", id="range-in-words"),
        pytest.param("The ABR% is approximately **35\u201340%**, going by what is visible in this picture.", "range",
                     id="range-in-a-sentence"),
        pytest.param("5, 7", "several_numbers", id="two"),
        pytest.param("12 cells: 5 red and 7 white", "several_numbers", id="three"),
        pytest.param("many cells", "no_number", id="none"),
        pytest.param("twelve", "no_number", id="in-words"),
        pytest.param("34,7", "no_number", id="decimal-comma-is-not-guessed"),
        pytest.param("1e999", "no_number", id="infinite"),
        pytest.param("NaN", "no_number", id="not-a-number"),
        pytest.param("\u0661\u0662", "no_number", id="digits-of-another-script"),
        pytest.param("9" * 100, "no_number", id="hundred-digits"),
        pytest.param("I cannot count the cells.", "refusal", id="refusal"),
        pytest.param("I'm sorry, no.\n1. **A radiograph** is needed\n2. **A ruler** is needed", "refusal",
                     id="numbered-list-is-no-value"),
        pytest.param("1. Bone level", "no_number", id="list-mark-is-no-value"),
        pytest.param("Error: CUDA out of memory", "error", id="error-message"),
        pytest.param("   ", "empty", id="blank"),
        pytest.param(None, "empty", id="no-answer"),
    ],
)  # fmt: skip
def test_no_number_and_why(text: str | None, reason: str) -> None:
    assert parse_answer(text, Task.COUNTING) == Answer(Task.COUNTING, None, reason)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "empty"), ("", "empty"), (" \n", "empty"), ("Error: file not found", "error"),
     ("Traceback (most recent call last):\n  File", "error"), ("CUDA out of memory. Tried", "error")],
)  # fmt: skip
def test_a_missing_answer_is_told_from_a_wrong_one(task: Task, text: str | None, reason: str) -> None:
    answer = parse_answer(text, task, question=YES_NO)
    assert (answer.value, answer.reason, answer.parsed, answer.missing) == (None, reason, False, True)


def test_an_unparsable_answer_is_not_missing() -> None:
    answer = parse_answer("Z", Task.CLASSIFICATION, question=YES_NO)
    assert (answer.reason, answer.parsed, answer.missing) == ("letter_not_an_option", False, False)


@pytest.mark.parametrize(
    ("text", "task", "options", "value"),
    [
        pytest.param("B: Yes", Task.CLASSIFICATION, {"question": YES_NO}, "B", id="letter"),
        pytest.param("luminal a", Task.CLASSIFICATION, {"labels": ["Luminal a", "Mass"]}, "Luminal a", id="known"),
        pytest.param("Luminal A.", Task.CLASSIFICATION, {}, "luminal a", id="free-label"),
        pytest.param("Dental Caries", Task.MULTI_LABEL, {"question": FINDINGS}, ("Dental Caries",), id="label"),
        pytest.param("Endodontic Treatment, Restorative Treatment, and Complications", Task.MULTI_LABEL,
                     {"question": FINDINGS, "separator": ";"},
                     ("Endodontic Treatment, Restorative Treatment, and Complications",), id="label-with-commas"),
        pytest.param("Pneumonia, Fibrosis", Task.MULTI_LABEL, {"separator": ","}, ("pneumonia", "fibrosis"),
                     id="labels"),
        pytest.param(" Heart size is normal.\n", Task.REPORT, {}, "Heart size is normal.", id="report"),
        pytest.param("I cannot see 12 things", Task.REPORT, {}, "I cannot see 12 things", id="report-is-never-judged"),
    ],
)  # fmt: skip
def test_values(text: str, task: Task, options: dict[str, Any], value: object) -> None:
    assert parse_answer(text, task, **options) == Answer(task, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("[[1, 2, 3, 4", "truncated", id="cut-off"),
        pytest.param("[1, 2, 3]", "number_count", id="three-numbers"),
        pytest.param("[1e999, 1, 2, 3]", "not_finite", id="infinite"),
        pytest.param("[[1, 2]]", "lone_corner", id="one-corner"),
        pytest.param("I cannot locate it.", "refusal", id="refusal"),
        pytest.param("The lesion is on the left.", "no_boxes", id="prose"),
    ],
)
def test_no_boxes_and_why(text: str, reason: str) -> None:
    answer = parse_answer(text, Task.DETECTION)
    assert (answer.value, answer.reason) == (None, reason)


def boxes_of(answer: Answer) -> ParsedBoxes:
    assert isinstance(answer.value, ParsedBoxes), answer
    return answer.value


def test_boxes_come_with_what_was_repaired() -> None:
    answer = parse_answer('{"1": [[1, 2, 3, 4]], "2": [[5, 6', Task.INSTANCE_DETECTION)
    assert boxes_of(answer).boxes.tolist() == [[1, 2, 3, 4]]
    assert (answer.parsed, answer.notes) == (True, {"truncated": 1})
    assert parse_answer("[]", Task.DETECTION).parsed


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(" D\n", " D\n", id="string-stays-verbatim"),
        pytest.param("No", "No", id="no-stays-a-word"),
        pytest.param(11, "11", id="int"),
        pytest.param(34.7, "34.7", id="float"),
        pytest.param(0.0, "0.0", id="zero"),
        pytest.param([[1, 2, 3, 4]], "[[1, 2, 3, 4]]", id="list"),
        pytest.param({"1": [[1, 2, 3, 4]]}, '{"1": [[1, 2, 3, 4]]}', id="dict-in-double-quotes"),
        pytest.param(True, "true", id="bool"),
        pytest.param(["Müller"], '["Müller"]', id="letters-stay-readable"),
    ],
)
def test_a_dataset_answer_as_text(answer: object, text: str) -> None:
    assert answer_text(answer) == text


SIZE = (200, 100)


@pytest.mark.parametrize(
    ("task", "text", "style", "label", "expected"),
    [
        pytest.param(Task.DETECTION, "[[20, 10, 100, 50]]", "json", "lesion",
                     '[{"bbox_2d":[100,100,500,500],"label":"lesion"}]', id="json"),
        pytest.param(Task.DETECTION, "[20, 10, 100, 50]", "flare", None, "[[100, 100, 500, 500]]", id="flare"),
        pytest.param(Task.DETECTION, "[]", "json", "lesion", "[]", id="none"),
        pytest.param(Task.INSTANCE_DETECTION, '{"X": [[20, 10, 100, 50]]}', "json", None,
                     '{"X":[[100,100,500,500]]}', id="instances-stay-a-map"),
        pytest.param(Task.INSTANCE_DETECTION, '{"X": [[20, 10, 100, 50]]}', "internvl", None,
                     "<ref>X</ref><box>[[100,100,500,500]]</box>", id="instances-in-tags"),
        pytest.param(Task.CLASSIFICATION, "B", "json", "lesion", "B", id="no-boxes-no-change"),
        pytest.param(Task.REGRESSION, "34.70", "json", None, "34.70", id="a-number-stays-as-written"),
    ],
)  # fmt: skip
def test_what_is_trained_on(task: Task, text: str, style: BoxStyle, label: str | None, expected: str) -> None:
    answer = parse_answer(text, task, question=YES_NO)
    assert target_text(answer, text, size=SIZE, frame="norm1000", style=style, label=label) == expected


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        pytest.param(Task.CLASSIFICATION, "Final answer: **B: Yes**", "B", id="classification"),
        pytest.param(Task.MULTI_LABEL, "- Pulp Diseases\n- dental caries", "Pulp Diseases; Dental Caries", id="labels"),
        pytest.param(Task.MULTI_LABEL, "none", "", id="no-labels"),
        pytest.param(Task.DETECTION, '[{"bbox_2d":[100,100,500,500],"label":"lesion"}]', "[[20, 10, 100, 50]]",
                     id="boxes"),
        pytest.param(Task.DETECTION, "[[500, 500, 100, 1200]]", "[[20, 50, 100, 100]]", id="boxes-ordered-and-clipped"),
        pytest.param(Task.DETECTION, "[]", "[]", id="no-boxes"),
        pytest.param(Task.INSTANCE_DETECTION, "{'X': [[100, 100, 500, 500]]}", '{"X":[[20,10,100,50]]}',
                     id="instances"),
        pytest.param(Task.COUNTING, "about 1,664 cells", "1664", id="count"),
        pytest.param(Task.COUNTING, "12345678", "12345678", id="large-count"),
        pytest.param(Task.REGRESSION, "20.1631313163075%", "20.1631313163075", id="number-keeps-its-decimals"),
        pytest.param(Task.REPORT, " Heart size is normal. ", "Heart size is normal.", id="report"),
        pytest.param(Task.COUNTING, " I cannot count ", "I cannot count", id="unparsed-as-it-is"),
    ],
)  # fmt: skip
def test_what_is_handed_in(task: Task, text: str, expected: str) -> None:
    question = FINDINGS if task is Task.MULTI_LABEL else YES_NO
    answer = parse_answer(text, task, question=question)
    handed_in = challenge_text(answer, text, size=SIZE, frame="norm1000")
    assert handed_in == expected
    if answer.parsed and expected:  # and it means the same when it is read again
        again = challenge_text(parse_answer(handed_in, task, question=question), handed_in, size=SIZE, frame="pixel")
        assert again == handed_in


def test_boxes_cannot_be_handed_in_without_a_size() -> None:
    text = "[[1, 2, 3, 4]]"
    with pytest.raises(ValueError, match="size of their picture"):
        challenge_text(parse_answer(text, Task.DETECTION), text, size=None, frame="pixel")


def test_unoffered_labels() -> None:
    assert unoffered(["Dental Caries", "cyst"], FINDINGS) == ["cyst"]
    assert unoffered(["anything"], "Which findings?") == []


@pytest.mark.parametrize("task", Task)
@settings(max_examples=60)
@given(
    text=st.text() | st.text(alphabet="ABYesNo0123456789.,%-:;()[]{}\"' \n\\boxed"),
    question=st.sampled_from([YES_NO, FINDINGS, ""]),
)
def test_any_text_is_understood_or_has_a_reason(task: Task, text: str, question: str) -> None:
    answer = parse_answer(text, task, question=question)
    assert (answer.value is None) == (answer.reason is not None)
    assert isinstance(challenge_text(answer, text, size=SIZE, frame="norm1000"), str)


WHOLE = {
    Task.CLASSIFICATION: "Looking at it:\n* A: no.\n\nTherefore the answer is **B: Yes**.\nFinal Answer: $\\boxed{B}$",
    Task.MULTI_LABEL: '```\n["Pulp Diseases", "Endodontic Treatment, Restorative Treatment, and Complications"]\n```',
    Task.COUNTING: "There are 5 red, 7 white cells, or 30-40%.\n\nFinal answer: about 1,664 cells",
    Task.INSTANCE_DETECTION: '```json\n{"1": [[650, 506, 724, 572]], "X": [[1, 2, 3, 4]]}\n```',
}
MUTATIONS: dict[str, Callable[[str], str]] = {
    "as-it-is": lambda text: text,
    "quotes-swapped": lambda text: text.replace('"', "'"),
    "fence-added": lambda text: f"```\n{text}\n```",
    "as-a-json-string": json.dumps,
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_answers_cut_off_anywhere_are_understood_or_have_a_reason(mutation: Callable[[str], str]) -> None:
    for task, whole in WHOLE.items():
        text = mutation(whole)
        for end in range(len(text) + 1):
            answer = parse_answer(text[:end], task, question=FINDINGS if task is Task.MULTI_LABEL else YES_NO)
            assert (answer.value is None) == (answer.reason is not None)


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.MULTI_LABEL, Task.COUNTING])
@pytest.mark.parametrize(
    ("before", "atom", "after"),
    [("a", "\n", "b"), ("answer", " ", "x"), ("answer", "\n", "x"), ("1", " ", "x"), ("```\n", "\n", "x"),
     ("", "```\n", ""), ("- ", "\n", ""), ("final answer", "\n", "1"), ("", "-\n", ""), ("", "answer: ", ""),
     ("", "\\boxed{", ""), ("", "is ", ""), ("", "A: ", ""), ("", "most likely ", ""), ("", "1,", ""), ("", "1-", ""),
     ("", "* ", ""), ("", "a ", ""), ("", ";", ""), ("", "not ", "")],
)  # fmt: skip
def test_time_is_linear_in_the_length(task: Task, before: str, atom: str, after: str) -> None:
    question = FINDINGS if task is Task.MULTI_LABEL else YES_NO

    def seconds(length: int) -> float:
        text = before + (atom * length)[:length] + after
        start = time.process_time()
        parse_answer(text, task, question=question)
        return time.process_time() - start

    # Four times the text takes four times as long, sixteen if quadratic. The best of some runs: the machine is shared.
    assert min(seconds(8000) for _ in range(3)) < 10 * min(seconds(2000) for _ in range(3)) + 0.002


PREDICTIONS = ("medgemma15_hidden_validation.json", "base_medgemma15_hidden_validation.json")


def predicted(shared_data: Path, name: str) -> list[Answer]:
    rows = json.loads((shared_data / "flare_predictions" / name).read_bytes())
    return [parse_answer(row["Answer"], canonical_task(row["TaskType"]), question=row["Question"]) for row in rows]


def test_every_answer_of_a_tuned_model_is_understood(shared_data: Path) -> None:
    answers = predicted(shared_data, PREDICTIONS[0])
    assert len(answers) == 1959
    assert [answer for answer in answers if not answer.parsed] == []
    chromosomes = [boxes_of(answer) for answer in answers if answer.task is Task.INSTANCE_DETECTION]
    assert all(None not in parsed.labels for parsed in chromosomes)


def test_few_answers_of_an_untuned_model_are_not_understood(shared_data: Path) -> None:
    answers = predicted(shared_data, PREDICTIONS[1])
    reasons = {answer.reason for answer in answers}
    assert reasons == {None, "refusal", "range", "prose", "contradiction", "truncated"}  # a list of points cut off
    assert sum(not answer.parsed for answer in answers) < 60


def box_questions(root: Path) -> list[Sample]:
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    questions = [sample for file in FLARE.find(root).all() for sample in FLARE.read(file).samples]
    return [question for question in questions if question.task.has_boxes]


def image_size(question: Sample) -> Size:
    """The size of the image; where only the records are there, a size that holds the boxes."""
    path = question.file.path.parent / question.images[0]
    if path.is_file():
        with Image.open(path) as image:
            return image.size
    parsed = boxes_of(parse_answer(question.answer, question.task))
    width, height = np.maximum(parsed.boxes[:, 2:].max(axis=0, initial=0), (900, 700))
    return int(width), int(height)


@pytest.mark.parametrize("tree", ["flare_records", "bccd_flare"])
def test_every_real_box_survives_the_way_to_text_and_back(shared_data: Path, tree: str) -> None:
    count, worst = 0, 0.0
    for question in box_questions(shared_data / tree):
        if not question.answer:
            continue
        truth, size = parse_answer(question.answer, question.task), image_size(question)
        pixels = boxes_of(truth)
        for style in BOX_STYLES if question.index % 50 == 0 else ("json",):
            label = "lesion" if style == "map" else None
            text = target_text(truth, question.answer, size=size, frame="norm1000", style=style, label=label)  # type: ignore[arg-type]
            back = boxes_of(parse_answer(text, question.task))
            known = [name or label for name in pixels.labels]
            order = sorted(range(len(known)), key=lambda i, known=known: known.index(known[i]))  # type: ignore[misc]
            if [*back.labels] == known:
                order = list(range(len(known)))
            difference = np.abs(from_frame(back.boxes, size, "norm1000") - pixels.boxes[order]) / [*size, *size]
            worst = max(worst, difference.max(initial=0))
        count += len(pixels.boxes)
    assert count > 500
    assert worst <= 0.5 / 1000 * (1 + 1e-9)
