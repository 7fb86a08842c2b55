"""Which frame the boxes of a dataset are in, by their numbers."""

import numpy as np
import pytest

from medvl.boxes import Boxes, Frame, Size, as_boxes, to_frame
from medvl.source_frames import better_frames, likely_frame

VGA, LARGE = (640, 480), (2000, 1500)


@pytest.mark.parametrize(
    ("boxes", "size", "stated", "others"),
    [
        pytest.param([[10, 20, 600, 470]], VGA, "pixel", (), id="pixels"),
        pytest.param([[10, 20, 641, 481]], VGA, "pixel", (), id="a-pixel-outside"),
        pytest.param([[100, 200, 900, 950]], VGA, "pixel", ("norm1000",), id="0-1000-as-pixels"),
        pytest.param([[0.1, 0.2, 0.9, 0.95]], VGA, "pixel", ("norm1",), id="0-1-as-pixels"),
        pytest.param([[0.1, 0.2, 0.9, 0.95]], VGA, "norm1000", ("norm1",), id="0-1-as-0-1000"),
        pytest.param([[0.1, 0.2, 0.9, 0.95]], VGA, "norm1", (), id="0-1"),
        pytest.param([[100, 200, 1900, 1400]], LARGE, "norm1000", ("pixel",), id="pixels-as-0-1000"),
        pytest.param([[100, 200, 600, 400]], VGA, "norm1", ("norm1000", "pixel"), id="either-as-0-1"),
        pytest.param([[100, 200, 5000, 400]], VGA, "pixel", (), id="in-no-frame"),
        pytest.param([], VGA, "pixel", (), id="no-boxes"),
        pytest.param([[0, 0, 0, 0]], VGA, "pixel", (), id="zeros"),
    ],
)
def test_frames_that_an_answer_fits_better(
    boxes: list[list[float]], size: Size, stated: Frame, others: tuple[Frame, ...]
) -> None:
    assert better_frames(as_boxes(boxes), size, stated) == others


@pytest.mark.parametrize("text", ["<|box_start|>(25,72),(439,470)<|box_end|>", "<box>[[25,72,439,470]]</box>",
                                  "<|ref|>a<|/ref|><|det|>[[25,72,439,470]]<|/det|>"])  # fmt: skip
def test_special_tokens_stand_for_their_familys_frame(text: str) -> None:
    assert better_frames(as_boxes([25, 72, 439, 470]), VGA, "pixel", text) == ("norm1000",)
    assert better_frames(as_boxes([25, 72, 439, 470]), VGA, "norm1000", text) == ()


def drawn(size: Size, count: int) -> Boxes:
    """Random boxes in pixels."""
    corners = np.random.default_rng(count).uniform(0, 1, (count, 2, 2)) * size
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


@pytest.mark.parametrize("frame", Frame)
@pytest.mark.parametrize("size", [(100, 80), VGA, LARGE])
def test_many_boxes_tell_their_frame(size: Size, frame: Frame) -> None:
    assert likely_frame([(to_frame(drawn(size, 40), size, frame), size)]) == frame


def test_a_slip_or_two_do_not_change_the_frame() -> None:
    boxes = np.concatenate([drawn(VGA, 300), as_boxes([[10, 10, 900, 20], [0, 0, 1, 1]])])
    assert likely_frame([(boxes, VGA)]) == "pixel"


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([], id="no-answers"),
        pytest.param([(as_boxes([]), VGA)], id="no-boxes"),
        pytest.param([(as_boxes([10, 20, 60, 70]), VGA)], id="a-box-that-fits-both"),
        pytest.param([(drawn((1000, 1000), 40), (1000, 1000))], id="images-of-1000-pixels"),
        pytest.param([(drawn((9000, 9000), 40), VGA)], id="neither"),
    ],
)
def test_no_frame_is_guessed(answers: list[tuple[Boxes, Size]]) -> None:
    assert likely_frame(answers) is None
