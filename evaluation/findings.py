"""What can be found beside the numbers: troubles of a file, where answers fail and how, which samples to look at. Plain
data, ready for JSON.

Every text from a model is an excerpt and hostile: whoever shows it escapes it.
"""

from dataclasses import dataclass
from typing import Literal

from medvl.boxes import Frame


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        code: Key in the provenance of metrics.json.
        count: How many.
        text: What that means, for the reader.
        examples: The first few; per_sample.jsonl has all of those that concern single samples.
        fatal: Whether the file is refused.
        cure: What to do about it, where it is fatal.
    """

    code: str
    count: int
    text: str
    examples: tuple[str, ...] = ()
    fatal: bool = False
    cure: str = ""


@dataclass(frozen=True)
class Example:
    """A sample to look at.

    Attributes:
        id: The reference's id.
        prediction: Start of the model's text, None if there is none.
        reference: Start of the reference's text.
    """

    id: str
    prediction: str | None
    reference: str


@dataclass(frozen=True)
class Failure:
    """One kind of trouble with the answers of a dataset's task.

    Attributes:
        task: Canonical task name.
        dataset: Dataset name.
        kind: Code of the parser, e.g. "prose", "several_letters", "truncated"; "no_prediction" for a missing one.
        effect: "invalid" if these answers count as wrong, "repaired" if they were read all the same.
        count: Number of answers.
        share: Of the dataset's samples of that task.
        examples: The first few.
    """

    task: str
    dataset: str
    kind: str
    effect: Literal["invalid", "repaired"]
    count: int
    share: float
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class OtherFrame:
    """Boxes of a dataset, or of some of its images, that fit their references much better in another frame.

    A finding, never a rescore.

    Attributes:
        dataset: Dataset name.
        task: Canonical task name.
        frame: Frame they were scored in.
        mean_iou: Mean IoU over all references in it.
        fits: Frame that fits better.
        mean_iou_there: Mean IoU over all references in that one.
        n: Number of images it was measured on.
        ids: References whose boxes fit that frame far better.
        here: Number of images whose boxes fit the frame they were scored in far better.
    """

    dataset: str
    task: str
    frame: Frame
    mean_iou: float
    fits: Frame
    mean_iou_there: float
    n: int
    ids: tuple[str, ...] = ()
    here: int = 0

    @property
    def cure(self) -> str:
        """What to do about it. A whole file can be read in another frame, a mixed one cannot."""
        if self.here:
            return "the file mixes frames: write all its boxes in one and score again"
        return f"check what the model was trained to write and score again with --frame {self.fits}"

    @property
    def text(self) -> str:
        """The finding in one sentence."""
        how = f"the references far better as {self.fits} than as {self.frame}, as which they were scored"
        means = f"mean IoU {self.mean_iou_there:.3f} instead of {self.mean_iou:.3f}"
        return f"boxes of {len(self.ids):,} of {self.n:,} images of {self.dataset} ({self.task}) fit {how} ({means})"


@dataclass(frozen=True)
class CutOff:
    """Answers of a dataset that end as if a token limit had cut them off.

    Attributes:
        task: Canonical task name.
        dataset: Dataset name.
        count: Number of answers.
        share: Of the dataset's samples of that task.
        median_characters: Median length of these answers.
        mean_score: Their mean score, None where they have none.
        examples: The first few, with the end of the answer instead of its start.
    """

    task: str
    dataset: str
    count: int
    share: float
    median_characters: int
    mean_score: float | None
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix, one per dataset and set of options.

    Attributes:
        task: Canonical task name.
        dataset: Dataset name.
        options: Letters offered, e.g. "ABCD"; empty for questions without letters.
        truth: Row names: classes of the references.
        predicted: Column names: the same classes, then OTHER (a class that is never the truth) and INVALID.
        counts: counts[i][j] references of class truth[i] were answered predicted[j].
    """

    task: str
    dataset: str
    options: str
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class LengthBin:
    """How well answers of a certain length do.

    Attributes:
        task: Canonical task name.
        shortest: Fewest characters in the bin.
        longest: Most characters in the bin.
        n: Number of answers.
        n_invalid: How many of them count as wrong because they cannot be read.
        mean_score: Mean of the samples' scores (see `quantity`), None where none has one.
        quantity: What the score is: "accuracy", "f1", "rouge_l" (higher is better) or "absolute_error".
    """

    task: str
    shortest: int
    longest: int
    n: int
    n_invalid: int
    mean_score: float | None
    quantity: str


@dataclass(frozen=True)
class Histogram:
    """Counts of a quantity in bins.

    Attributes:
        task: Canonical task name.
        dataset: Dataset name.
        quantity: "iou" (best assigned IoU per reference box) or "absolute_error" (per valid answer).
        edges: Bin edges, one more than counts.
        counts: Number in each bin; a value on an inner edge belongs to the bin above it.
    """

    task: str
    dataset: str
    quantity: Literal["iou", "absolute_error"]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Worst:
    """One of the worst samples of a task.

    Attributes:
        task: Canonical task name.
        dataset: Dataset name.
        id: The reference's id.
        score: The sample's score; for an invalid number None.
        quantity: As in `LengthBin`.
        reason: Why the answer is invalid, None if it is not.
        question: Start of the question.
        images: Image names as written.
        prediction: Start of the model's text.
        reference: Start of the reference's text.
    """

    task: str
    dataset: str
    id: str
    score: float | None
    quantity: str
    reason: str | None
    question: str
    images: tuple[str, ...]
    prediction: str | None
    reference: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything the page shows beside the scores. `msgspec.to_builtins` makes JSON of it."""

    failures: tuple[Failure, ...]
    other_frames: tuple[OtherFrame, ...]
    cut_off: tuple[CutOff, ...]
    confusions: tuple[Confusion, ...]
    lengths: tuple[LengthBin, ...]
    histograms: tuple[Histogram, ...]
    worst: tuple[Worst, ...]
