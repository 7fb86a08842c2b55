"""The grounding loss: real gradients where they belong, values that agree with independent oracles."""

import functools
import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.box_text import format_boxes
from medvl.boxes import as_boxes

torch = pytest.importorskip("torch")
from scipy.stats import wasserstein_distance  # noqa: E402
from torchvision import ops  # noqa: E402

from medvl.demo.tokenizer import internvl3_tokenizer  # noqa: E402
from medvl.losses.coordinates import Targets, Vocabulary, find_targets  # noqa: E402
from medvl.losses.generated import compare, documented_penalty  # noqa: E402
from medvl.losses.grounding import (  # noqa: E402
    IOU_KINDS,
    GroundingSettings,
    Terms,
    box_loss,
    combine,
    expected_offsets,
    grounding_terms,
)

TOKENIZER = internvl3_tokenizer(['[{"bbox_2d":[1,2],"label":"ship"},{"bbox_2d":[3,4]}]'] * 9, 400)
VOCABULARY = Vocabulary.of(TOKENIZER)
END = "<|im_end|>\n"
NOTHING = torch.zeros(0, 10)


def row(text: str) -> Any:
    return torch.tensor([-100, *TOKENIZER.encode(text + END, add_special_tokens=False)])


def batch(*texts: str) -> Any:
    return torch.nn.utils.rnn.pad_sequence([row(text) for text in texts], batch_first=True, padding_value=-100)


def answer(*boxes: list[float], style: Any = "json") -> str:
    return format_boxes(as_boxes(list(boxes)), ["ship"] * len(boxes), style, "norm1000")


def targets_of(*texts: str) -> Targets:
    return find_targets(batch(*texts), VOCABULARY)


def values(terms: Terms) -> list[float]:
    return [float(term.detach()) for term in (terms.w1, terms.iou, terms.fp, terms.fn)]


def random_logits(targets: Targets, seed: int = 0, dtype: Any = torch.float64, spread: float = 2.0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(targets.rows), len(targets.columns))
    return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def peaked(targets: Targets, said: Any = None, height: float = 1e4) -> Any:
    """Logits that say the true tokens, or the digits `said` of shape (n, 4, k)."""
    logits = torch.full((len(targets.rows), len(targets.columns)), -height)
    logits[targets.decision_rows, targets.choices[:, 0]] = height
    real = targets.places != 0
    digits = targets.digits if said is None else said
    logits[targets.digit_rows[real], digits[real]] = height
    return logits.requires_grad_()


TEXTS = (
    answer([12, 345, 678, 900], [5, 5, 5, 5]),
    answer([0, 0, 9, 9], style="map"),
    answer(),
    answer([7, 700, 70, 7], style="internvl"),
)


# Gradients


DIFFERENTIABLE = [kind for kind in IOU_KINDS if kind != "ciou"]  # whose trade-off factor is a constant by definition


