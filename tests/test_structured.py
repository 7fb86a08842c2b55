"""Answers that are data, in the plain form of their task."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvl.answers import parse_answer
from medvl.normalisation import normalise
from medvl.structured import label_list, plain_number, plain_text
from medvl.tasks import Task

LABELS, CHOICE, COUNT, NUMBER, REPORT = (
    Task.MULTI_LABEL, Task.CLASSIFICATION, Task.COUNTING, Task.REGRESSION, Task.REPORT,
)  # fmt: skip


@pytest.mark.parametrize(
    ("task", "text", "plain"),
    [
        pytest.param(LABELS, '["Edema", "Mass"]', "Edema; Mass", id="list"),
        pytest.param(LABELS, "['Edema', 'Mass']", "Edema; Mass", id="python-list"),
        pytest.param(LABELS, '{"RBC": 1, "WBC": 0}', "RBC", id="marks"),
        pytest.param(LABELS, '{"RBC": true, "WBC": false, "PLT": true}', "RBC; PLT", id="true-and-false"),
        pytest.param(LABELS, '{"RBC": "Present", "WBC": "absent"}', "RBC", id="marks-in-words"),
        pytest.param(LABELS, "{'RBC': True, 'WBC': False}", "RBC", id="python-marks"),
        pytest.param(LABELS, '{"labels": ["Edema", "Mass"]}', "Edema; Mass", id="list-under-a-key"),
        pytest.param(LABELS, '{"findings": "Edema; Mass"}', "Edema; Mass", id="text-under-a-key"),
        pytest.param(LABELS, '[{"label": "Edema"}, {"label": "Mass"}]', "Edema; Mass", id="objects"),
        pytest.param(LABELS, '"[\\"Edema\\", \\"Mass\\"]"', "Edema; Mass", id="list-in-a-string"),
        pytest.param(LABELS, '```json\n["Edema"]\n```', "Edema", id="fenced"),
        pytest.param(LABELS, '["a, b, and c", "d"]', "a, b, and c; d", id="comma-in-a-label"),
        pytest.param(LABELS, "Edema; Mass", "Edema; Mass", id="plain-labels"),
        pytest.param(LABELS, '{"RBC": 0}', "", id="no-label"),
        pytest.param(LABELS, '{"RBC": 0.7}', None, id="scores"),
        pytest.param(LABELS, "[1, 0, 1]", None, id="marks-of-unknown-labels"),
        pytest.param(LABELS, '{"RBC": [[1, 2, 3, 4]]}', None, id="boxes"),
        pytest.param(LABELS, '["a; b", "c"]', None, id="separator-in-a-label"),
        pytest.param(CHOICE, '["A"]', "A", id="one-letter"),
        pytest.param(CHOICE, '{"answer": "A", "why": "round"}', "A", id="answer-and-why"),
        pytest.param(CHOICE, '{"diagnosis": "Benign"}', "Benign", id="label-under-a-key"),
        pytest.param(CHOICE, '{"benign": 0, "malignant": 1}', "malignant", id="one-hot"),
        pytest.param(CHOICE, '"A"', "A", id="string"),
        pytest.param(CHOICE, '["A", "B"]', None, id="two-letters"),
        pytest.param(CHOICE, '{"A": 0.9, "B": 0.1}', None, id="probabilities"),
        pytest.param(CHOICE, "A", "A", id="plain-letter"),
        pytest.param(COUNT, '{"count": 17}', "17", id="count"),
        pytest.param(COUNT, "[17]", "17", id="number-in-a-list"),
        pytest.param(COUNT, '{"red": 3, "white": 4}', None, id="two-counts"),
        pytest.param(NUMBER, '{"abr": 1.10}', "1.10", id="decimals-stay"),
        pytest.param(NUMBER, '{"abr": 0.00001}', "0.00001", id="no-exponent"),
        pytest.param(NUMBER, '{"abr": "34.7%"}', "34.7%", id="number-as-text"),
        pytest.param(NUMBER, "[true]", None, id="truth-is-no-number"),
        pytest.param(REPORT, '{"findings": "Clear."}', "Clear.", id="report"),
        pytest.param(REPORT, '["The heart is normal.", "The lungs are clear."]',
                     "The heart is normal. The lungs are clear.", id="sentences"),
        pytest.param(REPORT, '{"findings": "Clear.", "impression": ["Normal.", "Old scar."]}',
                     "Findings: Clear.\nImpression: Normal. Old scar.", id="sections"),
        pytest.param(REPORT, '{"findings": {"edema": 1}}', None, id="marks-are-no-report"),
        pytest.param(REPORT, "A mass [1] and {2}", "A mass [1] and {2}", id="brackets-in-prose"),
        pytest.param(REPORT, '["cut off', '["cut off', id="broken-data"),
    ],
)  # fmt: skip
def test_plain_form(task: Task, text: str, plain: str | None) -> None:
    assert plain_text(text, task) == plain


def test_labels_are_joined_as_the_dataset_does() -> None:
    assert plain_text('["Edema", "Mass"]', LABELS, ",") == "Edema, Mass"
    assert plain_text('["a, b", "c"]', LABELS, ",") is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [("1e-05", "0.00001"), ("1.5E+3", "1500"), ("-2e1", "-20"), ("1.10", "1.10"), ("1e300", "1e300"), ("e5", "e5"),
     ("17 cells", "17 cells")],
)  # fmt: skip
def test_numbers_in_plain_digits(text: str, plain: str) -> None:
    assert plain_number(text) == plain


@pytest.mark.parametrize(
    "text",
    ["9" * 1_000_000, "[" * 50_000, "[" + "-" * 19_000 + "1]", "[" + "1+" * 9_000 + "1]", '"' * 100_000,
     "[" * 9_000 + "]" * 9_000, '{"1": ' * 20_000 + "}", "A、" + " " * 1_000_000 + "B、", "1、" * 100_000],
    ids=lambda text: f"{text[:4]} x {len(text)}",
)  # fmt: skip
def test_hostile_data_is_read_at_once(text: str) -> None:
    start = time.process_time()
    for task in (LABELS, CHOICE, COUNT, REPORT):
        plain_text(normalise(text), task)
        plain_number(text)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("task", "text", "value", "reason"),
    [
        pytest.param(LABELS, '{"RBC": 1, "WBC": 0}', ("rbc",), None, id="marks"),
        pytest.param(LABELS, '["a, b", "c"]', ("a, b", "c"), None, id="comma-in-a-label"),
        pytest.param(LABELS, "[]", (), None, id="no-label"),
        pytest.param(LABELS, '{"RBC": 0}', (), None, id="none-marked"),
        pytest.param(LABELS, '{"RBC": 0.7}', None, "structured", id="scores"),
        pytest.param(CHOICE, '{"benign": 0, "malignant": 1}', "malignant", None, id="one-hot"),
        pytest.param(COUNT, '{"count": 17}', 17.0, None, id="count"),
        pytest.param(REPORT, '{"findings": "Clear."}', "Clear.", None, id="report"),
        pytest.param(REPORT, '{"a": {"b": 1}}', '{"a": {"b": 1}}', None, id="a-report-is-never-judged"),
    ],
)
def test_data_is_understood_as_its_plain_form(task: Task, text: str, value: object, reason: str | None) -> None:
    answer = parse_answer(text, task, separator=";" if task is LABELS else None)
    assert (answer.value, answer.reason) == (value, reason)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8).map(repr)
       | st.text(alphabet="[]{}\"'\\:,1aN "))  # fmt: skip
def test_any_text_has_a_form_or_none(text: str) -> None:
    for task in (LABELS, CHOICE, COUNT, NUMBER, REPORT):
        assert isinstance(plain_text(text, task), str | None)
    assert isinstance(label_list(text), list | None)
