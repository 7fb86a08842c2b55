"""Box arrays: frames, IoU and matching, against independent oracles."""

import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medvl.boxes import (
    Boxes,
    Frame,
    Size,
    area,
    as_boxes,
    clip,
    from_frame,
    iou,
    match_greedy,
    match_optimal,
    order_corners,
    to_frame,
)  # fmt: skip

# What the numbers of a frame can carry, as a share of the side: half a unit of the last decimal.
PRECISION: dict[Frame, float] = {"norm1000": 0.5 / 1000, "norm1": 0.5 / 1000}

SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
OVERLAPS = arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(0, 4)), elements=st.floats(0, 1, width=16))


def random_boxes(seed: int, count: int) -> Boxes:
    corners = np.random.default_rng(seed).uniform(0, 100, (count, 2, 2))
    return order_corners(corners.reshape(count, 4))


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        pytest.param([], (0, 4), id="none"),
        pytest.param([[]], (0, 4), id="one-empty-list"),
        pytest.param([1, 2, 3, 4], (1, 4), id="flat"),
        pytest.param([[1, 2, 3, 4], [5, 6, 7, 8]], (2, 4), id="nested"),
    ],
)
def test_as_boxes_shapes(values: list[object], shape: tuple[int, int]) -> None:
    boxes = as_boxes(values)  # type: ignore[arg-type]
    assert boxes.shape == shape
    assert boxes.dtype == np.float64


@pytest.mark.parametrize("values", [[1, 2, 3], [[1, 2, 3]], [[[1, 2, 3, 4]]], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_as_boxes_refuses_other_shapes(values: list[object]) -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 4\)"):
        as_boxes(values)  # type: ignore[arg-type]


def test_frames_by_hand() -> None:
    box, size = as_boxes([64, 120, 320, 480]), (640, 480)
    assert to_frame(box, size, "norm1000").tolist() == [[100, 250, 500, 1000]]
    assert to_frame(box, size, "norm1").tolist() == [[0.1, 0.25, 0.5, 1.0]]
    assert to_frame(box, size, "pixel").tolist() == [[64, 120, 320, 480]]


@pytest.mark.parametrize("frame", ["norm1000", "norm1"])
@given(size=SIZES, shares=arrays(np.float64, (3, 4), elements=st.floats(-0.5, 1.5)))
def test_a_frame_is_exact_to_half_a_thousandth_of_the_side(frame: Frame, size: Size, shares: Boxes) -> None:
    sides = np.array([*size, *size])
    there_and_back = from_frame(to_frame(shares * sides, size, frame), size, frame)
    assert np.abs(there_and_back / sides - shares).max() <= PRECISION[frame] * (1 + 1e-9)


@pytest.mark.parametrize("frame", Frame)
@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-1, 5)])
def test_a_image_without_extent_is_refused(frame: Frame, size: Size) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        to_frame(as_boxes([0, 0, 1, 1]), size, frame)


def test_clip_moves_corners_in_and_keeps_the_count() -> None:
    assert clip(as_boxes([[-5, 2, 30, 99], [50, 50, 60, 60]]), (20, 10)).tolist() == [[0, 2, 20, 10], [20, 10, 20, 10]]


def test_order_corners() -> None:
    assert order_corners(as_boxes([[9, 8, 1, 2], [1, 8, 9, 2]])).tolist() == [[1, 2, 9, 8], [1, 2, 9, 8]]
    assert order_corners(as_boxes([])).shape == (0, 4)


def test_area_of_inverted_boxes_and_lines_is_zero() -> None:
    assert area(as_boxes([[0, 0, 2, 3], [2, 3, 0, 0], [0, 0, 5, 0]])).tolist() == [6, 0, 0]


