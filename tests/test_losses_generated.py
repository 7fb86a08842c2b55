"""The reference system's quantities, and a reward that listing many boxes does not raise."""

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.box_text import BOX_STYLES, format_boxes
from medvl.boxes import Frame, as_boxes, to_frame
from medvl.losses.generated import Comparison, compare, documented_penalty, scripted_penalty
from medvl.losses.grounding import reward, rewards

SIZE = (800, 600)
TRUTH = [[80, 60, 240, 180], [400, 300, 480, 420], [640, 60, 720, 120]]


def text(boxes: Any, style: Any = "json", frame: Any = "norm1000", labels: Any = None) -> str:
    boxes = as_boxes(boxes)
    return format_boxes(to_frame(boxes, SIZE, frame), labels or ["cell"] * len(boxes), style, frame)


# The reference's quantities


def test_pairs_are_greedy_one_to_one_and_reach_half() -> None:
    truth = as_boxes([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    said = as_boxes([[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 5], [40, 0, 50, 4.9]])
    found = compare(said, truth)
    assert found.overlaps == (1.0, 0.5)
    assert (found.false_positives, found.false_negatives, found.mean_iou) == (2, 1, 0.75)


@pytest.mark.parametrize(
    ("said", "truth", "documented", "scripted"),
    [
        ([[0, 0, 10, 10]], [[0, 0, 10, 10]], 0, 0),
        ([[0, 0, 10, 8]], [[0, 0, 10, 10]], 0.2, -math.log(0.8)),
        ([[0, 0, 10, 10], [50, 50, 60, 60]], [[0, 0, 10, 10]], 0.5, 1),
        ([[0, 0, 10, 10]], [[0, 0, 10, 10], [50, 50, 60, 60]], 1, 1),
        ([[90, 90, 99, 99]], [[0, 0, 10, 10]], 1 + 0.5 + 1, -math.log(1e-6)),
        ([], [[0, 0, 10, 10]], 1 + 1, 1 - math.log(1e-6)),
        ([], [], 0, -math.log(1e-6)),
    ],
    ids=["exact", "overlap 0.8", "one too many", "one missed", "beside", "nothing said", "nothing to say"],
)
def test_penalties_of_one_answer(said: Any, truth: Any, documented: float, scripted: float) -> None:
    found = compare(as_boxes(said), as_boxes(truth))
    assert documented_penalty([found]) == pytest.approx(documented)
    assert scripted_penalty([found]) == pytest.approx(scripted)


def test_penalties_of_several_answers() -> None:
    one, other = Comparison((0.8,), 2, 1), Comparison((), 3, 1)
    assert documented_penalty([one, other], alpha=1, beta=2, gamma=10) == pytest.approx((0.2 + 2 + 1 + 6 + 10) / 2)
    assert scripted_penalty([one, other], alpha=2) == pytest.approx(
        -math.log((math.exp(-2) * 0.8 + math.exp(-4) * 1e-6) / 2)
    )
    assert documented_penalty([]) == scripted_penalty([]) == 0
    assert math.isfinite(scripted_penalty([Comparison((), 5000, 1)]))


# The reward


@pytest.mark.parametrize("style", BOX_STYLES)
@pytest.mark.parametrize("frame", Frame)
def test_an_exact_answer_is_worth_one(style: Any, frame: Any) -> None:
    said = text(TRUTH, style, frame)
    assert reward(said, TRUTH, SIZE, frame=frame) == pytest.approx(1, abs=0.02)
    assert reward(said, said, SIZE, frame=frame) == 1
    assert reward(f"Sure:\n```json\n{said}\n```", said, SIZE, frame=frame) == 1
    assert reward(f"Perhaps [[1, 2, 3, 4]].</think>{said}<|im_end|>", said, SIZE, frame=frame) == 1


@pytest.mark.parametrize("empty", ["[]", "{}", "<box>[]</box>", "<box></box>", "```json\n[]\n```"])
def test_the_empty_answer(empty: str) -> None:
    assert reward(empty, [], SIZE) == reward(empty, "[]", SIZE) == 1
    assert reward(empty, TRUTH, SIZE) == 0
    assert reward(text(TRUTH), [], SIZE) == reward(text(TRUTH), "[]", SIZE) == 0


@pytest.mark.parametrize("said", ["", "I see three cells.", "[", '[{"bbox_2d":[1,2,3', "[1, 2]", "42", "\x00", "<box>"])
def test_what_is_no_answer_is_worth_nothing(said: str) -> None:
    assert reward(said, TRUTH, SIZE) == reward(said, [], SIZE) == 0


def grid(columns: int, rows: int) -> list[list[float]]:
    width, height = SIZE[0] / columns, SIZE[1] / rows
    return [[x * width, y * height, (x + 1) * width, (y + 1) * height] for y in range(rows) for x in range(columns)]


JITTER = np.random.default_rng(0).normal(0, 8, (60, 3, 4))
HACKS = {
    "a grid of 200": grid(20, 10),
    "a grid of 12": grid(4, 3),
    "the truth in a grid": [*TRUTH, *grid(20, 10)],
    "each box twice": TRUTH * 2,
    "each box 60 times, moved about": [*TRUTH, *(np.array(TRUTH) + JITTER).reshape(-1, 4).tolist()],
    "a giant box": [[0, 0, *SIZE]],
    "the truth and a giant box": [*TRUTH, [0, 0, *SIZE]],
    "each in two sizes": [*TRUTH, *[[a - 9, b - 9, c + 9, d + 9] for a, b, c, d in TRUTH]],
    "one safe box": TRUTH[:1],
}


@pytest.mark.parametrize("boxes", HACKS.values(), ids=HACKS)
def test_hacks_are_worth_clearly_less_than_an_honest_answer(boxes: Any) -> None:
    honest = [[a + 6, b - 4, c + 6, d - 4] for a, b, c, d in TRUTH]  # all found, none exactly
    assert reward(text(boxes), TRUTH, SIZE) < reward(text(honest), TRUTH, SIZE) - 0.1


def test_listing_pays_less_the_longer_the_list() -> None:
    values = [reward(text([*TRUTH, *grid(20, 10)[:more]]), TRUTH, SIZE) for more in (0, 1, 3, 10, 200)]
    assert values == sorted(values, reverse=True)
    assert values[1] < 0.7
    assert values[-1] < 0.001


def test_the_length_penalty_can_be_turned() -> None:
    said = text([*TRUTH, [0, 0, 5, 5]])
    softer, plain, harder = (reward(said, TRUTH, SIZE, length_penalty=penalty) for penalty in (0, 1, 3))
    assert softer == pytest.approx(6 / 7, abs=0.01)
    assert plain == pytest.approx(softer * 3 / 4)
    assert harder == pytest.approx(softer * (3 / 4) ** 3)


def test_labels_count_where_the_truth_has_them() -> None:
    truth = text(TRUTH, labels=["cell", "Platelet", None])
    assert reward(text(TRUTH, labels=["cell ", "platelet", "any"]), truth, SIZE) == 1
    assert reward(text(TRUTH, labels=["platelet", "cell", "any"]), truth, SIZE) == pytest.approx(1 / 3)
    assert reward(text(TRUTH, labels=[None, None, None]), truth, SIZE) == pytest.approx(1 / 3)
    assert reward(text(TRUTH, labels=["platelet", "cell", "any"]), TRUTH, SIZE) == pytest.approx(1, abs=0.02)


def test_corners_in_any_order_and_outside_the_image_are_read_as_the_scorer_reads_them() -> None:
    assert reward("[[500,500,0,0]]", [[0, 0, 400, 300]], SIZE) == 1
    assert reward("[[-200,-100,500,500]]", [[0, 0, 400, 300]], SIZE) == 1


def test_a_truth_that_is_no_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="holds no boxes: 'three cells'"):
        reward("[]", "three cells", SIZE)
    with pytest.raises(ValueError, match="shape"):
        reward("[]", [[1, 2, 3]], SIZE)


@settings(max_examples=50)
@given(
    said=st.lists(st.lists(st.integers(-10, 1010), min_size=4, max_size=4), max_size=8),
    truth=st.lists(st.lists(st.integers(0, 800), min_size=4, max_size=4), max_size=4),
    order=st.randoms(),
)
def test_between_zero_and_one_in_any_order(said: Any, truth: Any, order: Any) -> None:
    value = reward(json.dumps(said), truth, SIZE)
    shuffled = order.sample(said, len(said))
    assert 0 <= value <= 1
    assert reward(json.dumps(shuffled), truth, SIZE) == pytest.approx(value)


def test_the_signature_of_grpo_trainers() -> None:
    columns: dict[str, Any] = {"truth": [TRUTH, "[]"], "size": [SIZE, list(SIZE)], "prompts": ["?", "?"]}
    assert rewards(completions=[text(TRUTH), "none"], **columns) == [pytest.approx(1, abs=0.02), 0]
    messages = [[{"role": "assistant", "content": said}] for said in (text(TRUTH), "[]")]
    assert rewards(completions=messages, completion_ids=[[1], [2]], **columns) == [pytest.approx(1, abs=0.02), 1]


def test_grpo_trainers_can_have_another_frame_and_penalty() -> None:
    def worth(said: str, **options: Any) -> float:
        return rewards([said], [TRUTH], [SIZE], **options)[0]

    assert worth(text(TRUTH, frame="pixel"), frame="pixel") == pytest.approx(1)
    assert worth(text(TRUTH, frame="pixel")) < 0.9, "the frame was not ignored"
    twice = text([*TRUTH, *TRUTH])
    assert worth(twice, length_penalty=0.0) == pytest.approx(2 * worth(twice))


@pytest.mark.subprocess
def test_neither_torch_nor_scipy_is_needed_to_import() -> None:
    code = "import sys; from medvl.losses.grounding import reward; assert not {'torch', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"MEDVL_DISABLE": "1"}, timeout=60)


@pytest.mark.parametrize("frame", Frame)
def test_a_key_that_states_its_own_frame_is_rewarded_in_it(frame: Frame) -> None:
    text = '[{"box_2d": [250, 100, 750, 500]}]'
    width, height = SIZE
    assert reward(text, [[width / 10, height / 4, width / 2, 3 * height / 4]], SIZE, frame=frame) == pytest.approx(1.0)