@pytest.mark.parametrize("term", ["w1", "fp", "fn", *DIFFERENTIABLE])
def test_finite_differences(term: Any) -> None:
    """Element by element: along one random direction, what a place or a box lacks is below the tolerance."""
    targets = targets_of(answer([12, 5, 678, 900]), answer())  # one to three digits, an object missed, one too many
    options = GroundingSettings(iou=term) if term in IOU_KINDS else GroundingSettings()
    name = "iou" if term in IOU_KINDS else term
    function = partial(grounding_terms, targets=targets, settings=options)
    assert torch.autograd.gradcheck(lambda logits: getattr(function(logits), name), random_logits(targets))


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_finite_differences_of_the_sum_from_the_hidden_states(kind: Any) -> None:
    targets, options = targets_of(*TEXTS), GroundingSettings(iou=kind, scale=1)
    states, head, pick = (
        torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(shape[0]))
        for shape in ((4, 2), (len(TOKENIZER), 2), (len(targets.rows), 4))
    )

    def loss(states: Any, head: Any) -> Any:
        return combine(grounding_terms(pick @ states @ head[targets.columns].T, targets, options), options, 0.7)

    inputs = (states.requires_grad_(), head.requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_gradients_stand_on_coordinates_and_decisions_and_nowhere_else() -> None:
    labels = batch(*TEXTS)
    targets = find_targets(labels, VOCABULARY)
    logits = torch.randn(*labels.shape, len(TOKENIZER), requires_grad=True)
    flat = logits.flatten(0, 1)
    terms = grounding_terms(flat[targets.rows][:, targets.columns], targets, GroundingSettings())
    combine(terms, GroundingSettings()).backward()
    moved = logits.grad.flatten(0, 1) != 0
    expected = torch.zeros_like(moved)
    real = targets.places != 0
    expected[targets.rows[targets.digit_rows[real]][:, None], targets.columns[:10]] = True
    for index, choices in zip(targets.decision_rows, targets.choices, strict=True):
        expected[targets.rows[index], targets.columns[choices[choices >= 0]]] = True
    assert (moved == expected).all()
    predicted = labels.flatten()[targets.rows + 1]  # what the moved outputs are asked for
    assert (predicted != -100).all()
    assert (logits.grad.sum(-1).abs() < 1e-6).all()  # probability is moved between tokens, not made


def test_the_reference_system_s_constant_trains_nothing_and_this_loss_does() -> None:
    """TerraQuery adds alpha (1 - IoU) + beta FP + gamma FN of generated text as a number: no gradient."""
    targets = targets_of(TEXTS[0])
    gradients = []
    for added in ("nothing", "constant", "terms"):
        logits = random_logits(targets)
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 10)
        if added == "constant":
            said = compare(as_boxes([[10, 345, 678, 900], [0, 0, 5, 5]]), as_boxes([[12, 345, 678, 900]]))
            loss = loss + documented_penalty([said])
        elif added == "terms":
            loss = loss + combine(grounding_terms(logits, targets, GroundingSettings()), GroundingSettings())
        loss.backward()
        gradients.append(logits.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.allclose(gradients[0], gradients[2])


def test_a_batch_and_its_rows_one_by_one_give_the_same_gradient() -> None:
    texts = [*TEXTS, "No box in 42 words.", answer([1, 2, 3, 4])]
    labels = batch(*texts)
    together, alone = (torch.randn(*labels.shape, len(TOKENIZER), dtype=torch.float64).requires_grad_() for _ in "ab")
    alone.data.copy_(together.data)

    def loss(logits: Any, labels: Any) -> Any:
        targets = find_targets(labels, VOCABULARY)
        if targets.empty:
            return logits.sum() * 0
        columns = logits.flatten(0, 1)[targets.rows][:, targets.columns]
        return combine(grounding_terms(columns, targets, GroundingSettings()), GroundingSettings())

    loss(together, labels).backward()
    for index in range(len(labels)):
        (loss(alone[index : index + 1], labels[index : index + 1]) / len(labels)).backward()
    assert torch.allclose(together.grad, alone.grad, atol=1e-12)


# Values


@pytest.mark.parametrize("kind", IOU_KINDS)
def test_exact_answers_cost_nothing(kind: Any) -> None:
    targets = targets_of(*TEXTS)
    logits = peaked(targets)
    terms = grounding_terms(logits, targets, GroundingSettings(iou=kind))
    assert values(terms) == pytest.approx([0] * 4, abs=1e-6)
    solid = 3 / 4  # the box without an area overlaps nothing, itself included
    assert float(terms.iou_teacher_forced) == pytest.approx(solid)
    assert (terms.boxes, terms.skipped) == (4, 0)


@pytest.mark.parametrize("kind", IOU_KINDS)
def test_the_box_loss_grows_with_a_shift(kind: Any) -> None:
    targets = targets_of(answer([500, 200, 600, 300]))
    losses = []
    for shift in range(10):
        said = targets.digits.clone()
        said[0, 0, 2] = shift  # the units of x1
        losses.append(values(grounding_terms(peaked(targets, said), targets, GroundingSettings(iou=kind)))[1])
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[1] > 0.005


def test_digits_agree_with_scipy_s_wasserstein_distance() -> None:
    targets = targets_of(answer([345, 6, 78, 1000]))
    logits = random_logits(targets)
    probabilities = logits[:, :10].softmax(-1).detach().numpy()
    expected = 0.0
    for number in range(4):
        rows = targets.digit_rows[0, number][targets.places[0, number] != 0].tolist()
        digits = targets.digits[0, number].tolist()
        distances = [wasserstein_distance(np.arange(10), [digits[i]], probabilities[row]) for i, row in enumerate(rows)]
        expected += np.average(distances, weights=1.2 ** np.arange(len(rows))[::-1]) / 4
    assert values(grounding_terms(logits, targets, GroundingSettings()))[0] == pytest.approx(expected)


ORACLES = {
    "giou": ops.generalized_box_iou_loss,
    "diou": ops.distance_box_iou_loss,
    "ciou": ops.complete_box_iou_loss,
    "iou": lambda a, b: 1 - ops.box_iou(a, b).diagonal(),
}
sides = st.tuples(*[st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 1), st.floats(0.1, 1)])


