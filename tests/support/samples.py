"""Samples for metrics, written as pairs of reference and prediction."""

from collections.abc import Sequence

from evaluation.parsing import make_samples
from evaluation.samples import Joined, Prediction, Reference, Sample
from evaluation.scoring import score
from medvl.boxes import Frame, Size
from medvl.tasks import Task

LOSS = "How much is lost? A: None, B: One, C: Several"
NO_PREDICTION = "no prediction"  # no row at all, where None is a row without an answer
# (reference, prediction) and optionally the dataset and the question.
Case = tuple[str, str | None] | tuple[str, str | None, str] | tuple[str, str | None, str, str]


def samples_of(
    task: Task, cases: Sequence[Case], question: str = "?", *, frame: Frame = Frame.PIXEL, size: Size | None = None
) -> list[Sample]:
    pairs: list[tuple[Reference, Prediction | None]] = []
    for index, (truth, text, *more) in enumerate(cases):
        dataset, asked = (*more, *("d", question)[len(more) :])
        reference = Reference(str(index), task, dataset, asked, ("v/a.png",), truth, None, lambda: size, index)
        pairs.append((reference, None if text == NO_PREDICTION else Prediction(index, text)))
    return make_samples(Joined("key", pairs), frame)


def values(task: Task, cases: Sequence[Case], question: str = "?") -> dict[str, float | None]:
    """Pooled metrics of cases."""
    return {
        name: entry["value"] for name, entry in score(samples_of(task, cases, question), "strict")[task].pooled.items()
    }
