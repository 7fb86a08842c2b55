"""The rules `fada`: fetal ultrasound, every question by its own measure (`evaluation.metrics.ultrasound_answers`).

For the datasets that `preprocess/ultrasound.py` writes, told by their names: q1 to q8, q7_simple, …, report. Numbers of
different questions measure different things: read the table per dataset; of several questions together there is no
pooled `question_score`.

Q7 is a search for the abnormal, which is positive. Sensitivity and specificity are over the references that say normal
or abnormal; an answer that is missing, an error message, unreadable or `unclear` is neither, and so is wrong. Always
the same answer gives a balanced accuracy of 0.5, no answer gives 0.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import report
from evaluation.metrics.registry import Column, Floats, Sums, Table, metric, ratio, table
from evaluation.metrics.ultrasound_answers import is_blank, label, score_answer, sections, truth_label
from evaluation.samples import Sample
from medvl.errors import DataError
from medvl.sources.ultrasound_labels import QUESTIONS, Normality, Question, facts
from medvl.tasks import Task
from medvl.unwrapping import unwrap

RULES = "fada"
_QUESTIONS = (Task.MULTI_LABEL, Task.VQA, Task.CLASSIFICATION, Task.REPORT)
_WITH_Q7 = (Task.CLASSIFICATION, Task.REPORT)
_DATASET = re.compile(r"(q[1-8])(?:_\w+)?|report")
# Eight sections of the annotations have some 500; longer ones are a model gone wrong.
_MAX_CHARACTERS = 20_000
_SEVERAL = "several questions, each with a measure of its own: see the datasets"
_NO_REPORT, _NO_PROMPT = "no combined report", "no question about normality"
# A question that says which words to answer with, and the words.
_ONE_WORD = re.compile(r"\bone word\b", re.IGNORECASE)


def _question(sample: Sample) -> Question | None:
    """The question of a sample, None for a combined report.

    Raises:
        DataError: a dataset of something else.
    """
    found = _DATASET.fullmatch(sample.reference.dataset)
    if found is None:
        raise DataError(
            f"{sample.reference.id}: --rules {RULES} scores fetal ultrasound (datasets q1 to q8, report), not "
            f"{sample.reference.dataset}; leave these rules out"
        )
    return next((question for question in QUESTIONS if question == found[1]), None)


def _text(sample: Sample) -> str:
    """A model's words; none where there is no answer, or an error message instead."""
    if sample.text is None or sample.answer.reason == "error":
        return ""
    return unwrap(sample.text[:_MAX_CHARACTERS]).strip()


def _answers(sample: Sample) -> dict[Question, tuple[str, str]]:
    """What was said and what is right, for every question that the reference answers."""
    question, said = _question(sample), _text(sample)
    if question:
        return {question: (said, sample.reference.answer)}
    named = sections(said)
    right = sections(sample.reference.answer)
    return {question: (named.get(question, ""), text) for question, text in right.items() if not is_blank(text)}


@table(*_QUESTIONS, rules=RULES)
def questions(samples: Sequence[Sample]) -> Table:
    """Columns, one per question: `score` and `asked`; `precision` and `recall`; counts of Q7; sections of reports."""
    answers = [_answers(sample) for sample in samples]
    scores, asked, parts = np.zeros((len(samples), 8)), np.zeros((len(samples), 8)), np.zeros((len(samples), 2))
    for row, answered in enumerate(answers):
        for question, (said, truth) in answered.items():
            found = score_answer(question, said, truth)
            place = QUESTIONS.index(question)
            scores[row, place], asked[row, place] = found.score, 1.0
            parts[row] = found.precision, found.recall
    labels = [_labels(answered) for answered in answers]
    complete = np.array([_completeness(sample) for sample in samples], dtype=np.float64).reshape(-1, 2)
    kept = np.array([_kept_to_form(sample) for sample in samples], dtype=np.float64).reshape(-1, 2)
    agreed = _agreement(samples, [pair[0] if pair else None for pair in labels])
    mean = ratio(scores.sum(axis=1), asked.sum(axis=1), empty=0.0)
    columns: dict[str, Column] = {
        "scores": scores,
        "asked": asked,
        "mean": mean,
        "n": np.ones(len(samples)),
        "precision": parts[:, 0],
        "recall": parts[:, 1],
        "sections": complete[:, 0],
        "complete": (complete[:, 0] == 1.0).astype(np.float64),
        "reports": complete[:, 1],
        "kept": kept[:, 0],
        "prompts": kept[:, 1],
        "agreed": agreed[:, 0],
        "compared": agreed[:, 1],
        **_confusion(labels),
        **report.columns_by_models(samples),
    }
    return Table(np.array([not _text(sample) for sample in samples], dtype=bool), mean, columns)


