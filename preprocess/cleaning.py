"""`--clean`: what may be fixed or left out without a person's decision. Every change is listed, before and after.

Only training data is touched unless other splits are named: a score on cleaned references is another score.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from medvl.box_text import BoxStyle, format_boxes, parse_boxes
from medvl.boxes import Frame, area, order_corners
from medvl.sharegpt import Record
from medvl.sources.base import Repair, Sample
from preprocess.results import DatasetResult, Finding


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One record that was cleaned.

    Attributes:
        id: The record.
        codes: What was wrong with it.
        before: The answer as it stood, which stays in the record's `source`.
        after: The answer that is trained on instead; None if the record was dropped.
    """

    id: str
    codes: list[str]
    before: str
    after: str | None


def clean(
    part: DatasetResult,
    repairs: Mapping[str, Repair],
    samples: Mapping[int, Sample],
    convert: Callable[[Sample], tuple[Record | None, list[Finding]]],
) -> tuple[DatasetResult, list[Change]]:
    """Mend or drop what has a repair.

    Args:
        part: Audited records of one file.
        repairs: By code of finding: `REPAIRS` and those of the source.
        samples: Its rows by index.
        convert: Makes a record of a row.

    Returns:
        The part with cleaned records and their findings, and the changes.
    """
    codes: dict[str, list[str]] = {}
    for finding in part.findings:
        if finding.action == "kept" and finding.code in repairs:
            codes.setdefault(finding.id, []).append(finding.code)
    records: list[Record] = []
    findings = part.findings
    changes = []
    for record in part.records:
        after = _cleaned(record, codes[record.id], repairs) if record.id in codes else record.source.truth
        if after == record.source.truth:
            records.append(record)
            continue
        named = sorted(set(codes[record.id]))
        changes.append(Change(id=record.id, codes=named, before=record.source.truth, after=after))
        normalised, fresh = _reconverted(record, samples, convert, after) if after is not None else (None, [])
        if normalised:
            records.append(normalised)
        findings = [finding for finding in findings if not (finding.id == record.id and finding.code in named)]
        findings += [finding for finding in fresh if finding.code in repairs]
        findings.append(_finding(record, named, after if normalised else None))
    findings = sorted(findings, key=lambda finding: finding.index)
    return msgspec.structs.replace(part, records=records, findings=findings), changes


def _cleaned(record: Record, codes: list[str], repairs: Mapping[str, Repair]) -> str | None:
    """The answer to train on; None if the record is to be dropped."""
    answer: str | None = record.source.truth
    for code, repair in repairs.items():
        if code in codes and answer is not None:
            answer = repair.mend(record, answer)
    return answer


def _mend_corners(_: Record, answer: str) -> str:
    parsed = parse_boxes(answer)
    return _written(order_corners(parsed.boxes).tolist(), list(parsed.labels), parsed.empty_labels)


def _drop_empty_boxes(_: Record, answer: str) -> str | None:
    parsed = parse_boxes(answer)
    kept = [place for place, size in enumerate(area(parsed.boxes)) if size > 0]
    if not kept:  # "no box" would say that there is nothing to find
        return None
    return _written(parsed.boxes[kept].tolist(), [parsed.labels[place] for place in kept], parsed.empty_labels)


def _written(boxes: list[list[float]], labels: list[str | None], empty: Sequence[str]) -> str:
    """Boxes in the form of FLARE's own answers; where only some have names, which it does not know, as objects."""
    named = sum(label is not None for label in labels)
    style: BoxStyle = "flare" if not named else "map" if named == len(labels) else "json"
    return format_boxes(np.array(boxes), labels, style, Frame.PIXEL, empty_labels=empty)


def _drop(_: Record, answer: str) -> None:
    """Leave the row out."""


# What is done about findings in the data of any source. The order matters: a box is turned round before its area is
# looked at.
REPAIRS: dict[str, Repair] = {
    "INVERTED_BOX": Repair("inverted boxes are turned", _mend_corners),
    "ZERO_AREA_BOX": Repair("zero-area boxes are removed", _drop_empty_boxes),
    "SEVERAL_LETTERS": Repair("rows with several letters are dropped", _drop),
    "NUMBER_OUTLIER": Repair("outliers are dropped", _drop),
    "ROWS_CONTRADICT": Repair("contradictions are dropped", _drop),
}


def _reconverted(
    record: Record,
    samples: Mapping[int, Sample],
    convert: Callable[[Sample], tuple[Record | None, list[Finding]]],
    answer: str,
) -> tuple[Record | None, list[Finding]]:
    sample = samples[record.source.index]
    changed = msgspec.structs.replace(sample, answer=answer, written=answer, target=None, boxes=None)
    normalised, findings = convert(changed)
    if normalised is None:
        return None, findings
    # The answer alone is in pixels now: a box in the question stays as it was read, in the frame of its file.
    turns = [record.conversations[0], normalised.conversations[1]]
    return msgspec.structs.replace(normalised, source=record.source, conversations=turns), findings


def _finding(record: Record, codes: list[str], after: str | None) -> Finding:
    became = "dropped" if after is None else f"became {after[:200]!r}"
    said = f"{', '.join(codes)}: {record.source.truth[:200]!r} {became}"
    return Finding.about(record, "CLEANED", said, "dropped" if after is None else "kept")
