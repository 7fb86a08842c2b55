"""The diagnosis of an evaluation: where answers fail and how, and the worst samples (`evaluation.findings`)."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np

from evaluation.findings import Confusion, CutOff, Diagnosis, Example, Failure, Histogram, LengthBin, Worst
from evaluation.frame_diagnosis import other_frames
from evaluation.matching import iou_matrix, match
from evaluation.metrics.choice import letters_of, truth_of
from evaluation.metrics.registry import Floats
from evaluation.samples import Sample
from evaluation.scores import Evaluation, TaskScores
from evaluation.worst import in_turn, worst_rows
from medvl.box_text import ParsedBoxes
from medvl.boxes import Frame
from medvl.tasks import TASKS, Task

EXCERPT = 300  # characters of a text that are kept
_EXAMPLES, _WORST, _CLASSES, _BINS = 3, 20, 30, 5
_ERROR_EDGES = tuple(step * 10.0**power for power in range(6) for step in (1, 2, 5))
# An answer as long as this that ends in the middle of a sentence was cut off; short ones end as they like.
_CUT_LEAST = 200
_ENDS = re.compile(r"[.!?:;)\]}\"'`*|>$\u201d\u3002]\s*$")
Groups = dict[tuple[Task, str], list[Sample]]


def diagnose(evaluation: Evaluation) -> Diagnosis:
    """The diagnosis; scores are those of the first rules."""
    groups: Groups = defaultdict(list)
    for sample in evaluation.samples:
        groups[sample.reference.task, sample.reference.dataset].append(sample)
    groups = {key: groups[key] for key in sorted(groups)}
    scores = evaluation.scores[evaluation.rules]
    score_of = {
        sample.reference.id: float(score)
        for part in scores.values()
        for sample, score in zip(part.samples, part.table.score, strict=True)
    }
    return Diagnosis(
        failures=tuple(_failures(groups)),
        other_frames=tuple(other_frames(groups, evaluation.frame or Frame.PIXEL)),
        cut_off=tuple(_cut_off(groups, score_of)),
        confusions=tuple(_confusions(groups)),
        lengths=tuple(chain.from_iterable(_lengths(task, part) for task, part in scores.items())),
        histograms=tuple(_histograms(groups, score_of)),
        worst=tuple(chain.from_iterable(_worst(task, part) for task, part in scores.items())),
    )


def excerpt(text: str | None, *, end: bool = False) -> str | None:
    """The start of a text, or its end; None for none."""
    if text is None or len(text) <= EXCERPT:
        return text
    return f"…{text[-EXCERPT:]}" if end else f"{text[:EXCERPT]}…"


def _examples(samples: Sequence[Sample], *, end: bool = False) -> tuple[Example, ...]:
    return tuple(
        Example(sample.reference.id, excerpt(sample.text, end=end), excerpt(sample.reference.answer) or "")
        for sample in samples[:_EXAMPLES]
    )


def _failures(groups: Groups) -> Iterator[Failure]:
    for (task, dataset), samples in groups.items():
        invalid: dict[str, list[Sample]] = defaultdict(list)
        repaired: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.invalid:
                invalid["no_prediction" if sample.text is None else sample.answer.reason or ""].append(sample)
            for code in () if sample.invalid else sample.answer.notes:
                repaired[code].append(sample)
        for kind, found in sorted(invalid.items(), key=lambda item: -len(item[1])):
            yield Failure(task, dataset, kind, "invalid", len(found), len(found) / len(samples), _examples(found))
        for kind, found in sorted(repaired.items(), key=lambda item: -len(item[1])):
            yield Failure(task, dataset, kind, "repaired", len(found), len(found) / len(samples), _examples(found))


def _cut_off(groups: Groups, score_of: dict[str, float]) -> Iterator[CutOff]:
    for (task, dataset), samples in groups.items():
        found = [sample for sample in samples if _is_cut_off(sample)]
        if found:
            scores = [score_of[sample.reference.id] for sample in found if sample.reference.id in score_of]
            median = int(np.median([len(sample.text or "") for sample in found]))
            share = len(found) / len(samples)
            yield CutOff(task, dataset, len(found), share, median, _mean(scores), _examples(found, end=True))


def _is_cut_off(sample: Sample) -> bool:
    """An open bracket at the end of a box answer; a long text that ends in the middle of a sentence."""
    if sample.exact or not sample.text:
        return False
    if sample.reference.task.has_boxes:
        return "truncated" in sample.answer.notes
    return len(sample.text) >= _CUT_LEAST and not _ENDS.search(sample.text[-20:])


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    with np.errstate(over="ignore"):  # infinite is null in JSON
        return float(np.mean(known)) if known else None


def _confusions(groups: Groups) -> Iterator[Confusion]:
    for (task, dataset), samples in groups.items():
        by_options: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples if task is Task.CLASSIFICATION else ():
            by_options[letters_of(sample.reference.question)].append(sample)
        for letters, asked in sorted(by_options.items()):
            yield _confusion(dataset, letters, asked)


def _confusion(dataset: str, letters: str, samples: Sequence[Sample]) -> Confusion:
    """The most frequent classes have a row each, all others share one; free text may hold hundreds."""
    frequent = [name for name, _ in Counter(map(truth_of, samples)).most_common(_CLASSES)]
    rows = sorted(frequent)
    rest = any(truth_of(sample) not in frequent for sample in samples)
    names = (*rows, *(("OTHER",) if rest else ()))
    columns = (*rows, "OTHER", "INVALID")
    counts = np.zeros((len(names), len(columns)), dtype=int)
    for sample in samples:
        truth = truth_of(sample)
        said = truth if sample.exact else sample.answer.value
        row = rows.index(truth) if truth in frequent else len(rows)
        column = len(rows) + 1 if sample.invalid else rows.index(str(said)) if said in frequent else len(rows)
        counts[row, column] += 1
    return Confusion(Task.CLASSIFICATION, dataset, letters, names, columns, tuple(map(tuple, counts.tolist())))


def _lengths(task: Task, scores: TaskScores) -> Iterator[LengthBin]:
    """Fifths of the answers by length; fewer where many are equally long."""
    rows = [row for row, sample in enumerate(scores.samples) if sample.text is not None]
    if not rows:
        return
    lengths = np.array([len(scores.samples[row].text or "") for row in rows])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _BINS + 1)[1:-1], method="inverted_cdf"))
    bins = np.searchsorted(edges, lengths, side="left")
    for number in np.unique(bins):
        inside = [row for row, its in zip(rows, bins, strict=True) if its == number]
        of_bin = lengths[bins == number]
        invalid = sum(scores.samples[row].invalid for row in inside)
        mean = _mean(scores.table.score[inside].tolist())
        yield LengthBin(task, int(of_bin.min()), int(of_bin.max()), len(inside), invalid, mean, TASKS[task].quantity)


def _histograms(groups: Groups, score_of: dict[str, float]) -> Iterator[Histogram]:
    for (task, dataset), samples in groups.items():
        if task.has_boxes:
            values = [match(iou_matrix(sample)).iou_of_truth for sample in samples if _is_boxes(sample)]
            yield _histogram(task, dataset, np.concatenate([np.zeros(0), *values]), tuple(np.arange(11) / 10))
        elif task.is_number:
            errors = np.array([score_of.get(sample.reference.id, np.nan) for sample in samples])
            errors = errors[np.isfinite(errors)]
            largest = errors.max(initial=1.0)
            edges = (0.0, *(edge for edge in _ERROR_EDGES if edge < largest), max(float(largest), _ERROR_EDGES[0]))
            yield _histogram(task, dataset, errors, edges)


def _is_boxes(sample: Sample) -> bool:
    return isinstance(sample.truth.value, ParsedBoxes)


def _histogram(task: Task, dataset: str, values: Floats, edges: tuple[float, ...]) -> Histogram:
    counts, _ = np.histogram(values, bins=edges)
    return Histogram(
        task, dataset, "iou" if task.has_boxes else "absolute_error", tuple(map(float, edges)), tuple(counts.tolist())
    )


def _worst(task: Task, scores: TaskScores) -> Iterator[Worst]:
    """The worst samples, datasets taking turns; wrong answers before those that could not be read, which `failures`
    shows by kind."""
    score = scores.table.score
    per_dataset = worst_rows(scores.samples, score.tolist(), _WORST, unreadable_first=False)
    for row in islice(in_turn(per_dataset[name] for name in sorted(per_dataset)), _WORST):
        sample, reference = scores.samples[row], scores.samples[row].reference
        yield Worst(
            task=task,
            dataset=reference.dataset,
            id=reference.id,
            score=float(score[row]) if np.isfinite(score[row]) else None,
            quantity=TASKS[task].quantity,
            reason=sample.answer.reason if sample.invalid else None,
            question=excerpt(reference.question) or "",
            images=reference.images,
            prediction=excerpt(sample.text),
            reference=excerpt(reference.answer) or "",
        )