@pytest.mark.parametrize("kind", IOU_KINDS)
@settings(max_examples=50)
@given(pairs=st.lists(st.tuples(sides, sides), min_size=1, max_size=5))
def test_boxes_agree_with_torchvision(kind: Any, pairs: Any) -> None:
    boxes = torch.tensor(pairs, dtype=torch.float64)
    boxes = torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)
    a, b = boxes.unbind(1)
    a.requires_grad_()

    def overlap(a: Any, b: Any) -> Any:
        smooth = torch.nn.functional.smooth_l1_loss(a, b, beta=0.01, reduction="none").mean(-1)
        return box_loss(a, b, kind) - 5 * smooth

    expected = ORACLES[kind](a, b)
    other = [2, 1, 0, 3]  # opposite corners in another order, in both
    assert torch.allclose(overlap(a, b), expected, atol=1e-4)
    assert torch.allclose(overlap(a[:, other], b[:, other]), expected, atol=1e-4)


@pytest.mark.parametrize("kind", IOU_KINDS)
def test_gradients_of_boxes_agree_with_torchvision(kind: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((2, 64, 2), dtype=torch.float64, generator=generator)
    a, b = torch.cat([corners, corners + 0.1 + torch.rand(corners.shape, generator=generator)], -1)
    smooth = 5 * torch.nn.functional.smooth_l1_loss(a.requires_grad_(), b, beta=0.01, reduction="none").mean(-1)
    ours, theirs = (
        torch.autograd.grad(loss.sum(), a)[0] for loss in (box_loss(a, b, kind) - smooth, ORACLES[kind](a, b))
    )
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert (ours.abs().sum(-1) > 0).any()


# The expected box


def saying(targets: Targets, number: int, place: int, chances: dict[int, float]) -> Any:
    """Logits of the true digits, but for one place of one number of the first box."""
    logits = peaked(targets).detach().double()
    logits[targets.digit_rows[0, number, place], :10] = -1e4
    for digit, chance in chances.items():
        logits[targets.digit_rows[0, number, place], digit] = math.log(chance)
    return logits


def expected_box(logits: Any, targets: Targets) -> Any:
    """The expected box, in the numbers of the frame."""
    offsets = expected_offsets(logits[:, :10].log_softmax(-1)[targets.digit_rows], targets)
    return (1000 * ((targets.places * targets.digits).sum(-1) + offsets))[0].tolist()


CARRIES = {  # number of [102, 300, 202, 400], chances of its first digit, what is expected, and its L_iou
    "9 for 1": (0, {1: 0.5, 9: 0.5}, 100.5, 0.0149),  # 99, not 900
    "seldom 9 for 1": (0, {1: 0.9, 9: 0.1}, 101.7, 0.0030),
    "seldom 2 for 1": (0, {1: 0.9, 2: 0.1}, 94.7, 0.0714),  # 29 is nearer than 200
    "2 for 3": (1, {3: 0.5, 2: 0.5}, 299.5, 0.0050),  # 299, not 200
}


@pytest.mark.parametrize(("number", "chances", "expected", "cost"), CARRIES.values(), ids=CARRIES)
def test_a_digit_stands_for_the_nearest_number_that_begins_so(
    number: int, chances: dict[int, float], expected: float, cost: float
) -> None:
    targets = targets_of(answer([102, 300, 202, 400]))
    logits = saying(targets, number, 0, chances)
    assert expected_box(logits, targets)[number] == pytest.approx(expected)
    assert values(grounding_terms(logits, targets, GroundingSettings()))[1] == pytest.approx(cost, abs=1e-4)


@given(box=st.lists(st.integers(0, 1000), min_size=4, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_the_expected_number_is_the_mean_over_all_continuations(box: Any, seed: int) -> None:
    targets = targets_of(answer(box))
    logits = random_logits(targets, seed)
    chances = logits[:, :10].softmax(-1).detach()[targets.digit_rows][0].tolist()
    for number, found in enumerate(expected_box(logits, targets)):
        truth = str(box[number])
        mean = 0.0
        for digits in itertools.product("0123456789", repeat=len(truth)):
            chance = math.prod(chances[number][i][int(digit)] for i, digit in enumerate(digits))
            mean += chance * written(truth, "".join(digits))
        assert found == pytest.approx(mean)


def written(truth: str, said: str) -> float:
    """What is written at best after the first digit of `said` that is wrong: any number from 0 to 1000 that begins so.

    Of two that are equally near the longer, and after 100 (for 1000) what is said, as no number goes on there.
    """
    wrong = next((i for i, (a, b) in enumerate(zip(truth, said, strict=True)) if a != b), None)
    if wrong is None:
        return int(truth)
    return nearest(int(truth), said[: wrong + 1])


@functools.cache
def nearest(truth: int, begin: str) -> int:
    begun = [n for n in range(1001) if str(n).startswith(begin)]
    return min(begun, key=lambda n: (abs(n - truth), -n), default=int(begin))


@pytest.mark.parametrize("kind", IOU_KINDS)
@settings(max_examples=50)
@given(boxes=st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=2, max_size=2), axis=st.integers(0, 1))
def test_a_box_whose_corners_changed_sides_is_led_to_its_own_corners(kind: Any, boxes: Any, axis: int) -> None:
    a, b = torch.tensor(boxes, dtype=torch.float64)
    low, high = sorted(a[axis::2].tolist())
    a[axis], a[axis + 2] = high + 0.01, low
    b = torch.cat([torch.minimum(b[:2], b[2:]), torch.maximum(b[:2], b[2:]) + 0.1])
    a.requires_grad_()
    box_loss(a[None], b[None], kind).sum().backward()
    assert (a.grad * (a.detach() - b) >= 0).all()
    assert (a.grad != 0)[(a.detach() - b).abs() > 1e-6].all()


@pytest.mark.parametrize("kind", IOU_KINDS)
def test_descending_from_an_inverted_box_never_leads_a_coordinate_away(kind: Any) -> None:
    """First digits 6 for 380 and 3 for 620: 600 and 399."""
    targets = targets_of(answer([380, 380, 620, 620]))
    logits = peaked(targets, height=3.0).detach()
    logits[targets.digit_rows[0, :, 0], torch.tensor([6, 6, 3, 3])] = 6.0
    logits.requires_grad_()
    distances = []
    for step in range(200):
        x1, y1, x2, y2 = box = expected_box(logits, targets)
        inverted = x1 > x2 and y1 > y2
        assert inverted or step > 0
        distances.append(np.abs(np.subtract(box, [380, 380, 620, 620])))
        if not inverted:
            break
        terms = grounding_terms(logits, targets, GroundingSettings(iou=kind))
        (gradient,) = torch.autograd.grad(terms.iou, logits)
        logits.data -= 0.5 * gradient
    assert not inverted
    assert (np.diff(distances, axis=0) < 0).all()


def test_decisions_are_the_odds_between_the_candidates() -> None:
    targets = targets_of(answer([1, 2, 3, 4], [5, 6, 7, 8]), answer())
    logits = random_logits(targets)
    terms = grounding_terms(logits, targets, GroundingSettings())
    sums = {"fp": 0.0, "fn": 0.0}
    for index in range(len(targets.decision_rows)):
        choices = [column for column in targets.choices[index].tolist() if column >= 0]
        odds = logits[targets.decision_rows[index], choices].softmax(-1)[0]
        sums["fp"] -= float(targets.fp_shares[index] * odds.detach().log())
        sums["fn"] -= float(targets.fn_shares[index] * odds.detach().log())
    assert values(terms)[2:] == pytest.approx([sums["fp"], sums["fn"]])
    assert min(sums.values()) > 0


def test_the_weights_do_what_they_say() -> None:
    one = [torch.tensor(float(value)) for value in (1, 10, 100, 1000)]
    terms = Terms(*one, iou_teacher_forced=torch.tensor(0.5), boxes=1, skipped=0)
    assert float(combine(terms, GroundingSettings(alpha=1, beta=2, gamma=3, w1=4, scale=0.5), 0.1)) == pytest.approx(
        4 * 1 + 0.05 * (10 + 200 + 3000)
    )
    assert float(combine(terms, GroundingSettings(), 0)) == pytest.approx(0.3)
    assert float(combine(terms, GroundingSettings(w1=0, scale=0))) == 0


# Hard cases


def test_text_without_boxes_asks_for_nothing() -> None:
    targets = targets_of("B", "42 ships")
    terms = grounding_terms(NOTHING, targets, GroundingSettings())
    assert targets.empty
    assert values(terms) == [0] * 4
    assert float(combine(terms, GroundingSettings())) == 0


HARD = {
    "a point": answer([5, 5, 5, 5]),
    "a line": answer([5, 5, 5, 900]),
    "the whole": answer([0, 0, 1000, 1000]),
    "inverted": answer([900, 900, 100, 100]),
    "twice the same": answer([1, 1, 2, 2], [1, 1, 2, 2]),
    "smallest": answer([0, 0, 1, 1]),
    "empty": answer(),
}


@pytest.mark.parametrize("kind", IOU_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
def test_no_hard_case_makes_a_number_that_is_none(kind: Any, dtype: Any, text: str) -> None:
    targets = targets_of(text)
    for seed, spread in enumerate([0, 1, 1e2, 1e4]):
        logits = random_logits(targets, seed, dtype, spread)
        terms = grounding_terms(logits, targets, GroundingSettings(iou=kind))
        loss = combine(terms, GroundingSettings(scale=1))
        loss.backward()
        assert loss.dtype == torch.float32
        assert logits.grad.dtype == dtype
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()
    zeros = torch.full_like(targets.digits, 0)
    logits = peaked(targets, zeros)
    combine(grounding_terms(logits, targets, GroundingSettings(iou=kind)), GroundingSettings(scale=1)).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_box_said_wrong_with_certainty_is_a_finite_loss() -> None:
    targets = targets_of(answer([0, 0, 999, 999]))
    wrong = (targets.digits + 5) % 10
    terms = grounding_terms(peaked(targets, wrong), targets, GroundingSettings())
    assert 0.5 < values(terms)[1] < 12
    assert float(terms.iou_teacher_forced) < 0.3


def descend(term: str) -> Terms:
    """The terms after descending on one of them, from logits near zero."""
    targets = targets_of(answer([12, 345, 678, 900], [1, 2, 30, 40]))
    logits = random_logits(targets, dtype=torch.float32, spread=0.1)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        getattr(grounding_terms(logits, targets, GroundingSettings()), term).backward()
        optimizer.step()
    return grounding_terms(logits, targets, GroundingSettings())


def test_descending_on_the_digits_finds_the_boxes() -> None:
    terms = descend("w1")
    assert float(terms.iou_teacher_forced) == 1
    assert float(terms.iou.detach()) < 0.01


def test_descending_on_the_expected_box_alone_need_not_find_the_digits() -> None:
    """Why L_iou never goes without cross-entropy: a right mean of a wrong distribution costs nothing."""
    terms = descend("iou")
    assert float(terms.iou.detach()) < 0.01
    assert float(terms.w1.detach()) > 1
    assert float(terms.iou_teacher_forced) < 1


@pytest.mark.parametrize(("term", "sign"), [("fp", -1), ("fn", 1)])
def test_fp_teaches_to_stop_and_fn_to_go_on(term: str, sign: int) -> None:
    targets = targets_of(answer([1, 2, 3, 4], [5, 6, 7, 8]))
    logits = random_logits(targets)
    getattr(grounding_terms(logits, targets, GroundingSettings()), term).backward()
    stop, further = (TOKENIZER.encode(text, add_special_tokens=False)[0] for text in ('"}]', '"},{"'))
    stops = logits.grad[:, targets.columns == stop].sum()
    goes_on = logits.grad[:, targets.columns == further].sum()
    assert sign * float(stops) > 0 > sign * float(goes_on)