def _labels(answered: dict[Question, tuple[str, str]]) -> tuple[Normality | None, Normality] | None:
    """What was said of normality and what is right; None where that was not asked."""
    if "q7" not in answered:
        return None
    said, truth = answered["q7"]
    return label(said) if said else None, truth_label(truth)


def _confusion(pairs: Sequence[tuple[Normality | None, Normality] | None]) -> dict[str, Column]:
    said = [None if pair is None else pair[0] for pair in pairs]
    truths = [None if pair is None else pair[1] for pair in pairs]

    def share(named: tuple[Normality | None, ...], truth: Normality) -> Floats:
        return np.array([t == truth and s in named for s, t in zip(said, truths, strict=True)], np.float64)

    return {
        "true_positives": share(("abnormal",), "abnormal"),
        "false_negatives": share(("normal", "unclear", None), "abnormal"),
        "true_negatives": share(("normal",), "normal"),
        "false_positives": share(("abnormal",), "normal"),
        "undecided_negatives": share(("unclear", None), "normal"),
        "decided": np.array([name in ("normal", "abnormal") for name in said], np.float64),
        "normality": np.array([pair is not None for pair in pairs], np.float64),
    }


def _completeness(sample: Sample) -> tuple[float, float]:
    """Share of the eight sections that a report has, and 1; both 0 where no report is asked for."""
    return (0.0, 0.0) if _question(sample) else (len(sections(_text(sample))) / len(QUESTIONS), 1.0)


def _kept_to_form(sample: Sample) -> tuple[float, float]:
    """Whether an answer to Q7 is in the form that was asked for, and 1; both 0 for other questions.

    A prompt that wants one word gets one of its three in capitals; any other gets words that say which it is.
    """
    if _question(sample) != "q7":
        return 0.0, 0.0
    text = _text(sample)
    if _ONE_WORD.search(sample.reference.question):
        return float(text.strip(" .*\n") in ("NORMAL", "ABNORMAL", "UNCLEAR")), 1.0
    return float(bool(text) and label(text) is not None), 1.0


def _agreement(samples: Sequence[Sample], labels: Sequence[Normality | None]) -> NDArray[np.float64]:
    """Of every answer to Q7 the share of answers to other prompts about its image that say the same, and 1; both 0
    where its image was asked about in one way only. What says nothing agrees with nothing."""
    images: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        if _question(sample) == "q7":
            images[sample.reference.key_names].append(row)
    agreed = np.zeros((len(samples), 2))
    for rows in images.values():
        for row in rows:
            asked = samples[row].reference.question
            others = [other for other in rows if samples[other].reference.question != asked]
            if others:
                same = [labels[row] is not None and labels[other] == labels[row] for other in others]
                agreed[row] = sum(same) / len(same), 1.0
    return agreed


@metric(*_QUESTIONS, name="question_score", headline=True, rules=RULES, undefined=_SEVERAL)
def question_score(sums: Sums) -> Floats:
    """Mean score of one question; of combined reports the mean over their sections."""
    several = ((sums["asked"] > 0).sum(axis=-1) > 1) & (sums["reports"] < sums["n"])
    return np.where(several, np.nan, ratio(sums["mean"], sums["n"]))