def test_iou_agrees_with_torchvision() -> None:
    torch = pytest.importorskip("torch")
    operations = pytest.importorskip("torchvision.ops")
    a, b = random_boxes(0, 40), random_boxes(1, 60)
    expected = operations.box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert (expected > 0).mean() > 0.2  # else the comparison would say little
    np.testing.assert_allclose(iou(a, b), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param([0, 0, 2, 2], [0, 0, 2, 2], 1.0, id="same"),
        pytest.param([0, 0, 2, 2], [2, 0, 4, 2], 0.0, id="touching"),
        pytest.param([0, 0, 4, 4], [1, 1, 3, 3], 0.25, id="inside"),
        pytest.param([5, 5, 5, 9], [5, 5, 5, 9], 0.0, id="line-never-overlaps-not-even-itself"),
        pytest.param([4, 4, 0, 0], [0, 0, 4, 4], 0.0, id="inverted"),
    ],
)
def test_iou_cases(a: list[float], b: list[float], expected: float) -> None:
    assert iou(as_boxes(a), as_boxes(b))[0, 0] == expected
    assert iou(as_boxes(b), as_boxes(a))[0, 0] == expected


def test_iou_of_nothing() -> None:
    assert iou(as_boxes([]), random_boxes(0, 3)).shape == (0, 3)
    assert iou(random_boxes(0, 3), as_boxes([])).shape == (3, 0)


def every_matching(rows: int, columns: int) -> list[list[tuple[int, int]]]:
    """All one-to-one pairings, of every length."""
    return [
        list(zip(chosen, order, strict=True))
        for length in range(min(rows, columns) + 1)
        for chosen in itertools.combinations(range(rows), length)
        for order in itertools.permutations(range(columns), length)
    ]


@given(OVERLAPS, st.sampled_from([0.1, 0.5, 0.75]))
def test_match_optimal_is_the_best_of_all_matchings(overlaps: np.ndarray, threshold: float) -> None:
    allowed = [pairs for pairs in every_matching(*overlaps.shape) if all(overlaps[pair] >= threshold for pair in pairs)]
    best = max((len(pairs), sum(overlaps[pair] for pair in pairs)) for pairs in allowed)
    found = [tuple(pair) for pair in match_optimal(overlaps, threshold).tolist()]
    assert found in allowed
    assert (len(found), sum(overlaps[pair] for pair in found)) == pytest.approx(best)


@given(OVERLAPS, st.randoms(use_true_random=False))
def test_match_optimal_scores_the_same_in_any_order(overlaps: np.ndarray, random: Random) -> None:
    rows, columns = (random.sample(range(side), side) for side in overlaps.shape)
    shuffled = overlaps[np.ix_(rows, columns)]

    def score(matrix: np.ndarray) -> tuple[int, float]:
        pairs = match_optimal(matrix, 0.3)
        return len(pairs), matrix[pairs[:, 0], pairs[:, 1]].sum()

    assert score(shuffled) == pytest.approx(score(overlaps))


def test_greedy_takes_the_best_pair_and_may_lose_a_pair_for_it() -> None:
    overlaps = np.array([[0.9, 0.6], [0.6, 0.0]])
    assert match_greedy(overlaps, 0.5).tolist() == [[0, 0]]
    assert match_optimal(overlaps, 0.5).tolist() == [[0, 1], [1, 0]]


def test_greedy_ties_go_to_the_lower_row_then_column() -> None:
    assert match_greedy(np.full((2, 2), 0.5), 0.5).tolist() == [[0, 0], [1, 1]]


@given(OVERLAPS, st.sampled_from([0.1, 0.5]))
def test_greedy_is_one_to_one_falling_and_leaves_no_allowed_pair(overlaps: np.ndarray, threshold: float) -> None:
    pairs = match_greedy(overlaps, threshold)
    rows, columns = pairs.T
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(pairs)
    assert (np.diff(overlaps[rows, columns]) <= 0).all()
    left = np.delete(np.delete(overlaps, rows, axis=0), columns, axis=1)
    assert not (left >= threshold).any()
