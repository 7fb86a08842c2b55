"""The strict metrics: their rules as cases, their values against independent oracles, what must not change them."""

# ruff: noqa: RUF001 (characters that look like ASCII are tested)

import math
import warnings
from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from evaluation.matching import overlaps
from evaluation.metrics import registry
from evaluation.metrics.choice import balanced_accuracy
from evaluation.metrics.registry import known_rules, metrics_of, scored_by, table_of
from evaluation.samples import Sample
from evaluation.scoring import score
from medvl.boxes import Frame, as_boxes
from medvl.tasks import Task
from tests.support.samples import LOSS, NO_PREDICTION, Case, samples_of, values

YES_NO = "Is there a fragment? A: No, B: Yes"


def test_every_task_has_metrics_and_a_headline() -> None:
    assert set(known_rules()) == {"strict", "official", "m3llm", "m3llm-v1", "fada"}
    for rules in known_rules():
        for task in (task for task in Task if scored_by(rules, task)):
            assert any(metric.headline for metric in metrics_of(rules, task)), (rules, task)
    assert [task for task in Task if not scored_by("official", task)] == [Task.VQA]


def test_other_rules_are_added_by_declaring_them() -> None:
    try:

        @registry.table(Task.REPORT, rules="mine")
        def same(samples: Sequence[Sample]) -> registry.Table:
            return table_of("strict", Task.REPORT, samples)

        @registry.metric(Task.REPORT, name="share_exact", rules="mine")
        def share_exact(sums: registry.Sums) -> registry.Floats:
            return registry.ratio(sums["rouge"], sums["n"])

        scores = score(samples_of(Task.REPORT, [("Normal.", "Normal."), ("Normal.", "")]), "mine")
        assert scores[Task.REPORT].pooled["share_exact"]["value"] == 0.5
    finally:
        del registry._TABLES["mine", Task.REPORT], registry._METRICS["mine", Task.REPORT]


RIGHT_OR_WRONG = {
    "letter": ("B", "B", YES_NO, True),
    "letter and text": ("B", "B: Yes", YES_NO, True),
    "text of the option": ("B", "yes", YES_NO, True),
    "another letter": ("B", "A", YES_NO, False),
    "no answer is wrong": ("B", None, YES_NO, False),
    "prose is wrong": ("B", "The image shows a jaw with many teeth in it and more", YES_NO, False),
    "letter that is not offered is wrong": ("B", "E", YES_NO, False),
    "dirty reference, its own text": ("T", " t", YES_NO, True),
    "dirty reference, what it may have meant": ("T", "B", YES_NO, False),
    "free text": ("Luminal a", "luminal A", "Subtype?", True),
    "free text in a sentence": ("Luminal a", "The subtype is Luminal a.", "Subtype?", True),
}


@pytest.mark.parametrize(("truth", "text", "question", "right"), RIGHT_OR_WRONG.values(), ids=RIGHT_OR_WRONG)
def test_classification_case(truth: str, text: str | None, question: str, right: bool) -> None:
    assert values(Task.CLASSIFICATION, [(truth, text)], question)["accuracy"] == float(right)


letters = st.sampled_from("ABC")
answers = st.one_of(letters, st.sampled_from(["", "no idea", "Z"]))