@metric(*_WITH_Q7, name="balanced_accuracy", headline=True, rules=RULES, undefined="not both normal and abnormal")
def balanced_accuracy(sums: Sums) -> Floats:
    """Mean of sensitivity and specificity."""
    return (sensitivity(sums) + specificity(sums)) / 2


@metric(*_WITH_Q7, name="sensitivity", headline=True, rules=RULES, undefined="no reference is abnormal")
def sensitivity(sums: Sums) -> Floats:
    """Share of the abnormal that is called abnormal."""
    return ratio(sums["true_positives"], sums["true_positives"] + sums["false_negatives"])


@metric(*_WITH_Q7, name="specificity", rules=RULES, undefined="no reference is normal")
def specificity(sums: Sums) -> Floats:
    """Share of the normal that is called normal."""
    negatives = sums["true_negatives"] + sums["false_positives"] + sums["undecided_negatives"]
    return ratio(sums["true_negatives"], negatives)


@metric(*_WITH_Q7, name="coverage", rules=RULES, undefined=_NO_PROMPT)
def coverage(sums: Sums) -> Floats:
    """Share of answers that say normal or abnormal."""
    return ratio(sums["decided"], sums["normality"])


@metric(Task.CLASSIFICATION, name="format_compliance", rules=RULES, undefined=_NO_PROMPT)
def format_compliance(sums: Sums) -> Floats:
    """Share of answers to Q7 in the form that its prompt asks for."""
    return ratio(sums["kept"], sums["prompts"])


@metric(Task.CLASSIFICATION, name="consistency", rules=RULES, undefined="no image is asked about in several ways")
def consistency(sums: Sums) -> Floats:
    """Share of pairs of prompts about an image whose answers say the same."""
    return ratio(sums["agreed"], sums["compared"])


@metric(Task.MULTI_LABEL, Task.VQA, name="precision", rules=RULES, undefined=_SEVERAL)
def precision(sums: Sums) -> Floats:
    """Mean share of what is named that is right."""
    return np.where((sums["asked"] > 0).sum(axis=-1) > 1, np.nan, ratio(sums["precision"], sums["n"]))


@metric(Task.MULTI_LABEL, Task.VQA, name="recall", rules=RULES, undefined=_SEVERAL)
def recall(sums: Sums) -> Floats:
    """Mean share of what is right that is named."""
    return np.where((sums["asked"] > 0).sum(axis=-1) > 1, np.nan, ratio(sums["recall"], sums["n"]))


@metric(Task.REPORT, name="section_completeness", headline=True, rules=RULES, undefined=_NO_REPORT)
def section_completeness(sums: Sums) -> Floats:
    """Mean share of the eight sections that are there."""
    return ratio(sums["sections"], sums["reports"])


@metric(Task.REPORT, name="complete_reports", rules=RULES, undefined=_NO_REPORT)
def complete_reports(sums: Sums) -> Floats:
    """Share of reports with all eight sections."""
    return ratio(sums["complete"], sums["reports"])


def _counted(name: str) -> None:
    @metric(*_WITH_Q7, name=name, detail=True, rules=RULES, higher_is_better=name.startswith("true"))
    def count(sums: Sums) -> Floats:
        return np.where(sums["normality"] > 0, sums[name], np.nan)


def _section(place: int, question: Question) -> None:
    """Declare the mean score of one section of combined reports."""
    name = facts()["questions"][question]["section"].lower().replace(" ", "_")

    @metric(Task.REPORT, name=f"{question}_{name}", detail=True, rules=RULES, undefined=_NO_REPORT)
    def section_score(sums: Sums) -> Floats:
        scored = ratio(sums["scores"][..., place], sums["asked"][..., place])
        return np.where(sums["reports"] > 0, scored, np.nan)


for _name in ("true_positives", "false_negatives", "true_negatives", "false_positives"):
    _counted(_name)
for _place, _each in enumerate(QUESTIONS):
    _section(_place, _each)
