"""References whose boxes are no pixels, as which they are read: whatever is scored against them is scored wrongly."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from evaluation.samples import Sample
from medvl.box_text import ParsedBoxes, parse_boxes
from medvl.boxes import Boxes, Frame, Size
from medvl.source_frames import likely_frame

_LOOKED_AT = 200  # references of a dataset: they tell its frame, and their images may have to be opened


def references_elsewhere(samples: Sequence[Sample]) -> Iterator[tuple[str, Frame, list[str]]]:
    """Datasets whose reference boxes, taken together, fit another frame than pixels, with that and their ids."""
    by_dataset: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if isinstance(sample.truth.value, ParsedBoxes) and len(sample.truth.value.boxes):
            by_dataset[sample.reference.dataset].append(sample)
    for dataset, group in by_dataset.items():
        likely = likely_frame(list(_as_written(group[:: max(len(group) // _LOOKED_AT, 1)])))
        if likely not in (None, Frame.PIXEL):
            yield dataset, likely, [sample.reference.id for sample in group]


def _as_written(samples: Sequence[Sample]) -> Iterator[tuple[Boxes, Size]]:
    """Boxes of references that do not state their frame themselves, with the sizes of images that are known."""
    for sample in samples:
        parsed, size = parse_boxes(sample.reference.answer), sample.reference.image_size()
        if parsed.frame is None and size is not None:
            yield parsed.boxes, size
