"""What decides how a row becomes a record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medvl.box_text import BoxStyle
from medvl.boxes import Frame
from medvl.control_tokens import KNOWN
from medvl.sources.base import Sample, Source

OnMissing = Literal["drop", "error", "keep-sample-drop-image"]


@dataclass(frozen=True)
class Options:
    """What decides how a row is converted.

    Attributes:
        source: Where the rows come from.
        frame: Frame of the boxes in the answers.
        box_style: Style of the boxes in the answers.
        on_missing: What to do with a record whose image is missing or broken.
        name: First part of record ids and entry names.
        max_images: How many images a record may have, evenly spaced over all it names; None for all.
        number_images: Whether the images of a record with several are numbered in the prompt.
        control_tokens: Text that puts a record aside.
        source_frame: Frame of the boxes in the source's texts; boxes as data have their own.
        source_frames: Question file -> its frame, where it is not `source_frame`.
    """

    source: Source
    frame: Frame
    box_style: BoxStyle
    on_missing: OnMissing
    name: str
    max_images: int | None = None
    number_images: bool = False
    control_tokens: frozenset[str] = KNOWN
    source_frame: Frame = Frame.PIXEL
    source_frames: Mapping[str, Frame] = field(default_factory=dict)

    def frame_of(self, sample: Sample) -> Frame:
        """Frame of the boxes in a row."""
        return sample.boxes.frame if sample.boxes else self.source_frames.get(str(sample.file.path), self.source_frame)
