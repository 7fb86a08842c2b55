"""Answers that no honest model gives: nothing crashes, everything is scored, and time grows with length only."""

import json
import time
from functools import partial
from pathlib import Path

import pytest

from evaluation.diagnosis import EXCERPT
from evaluation.metrics.registry import known_rules, scored_by
from evaluation.scores import Resampling
from evaluation.scoring import score as scored
from medvl.tasks import Task
from tests.support.samples import samples_of
from tests.support.scored_tree import build_tree, score, write_json

BOX = "[[10, 10, 20, 20]]"
TRUTH = {
    Task.CLASSIFICATION: "A", Task.MULTI_LABEL: "Caries; Cyst", Task.DETECTION: BOX, Task.COUNTING: "12",
    Task.INSTANCE_DETECTION: '{"1": [[10, 10, 20, 20]]}', Task.REGRESSION: "0.5", Task.REPORT: "Heart size is normal.",
    Task.VQA: "right upper lobe",
}  # fmt: skip
QUESTION = "Is it normal? A: No, B: Yes"
# The rules `fada` know datasets by name.
DATASET = {Task.CLASSIFICATION: "q7", Task.MULTI_LABEL: "q1", Task.VQA: "q4", Task.REPORT: "report"}
ANSWERS = {
    "nan": "nan",
    "boxes of nan and inf": "[[NaN, Infinity, -Infinity, 1e999]]",
    "huge numbers": f"[[{'9' * 400}, 1e308, -1e308, 1e-400]]",
    "Unicode digits": "١٢٣ [[\uff11, \uff12, \uff13, \uff14]]",
    "superscripts and fractions": "A² ½ ⑫",
    "HTML and scripts": "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{ 7 * 7 }}",
    "control characters": "\x00\x07\x1b[31mA\x7f\u202e\u2028\ufeff",
    "half a surrogate pair": '"\\ud83d" [[1, 2, 3, 4]]',
    "markup of the console": "[bold]A[/bold] [/] [link=file:///etc/passwd]",
    "a dict in a string in a dict": json.dumps({"a": json.dumps({"b": json.dumps({"c": BOX})})}),
    "a Python expression": "__import__('os').system('true')",
    "keys of another type": '{"1": {"2": null}, "3": [true, "x"], "4": {}}',
    "whitespace": " \t\n\u00a0\u3000",
}
# A unit that is repeated until the answer is long.
REPEATED = {
    "open brackets": "[[", "closed brackets": "]]", "open braces": '{"a":', "quotes": '"', "apostrophes": "'",
    "backslashes": "\\", "boxes": "[1, 2, 3, 4], ", "right boxes": "[10, 10, 20, 20], ", "letters": "A ",
    "options": "A: No ", "conclusions": "the answer is ", "digits": "1", "numbers": "12 ", "commas": ",",
    "semicolons": "a;", "words": "normal heart ",
    "minus signs": "-", "fences": "```", "tags": "<box>", "lines": "\n- a", "spaces": " ",
    "markup": "<b>",
    "role marks": "<|im_start|>", "errors": "Error: ",
}  # fmt: skip


@pytest.mark.parametrize("rules", known_rules())
@pytest.mark.parametrize("text", ANSWERS.values(), ids=ANSWERS)
def test_odd_answers_are_scored(text: str, rules: str) -> None:
    for task, truth in TRUTH.items():
        if not scored_by(rules, task):
            continue
        samples = samples_of(task, [(truth, said, DATASET.get(task, "d")) for said in (text, truth)], QUESTION)
        entries = scored(samples, rules, Resampling(20, cluster="sample"))[task].pooled
        assert entries and json.dumps(entries, allow_nan=False)


def seconds(task: Task, text: str, rules: str) -> float:
    start = time.process_time()
    scored(samples_of(task, [(TRUTH[task], text, DATASET.get(task, "d"))], QUESTION), rules)
    return time.process_time() - start


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """What a metric loads with its first sample takes no time of the tests below."""
    for rules in known_rules():
        for task in filter(partial(scored_by, rules), Task):
            seconds(task, TRUTH[task], rules)


@pytest.mark.parametrize("unit", REPEATED.values(), ids=REPEATED)
def test_long_answers_take_linear_time(unit: str) -> None:
    """10,000 characters of anything: quadratic work would take four seconds. A bound far from what is measured."""
    text = unit * (10_000 // len(unit))
    for rules in known_rules():
        for task in filter(partial(scored_by, rules), Task):
            assert seconds(task, text, rules) < 1, (task, rules)


@pytest.mark.slow
@pytest.mark.parametrize("rules", known_rules())
@pytest.mark.parametrize(("task", "unit"), [
    (Task.DETECTION, "[10, 10, 20, 20], "), (Task.REPORT, "normal heart "), (Task.CLASSIFICATION, "[["),
])  # fmt: skip
def test_three_hundred_thousand_characters_are_scored(task: Task, unit: str, rules: str) -> None:
    assert seconds(task, unit * (300_000 // len(unit)), rules) < 2


@pytest.mark.slow
def test_hostile_files_go_through_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = build_tree(tmp_path / "tree")
    texts = [*ANSWERS.values(), "[[" * 100_000, "x" * 1_000_000]
    said = [row | {"Answer": texts[index % len(texts)]} for index, row in enumerate(rows)]
    predictions = write_json(tmp_path / "predictions.json", said)
    metrics = score(predictions, tmp_path / "tree", tmp_path / "out", "--rules", "strict,official", "--force")
    assert metrics["counts"]["matched"] == len(rows)
    diagnosis = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    texts_shown = [example["prediction"] or "" for failure in diagnosis["failures"] for example in failure["examples"]]
    assert texts_shown and max(map(len, texts_shown)) <= EXCERPT + 1
    for name in ("metrics.json", "diagnosis.json", "per_sample.jsonl"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        for line in text.strip().split("\n") if name.endswith("l") else [text]:
            json.loads(line, parse_constant=pytest.fail)