@given(st.lists(st.tuples(letters, answers), min_size=1, max_size=20))
def test_classification_agrees_with_sklearn_on_labels(pairs: list[tuple[str, str]]) -> None:
    truth = [truth for truth, _ in pairs]
    predicted = [text if text in "ABC" and text else "INVALID" for _, text in pairs]
    found = values(Task.CLASSIFICATION, pairs, LOSS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about predictions that are no class of the truth
        expected = balanced_accuracy_score(truth, predicted)
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx(np.mean(np.equal(truth, predicted)))
    labels = sorted(set(truth))
    scored = f1_score(truth, predicted, labels=labels, average="macro", zero_division=0)
    unread = predicted.count("INVALID")
    assert found["f1_macro"] == pytest.approx(scored) if not unread else (found["f1_macro"] or 0) <= scored + 1e-9
    worst = [np.mean([_f1(truth, [*predicted, *charged], name) for name in labels])
             for charged in combinations_with_replacement(labels, unread)]  # fmt: skip
    assert found["f1_macro"] == pytest.approx(min(worst))


def _f1(truth: list[str], predicted: list[str], name: str) -> float:
    """F1 of a class; claims beyond the length of `truth` are false ones."""
    hits = sum(said == name for asked, said in zip(truth, predicted, strict=False) if asked == name)
    return 2 * hits / (truth.count(name) + predicted.count(name))


NAMESPACES: dict[str, tuple[list[Case], float]] = {
    "one dataset and question: A .5, B 0":
        ([("A", "A", "d", LOSS), ("A", "B", "d", LOSS), ("B", "A", "d", LOSS)], 0.25),
    "A of two datasets is two classes": ([("A", "A", "d", LOSS), ("A", "B", "e", LOSS), ("A", "B", "e", LOSS)], 0.5),
    "A of two questions is two classes":
        ([("A", "A", "d", LOSS), ("A", "B", "d", YES_NO), ("A", "B", "d", YES_NO)], 0.5),
    "a reworded question has the same classes":
        ([("A", "A", "d", LOSS), ("A", "B", "d", LOSS.replace("None", "Nothing")), ("A", "A", "d", LOSS)], 2 / 3),
}  # fmt: skip


@pytest.mark.parametrize(("cases", "expected"), NAMESPACES.values(), ids=NAMESPACES)
def test_a_class_belongs_to_its_dataset_and_options(cases: list[Case], expected: float) -> None:
    assert values(Task.CLASSIFICATION, cases)["balanced_accuracy"] == pytest.approx(expected)


def test_macro_is_the_mean_over_datasets() -> None:
    cases: list[Case] = [("A", "A", "d"), ("A", "A", "d"), ("A", "A", "d"), ("A", "B", "e")]
    scores = score(samples_of(Task.CLASSIFICATION, [(*case, LOSS) for case in cases]), "strict")[Task.CLASSIFICATION]
    assert scores.pooled["accuracy"]["value"] == 0.75
    assert scores.macro["accuracy"]["value"] == 0.5 and scores.macro["accuracy"]["n_datasets"] == 2


REPORTS = {
    "thoughts": ("The heart is normal.", "Is it large?</think>\nThe heart is normal."),
    "template": ("The heart is normal.", "The heart is normal.<|im_end|>\n<|im_start|>user\nAnd the lungs?"),
    "reference as data": ('{"findings": "The heart is normal."}', "The heart is normal."),
    "data against words": ("The heart is normal.", '["The heart is normal."]'),
}


@pytest.mark.parametrize(("truth", "text"), REPORTS.values(), ids=REPORTS)
def test_a_report_is_scored_without_what_stands_around_it(truth: str, text: str) -> None:
    assert values(Task.REPORT, [(truth, text)])["rouge_l"] == 1
    assert values(Task.REPORT, [(truth, text)])["bleu4"] == pytest.approx(1)


SCRIPTS = {
    "letter": ("B", "Ｂ。", "诊断是什么？A、良性 B、恶性"),
    "letter in the reference": ("B。", "答案：B", "诊断是什么？A、良性 B、恶性"),
    "text": ("恶性", "B、恶性", "诊断是什么？（A）良性（B）恶性"),
    "free label": ("Ｍａｓｓ", "mass.", "Which abnormality?"),
    "free label as data": ('{"label": "Mass"}', "Mass", "Which abnormality?"),
}


@pytest.mark.parametrize(("truth", "text", "question"), SCRIPTS.values(), ids=SCRIPTS)
def test_choices_are_compared_in_one_width(truth: str, text: str, question: str) -> None:
    assert values(Task.CLASSIFICATION, [(truth, text)], question)["accuracy"] == 1


def test_macro_has_no_value_where_a_dataset_has_none() -> None:
    scores = score(samples_of(Task.COUNTING, [("1", "2", "d"), ("1", "no idea", "e")]), "strict")[Task.COUNTING]
    assert scores.macro["mae"]["value"] is None
    assert scores.macro["mae"]["reason"] == "no value for e: no valid answer"
    assert scores.macro["mae_penalised"]["value"] == 1.0


OFFER = "Select from the following: Caries; Pulp Diseases; Treatment, Restorative, and Complications."
LABEL_SETS = {
    "same": ("Caries; Pulp Diseases", "Caries; Pulp Diseases", (2, 0, 0)),
    "another order": ("Caries; Pulp Diseases", "pulp diseases;caries", (2, 0, 0)),
    "twice the same label counts once": ("Caries", "Caries; Caries", (1, 0, 0)),
    "commas inside a label": ("Treatment, Restorative, and Complications", "Treatment, Restorative, and Complications",
                              (1, 0, 0)),
    "one missed, one invented": ("Caries", "Pulp Diseases", (0, 1, 1)),
    "unknown label": ("Caries", "Caries; Bubbles", (1, 1, 0)),
    "no answer: one false label besides those missed": ("Caries; Pulp Diseases", None, (0, 1, 2)),
    "a blank answer": ("Caries", " ", (0, 1, 1)),
    "a refusal": ("Caries", "I cannot tell.", (0, 1, 1)),
    "end of thoughts": ("Caries; Pulp Diseases", "It may be Caries.</think>\n\nCaries; Pulp Diseases", (2, 0, 0)),
    "another script's semicolon": ("Caries；Pulp Diseases", "Pulp Diseases；Caries", (2, 0, 0)),
    "against the usual one": ("Caries；Pulp Diseases", "Pulp Diseases; Caries", (2, 0, 0)),
    "marked labels": ('{"Caries": 1, "Pulp Diseases": 0}', "Caries", (1, 0, 0)),
    "marked labels on both sides": ('{"Caries": 1, "Pulp Diseases": 0}', "{'Caries': True}", (1, 0, 0)),
    "list of labels": ('["Caries", "Pulp Diseases"]', "Caries; Pulp Diseases", (2, 0, 0)),
    "no label in a list": ("none", "[]", (0, 0, 0)),
    "nothing to find, nothing found": ("none", "None of the above", (0, 0, 0)),
    "nothing to find, no answer: one false label": ("none", None, (0, 1, 0)),
}  # fmt: skip


@pytest.mark.parametrize(("truth", "text", "counts"), LABEL_SETS.values(), ids=LABEL_SETS)
def test_multi_label_case(truth: str, text: str | None, counts: tuple[int, int, int]) -> None:
    table = table_of("strict", Task.MULTI_LABEL, samples_of(Task.MULTI_LABEL, [(truth, text)], OFFER))
    assert tuple(table.counts(0).values()) == counts
    tp, fp, fn = counts
    assert table.score[0] == (1.0 if tp + fp + fn == 0 else 2 * tp / (2 * tp + fp + fn))


LABELS = ["bone", "caries", "cyst", "pulp"]
label_lists = st.lists(st.sampled_from(LABELS), unique=True, max_size=4)


@given(st.lists(st.tuples(label_lists, label_lists), min_size=1, max_size=15))
def test_multi_label_agrees_with_sklearn(pairs: list[tuple[list[str], list[str]]]) -> None:
    cases: list[Case] = [("; ".join(truth) or "none", "; ".join(predicted) or "none") for truth, predicted in pairs]
    found = values(Task.MULTI_LABEL, cases)
    truth, predicted = (MultiLabelBinarizer(classes=LABELS).fit_transform([pair[side] for pair in pairs])
                        for side in (0, 1))  # fmt: skip
    assert found["f1_micro"] == pytest.approx(f1_score(truth, predicted, average="micro", zero_division=1))
    assert found["f1_samples"] == pytest.approx(f1_score(truth, predicted, average="samples", zero_division=1))
    present = np.flatnonzero(truth.sum(axis=0))
    if len(present):
        expected = f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
        assert found["f1_macro"] == pytest.approx(expected)
    else:
        assert found["f1_macro"] is None


DETECTIONS = {
    "same box": ("[[0, 0, 10, 10]]", "[[0, 0, 10, 10]]", (1, 0, 0)),
    "corners the other way round": ("[[0, 0, 10, 10]]", "[[10, 10, 0, 0]]", (1, 0, 0)),
    "IoU exactly 0.5 counts": ("[[0, 0, 10, 10]]", "[[0, 0, 10, 5]]", (1, 0, 0)),
    "IoU below 0.5": ("[[0, 0, 10, 10]]", "[[0, 0, 10, 4.9]]", (0, 1, 1)),
    "labels do not matter": ("[[0, 0, 10, 10]]", '[{"bbox_2d": [0, 0, 10, 10], "label": "x"}]', (1, 0, 0)),
    "a copy is found once": ("[[0, 0, 10, 10]]", "[[0, 0, 10, 10], [0, 0, 10, 10]]", (1, 1, 0)),
    "nothing to find, nothing claimed": ("[]", "[]", (0, 0, 0)),
    "nothing to find, no answer: one false box": ("[]", None, (0, 1, 0)),
    "no answer: one false box besides those missed": ("[[0, 0, 10, 10], [20, 20, 30, 30]]", "I cannot tell", (0, 1, 2)),
    "a blank answer": ("[[0, 0, 10, 10]]", " ", (0, 1, 1)),
    "no prediction": ("[[0, 0, 10, 10]]", NO_PREDICTION, (0, 1, 1)),
    "reference in words, no answer": ("no lesion seen", None, (0, 1, 1)),
    "truth without area, copied": ("[[5, 5, 5, 5]]", "[[5, 5, 5, 5]]", (1, 0, 0)),
    "truth without area, within a pixel": ("[[5, 5, 5, 5]]", "[[5, 5, 5.6, 4.4]]", (1, 0, 0)),
    "truth without area, missed by more": ("[[5, 5, 5, 5]]", "[[5, 5, 7, 7]]", (0, 1, 1)),
    "reference in words, its own text": ("no lesion seen", "No lesion  seen", (1, 0, 0)),
    "reference in words, a box": ("no lesion seen", "[[20, 20, 30, 30]]", (0, 1, 1)),
}


@pytest.mark.parametrize(("truth", "text", "counts"), DETECTIONS.values(), ids=DETECTIONS)
def test_detection_case(truth: str, text: str | None, counts: tuple[int, int, int]) -> None:
    table = table_of("strict", Task.DETECTION, samples_of(Task.DETECTION, [(truth, text)]))
    assert tuple(table.counts(0).values()) == counts


OF_DETECTION = ("f1_iou50", "precision_iou50", "recall_iou50", "f1_iou75", "mean_iou")
DIRECTIONS = {metric.name: metric.higher_is_better for metric in metrics_of("strict", Task.DETECTION)}


def test_detection_values_are_pooled_over_images() -> None:
    cases: list[Case] = [
        ("[[0, 0, 10, 10], [20, 20, 30, 30]]", "[[0, 0, 10, 8]]"),  # IoU .8, one missed
        ("[[0, 0, 10, 10]]", "[[0, 0, 10, 6], [50, 50, 60, 60]]"),  # IoU .6, one invented
        ("[]", "[]"),
    ]
    found = values(Task.DETECTION, cases)
    assert {name: found[name] for name in OF_DETECTION} == pytest.approx({
        "f1_iou50": 4 / 6, "precision_iou50": 2 / 3, "recall_iou50": 2 / 3, "f1_iou75": 2 / 6, "mean_iou": 1.4 / 3,
    })  # fmt: skip


@pytest.mark.parametrize(("truth", "text", "f1", "precision", "recall"), [
    ("[]", "[]", 1.0, 1.0, None),  # nothing to find and nothing claimed
    ("[]", "[[0, 0, 1, 1]]", 0.0, 0.0, None),
    ("[[0, 0, 9, 9]]", "[]", 0.0, 0.0, 0.0),
])  # fmt: skip
def test_detection_without_boxes_on_a_side(
    truth: str, text: str, f1: float, precision: float, recall: float | None
) -> None:
    found = values(Task.DETECTION, [(truth, text)])
    assert (found["f1_iou50"], found["precision_iou50"], found["recall_iou50"]) == (f1, precision, recall)


def test_matching_finds_as_many_pairs_as_there_are() -> None:
    """Best pair first would take the first two, at IoU .82, and leave the others with .25."""
    found = values(Task.DETECTION, [("[[0, 0, 10, 10], [0, 3, 10, 13]]", "[[0, 1, 10, 11], [0, -3, 10, 7]]")])
    assert found["recall_iou50"] == 1.0


INSTANCES = {
    "same label": ('{"1": [[0, 0, 10, 10]]}', '{"1": [[0, 0, 10, 10]]}', 1.0),
    "another label": ('{"1": [[0, 0, 10, 10]]}', '{"2": [[0, 0, 10, 10]]}', 0.0),
    "case of the label": ('{"X": [[0, 0, 10, 10]]}', '{"x": [[0, 0, 10, 10]]}', 1.0),
    "another style": ('{"X": [[0, 0, 10, 10]]}', '[{"bbox_2d": [0, 0, 10, 10], "label": "X"}]', 1.0),
    "one of two": ('{"1": [[0, 0, 9, 9]], "2": [[0, 0, 9, 9]]}', '{"1": [[0, 0, 9, 9]]}', 2 / 3),
}


@pytest.mark.parametrize(("truth", "text", "f1"), INSTANCES.values(), ids=INSTANCES)
def test_instances_match_within_their_label(truth: str, text: str, f1: float) -> None:
    assert values(Task.INSTANCE_DETECTION, [(truth, text)])["f1_iou50"] == pytest.approx(f1)


def test_instance_f1_at_both_thresholds() -> None:
    found = values(Task.INSTANCE_DETECTION, [('{"1": [[0, 0, 10, 10]]}', '{"1": [[0, 0, 10, 4]]}')])
    assert (found["f1_iou50"], found["f1_iou30"]) == (0.0, 1.0)


box = st.tuples(*[st.integers(0, 20)] * 4).map(list)
# Reproduce other systems, whose scores depend on the order of boxes.
IN_ORDER = ("mean_iou_matched", "accuracy_iou50", "aspect_bias", "grounding_loss")


@given(st.lists(box, max_size=5), st.lists(box, max_size=5), st.data())
def test_order_of_boxes_changes_nothing(
    truth: list[list[int]], predicted: list[list[int]], data: st.DataObject
) -> None:
    shuffled = [data.draw(st.permutations(boxes)) for boxes in (truth, predicted)]
    sides = (truth, predicted), shuffled
    first, second = (values(Task.DETECTION, [(str(side[0]), str(side[1]))]) for side in sides)
    assert [first.pop(name) for name in IN_ORDER] and [second.pop(name) for name in IN_ORDER]
    assert first == pytest.approx(second)


@given(st.lists(box, max_size=6))
def test_boxes_against_themselves_are_perfect(boxes: list[list[int]]) -> None:
    found = values(Task.DETECTION, [(str(boxes), str(boxes))])
    best = {name: 1.0 if higher else 0.0 for name, higher in DIRECTIONS.items() if name != "duplicate_rate"}
    assert {name: found[name] for name in best if found[name] is not None}.items() <= best.items()


@given(st.lists(box, min_size=1, max_size=5))
def test_copies_of_right_boxes_cost_precision(truth: list[list[int]]) -> None:
    found = values(Task.DETECTION, [(str(truth), str(truth * 3))])
    assert (found["recall_iou50"], found["precision_iou50"]) == (1.0, pytest.approx(1 / 3))


@pytest.mark.parametrize(("frame", "text", "right"), [
    ("pixel", "[[50, 20, 100, 80]]", True),
    ("norm1000", "[[250, 200, 500, 800]]", True),  # of an image of 200 x 100
    ("norm1000", "[[50, 20, 100, 80]]", False),  # the reference's own numbers are another box in this frame
    ("norm1", "[[0.25, 0.2, 0.5, 0.8]]", True),
])  # fmt: skip
def test_boxes_are_read_in_their_frame(frame: Frame, text: str, right: bool) -> None:
    samples = samples_of(Task.DETECTION, [("[[50, 20, 100, 80]]", text)], frame=frame, size=(200, 100))
    assert score(samples, "strict")[Task.DETECTION].pooled["f1_iou75"]["value"] == float(right)


def test_overlaps_leave_ordinary_boxes_to_iou() -> None:
    matrix = overlaps(as_boxes([[0, 0, 10, 10], [3, 3, 3, 3]]), as_boxes([[0, 0, 10, 5], [3, 3, 3, 3]]))
    assert matrix.tolist() == [[0.5, 0.0], [0.0, 1.0]]


NUMBERS: dict[str, tuple[list[Case], dict[str, float | None]]] = {
    "errors": ([("10", "12"), ("20", "16")],
               {"mae": 3.0, "rmse": math.sqrt(10), "mae_penalised": 3.0, "rmse_penalised": math.sqrt(10)}),
    "thousands and words": ([("1664", "about 1,664 cells")],
                            {"mae": 0, "rmse": 0, "mae_penalised": 0, "rmse_penalised": 0}),
    "an invalid answer counts as the farther end of 0-20":
        ([("5", "5"), ("20", "no idea"), ("8", None)],
         {"mae": 0, "rmse": 0, "mae_penalised": (20 + 12) / 3, "rmse_penalised": math.sqrt((400 + 144) / 3)}),
    "silence is no good answer to a truth of 0":
        ([("0", ""), ("30", "30")], {"mae": 0, "rmse": 0, "mae_penalised": 15, "rmse_penalised": math.sqrt(450)}),
    "only invalid": ([("5", "")], {"mae": None, "rmse": None, "mae_penalised": 5, "rmse_penalised": 5}),
    "the range is the dataset's own":
        ([("5", "", "d"), ("1000", "1000", "e")],
         {"mae": 0, "rmse": 0, "mae_penalised": 2.5, "rmse_penalised": math.sqrt(12.5)}),
    "infinite": ([("5", "1e999"), ("5", "5")],
                 {"mae": 0, "rmse": 0, "mae_penalised": 2.5, "rmse_penalised": math.sqrt(12.5)}),
    "a reference that is no number is not scored": ([("unclear", "5"), ("5", "6")],
                                                    {"mae": 1, "rmse": 1, "mae_penalised": 1, "rmse_penalised": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("cases", "expected"), NUMBERS.values(), ids=NUMBERS)
def test_number_case(cases: list[Case], expected: dict[str, float | None]) -> None:
    assert values(Task.COUNTING, cases) == pytest.approx(expected)
    assert values(Task.REGRESSION, cases) == pytest.approx(expected)


@given(st.lists(st.integers(0, 500), min_size=2, max_size=9), st.integers(0, 500), st.data())
def test_no_guess_within_the_range_does_worse_than_none(references: list[int], guess: int, data: st.DataObject) -> None:
    guess = min(guess, max(references))
    silent = values(Task.COUNTING, [(str(truth), "") for truth in references])["mae_penalised"]
    guessed = values(Task.COUNTING, [(str(truth), str(guess)) for truth in references])["mae_penalised"]
    assert silent is not None and guessed is not None and guessed <= silent + 1e-9


def test_overflow_is_null_with_a_reason() -> None:
    entry = score(samples_of(Task.COUNTING, [("1", "1e300")]), "strict")[Task.COUNTING].pooled["rmse"]
    assert entry["value"] is None and entry["reason"] == "not a finite number: inf"


def test_reports_agree_with_the_libraries() -> None:
    truth = ["Heart size is normal.", "No focal consolidation or effusion.", "Normal."]
    said = ["The heart size is normal.", "There is a focal consolidation.", "normal"]
    found = values(Task.REPORT, list(zip(truth, said, strict=True)))
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(target, text)["rougeL"].fmeasure for target, text in zip(truth, said, strict=True)]
    assert found["rouge_l"] == pytest.approx(np.mean(rouge))
    assert found["bleu4"] == pytest.approx(sacrebleu.corpus_bleu(said, [truth], lowercase=True).score / 100)


REPORTS: dict[str, tuple[list[Case], float, float]] = {
    "same text": ([("Heart size is normal.", "Heart size is normal.")], 1.0, 1.0),
    "case and spaces": ([("Heart size is normal.", "heart SIZE\nis  normal.")], 1.0, 1.0),
    "shorter than four words": ([("Normal.", "Normal.")], 1.0, 1.0),
    "another script, same text": ([("心脏大小正常", "心脏大小正常")], 1.0, 1.0),
    "no answer": ([("Heart size is normal.", None)], 0.0, 0.0),
    "error message in its place": ([("Error rates are low.", "Error: timeout")], 0.0, 0.0),
}


@pytest.mark.parametrize(("cases", "rouge", "bleu"), REPORTS.values(), ids=REPORTS)
def test_report_case(cases: list[Case], rouge: float, bleu: float) -> None:
    found = values(Task.REPORT, cases)
    assert (found["rouge_l"], found["bleu4"]) == (pytest.approx(rouge), pytest.approx(bleu))


@pytest.mark.parametrize("task", list(Task))
@given(data=st.data())
def test_order_of_samples_changes_nothing(task: Task, data: st.DataObject) -> None:
    texts = {
        Task.CLASSIFICATION: ["A", "B", "?"], Task.MULTI_LABEL: ["a; b", "b", "none"], Task.REPORT: ["a b", "b c d"],
        Task.VQA: ["yes", "left lobe", "lobe"],
        Task.DETECTION: ["[[0, 0, 5, 5]]", "[]"], Task.INSTANCE_DETECTION: ['{"1": [0, 0, 5, 5]}', "{}"],
    }  # fmt: skip
    answer = st.sampled_from(texts.get(task, ["1", "7.5", "12"]))
    cases = data.draw(st.lists(st.tuples(answer, st.one_of(answer, st.none())), min_size=1, max_size=8))
    shuffled = data.draw(st.permutations(cases))
    assert values(task, cases, YES_NO) == pytest.approx(values(task, shuffled, YES_NO))


def test_weighted_sums_are_those_of_repeated_samples() -> None:
    cases: list[Case] = [("A", "A"), ("A", "B"), ("B", "B"), ("C", "A")]
    table = table_of("strict", Task.CLASSIFICATION, samples_of(Task.CLASSIFICATION, cases, LOSS))
    drawn = {name: np.array([1, 2, 0, 1])[None] @ column for name, column in table.columns.items()}
    expected = values(Task.CLASSIFICATION, [cases[row] for row in (0, 1, 1, 3)], LOSS)["balanced_accuracy"]
    assert balanced_accuracy(drawn) == pytest.approx([expected])


@pytest.mark.parametrize(("truth", "said", "flipped"), [
    ("No pleural effusion is seen.", "No pleural effusion.", "Pleural effusion."),
    ("The heart is enlarged.", "The heart is enlarged.", "The heart is not enlarged."),
])  # fmt: skip
def test_a_flipped_negation_lowers_report_scores(truth: str, said: str, flipped: str) -> None:
    """They fall only a little: overlap of words is no clinical truth, which the names of these metrics do not claim."""
    right, wrong = (values(Task.REPORT, [(truth, text)]) for text in (said, flipped))
    for name in ("rouge_l", "bleu4"):
        assert (wrong[name] or 0) < (right[name] or 0), name


def test_copies_of_right_labels_and_words_never_help() -> None:
    assert values(Task.MULTI_LABEL, [("a; b", "a; a; a")]) == values(Task.MULTI_LABEL, [("a; b", "a")])
    texts = ("Heart size.", "Heart size. Heart size.")
    once, twice = (values(Task.REPORT, [("Heart size is normal.", text)]) for text in texts)
    assert (twice["rouge_l"] or 0) <= (once["rouge_l"] or 0)
