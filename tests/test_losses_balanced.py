"""The balanced loss against the cross-entropy of the models, and the rule which answers are classes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers.loss.loss_utils import ForCausalLMLoss

from medvl.losses import balanced
from medvl.losses.balanced import balanced_loss
from medvl.losses.classes import CAP, AnswerClass, answer_class, weigh
from medvl.tasks import UnknownNameError


def batch(seed: int = 0, *, records: int = 3, length: int = 9, vocabulary: int = 17) -> tuple[torch.Tensor, ...]:
    """Logits with gradients, and labels of which about half are supervised."""
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(records, length, vocabulary, generator=generator)).requires_grad_()
    labels = torch.randint(0, vocabulary, (records, length), generator=generator)
    labels[torch.rand(records, length, generator=generator) < 0.5] = -100
    labels[:, -1] = 1
    return logits, labels


def gradient(loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(loss, logits)
    return found


@pytest.mark.parametrize("items", [None, 40])
@pytest.mark.parametrize("rows", [2, 256], ids=["in chunks", "at once"])
def test_weights_of_one_and_no_exponent_are_the_models_own_loss(
    items: int | None, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balanced, "ROWS", rows)
    logits, labels = batch()
    ours = balanced_loss(logits, labels, torch.ones(3), torch.zeros(3), items)
    stock = ForCausalLMLoss(logits, labels, logits.shape[-1], num_items_in_batch=items)
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient(ours, logits), gradient(stock, logits), rtol=0, atol=1e-7)


def test_half_precision_logits_give_the_models_own_loss() -> None:
    logits, labels = batch()
    logits = logits.detach().bfloat16().requires_grad_()
    ours = balanced_loss(logits, labels, torch.ones(3), torch.zeros(3))
    stock = ForCausalLMLoss(logits, labels, logits.shape[-1])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient(ours, logits), gradient(stock, logits), rtol=0, atol=1e-4)


def test_a_weight_multiplies_the_whole_answer_and_is_not_cancelled_by_the_mean() -> None:
    logits, labels = batch(records=1)
    plain = balanced_loss(logits, labels, torch.ones(1), torch.zeros(1))
    heavy = balanced_loss(logits, labels, torch.tensor([5.0]), torch.zeros(1))
    torch.testing.assert_close(heavy, 5 * plain)
    torch.testing.assert_close(gradient(heavy, logits), 5 * gradient(plain, logits))


def test_focal_factor_is_that_of_the_paper_and_only_on_records_that_have_one() -> None:
    logits, labels = batch(records=2)
    gammas = torch.tensor([2.0, 0.0])
    ours = balanced_loss(logits, labels, torch.tensor([0.7, 1.0]), gammas)
    expected = torch.zeros(())
    for record, (weight, gamma) in enumerate([(0.7, 2.0), (1.0, 0.0)]):
        for place in range(1, labels.shape[1]):
            if labels[record, place] != -100:
                p = logits[record, place - 1].softmax(0)[labels[record, place]]
                expected = expected - weight * (1 - p) ** gamma * p.log()
    torch.testing.assert_close(ours, expected / int((labels[:, 1:] != -100).sum()))
    torch.testing.assert_close(gradient(ours, logits), gradient(expected / int((labels[:, 1:] != -100).sum()), logits))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradients_agree_with_finite_differences(gamma: float) -> None:
    logits, labels = batch(records=2, length=4, vocabulary=5)

    def loss(values: torch.Tensor) -> torch.Tensor:
        rows, targets = values[:, :-1][labels[:, 1:] != -100], labels[:, 1:][labels[:, 1:] != -100]
        losses = balanced._sum(rows, targets, torch.ones(len(rows)), torch.full((len(rows),), gamma), True)
        torch.testing.assert_close(
            losses / len(rows),
            balanced_loss(values, labels, torch.ones(2), torch.full((2,), gamma)).to(losses.dtype),
        )
        return losses

    step = 1e-2  # float32: the loss converts to it on purpose
    exact = gradient(loss(logits), logits)
    for index in [(0, 0, 1), (1, 2, 3), (0, 2, int(labels[0, 3]))]:
        moved = logits.detach().clone()
        moved[index] += step
        up = loss(moved)
        moved[index] -= 2 * step
        assert float(exact[index]) == pytest.approx(float(up - loss(moved)) / (2 * step), abs=2e-3)


def test_certain_tokens_have_finite_gradients() -> None:
    logits = torch.zeros(1, 2, 4)
    logits[0, 0, 2] = 200.0  # probability 1
    logits.requires_grad_()
    loss = balanced_loss(logits, torch.tensor([[-100, 2]]), torch.ones(1), torch.tensor([0.5]))
    assert gradient(loss, logits).isfinite().all()


def test_a_batch_without_supervised_tokens_is_zero_and_has_a_gradient() -> None:
    logits, _ = batch()
    loss = balanced_loss(logits, torch.full((3, 9), -100), torch.ones(3), torch.zeros(3))
    assert loss.item() == 0.0
    assert torch.equal(gradient(loss, logits), torch.zeros_like(logits))


def test_logits_whose_sum_no_half_can_hold_have_a_finite_loss() -> None:
    logits = torch.full((1, 9, 64), 300.0, dtype=torch.float16, requires_grad=True)
    assert logits.sum().isinf()
    loss = balanced_loss(logits, torch.arange(9)[None], torch.ones(1), torch.zeros(1))
    assert loss.item() == pytest.approx(math.log(64), abs=1e-5)
    assert gradient(loss, logits).isfinite().all()


@pytest.mark.parametrize("logits", [None, torch.zeros(0, 0, 5), torch.zeros(2, 5)])
def test_missing_logits_are_an_error(logits: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="needs logits for every label"):
        balanced_loss(logits, torch.zeros(2, 3, dtype=torch.long), torch.ones(2), torch.zeros(2))


def test_gradient_accumulation_is_that_of_the_models_own_loss() -> None:
    """The trainer divides each micro-batch's mean by their number; so does it for the stock loss."""
    logits, labels = batch(records=4)
    weights = torch.tensor([0.5, 2.0, 1.0, 0.5])
    parts = [balanced_loss(logits[i : i + 1], labels[i : i + 1], weights[i : i + 1], torch.zeros(1)) for i in range(4)]
    stock = [weights[i] * ForCausalLMLoss(logits[i : i + 1], labels[i : i + 1], 17) for i in range(4)]
    torch.testing.assert_close(gradient(sum(parts) / 4, logits), gradient(sum(stock) / 4, logits))
    items = int((labels[:, 1:] != -100).sum())
    counted = sum(
        balanced_loss(logits[i : i + 1], labels[i : i + 1], weights[i : i + 1], torch.zeros(1), items) for i in range(4)
    )
    torch.testing.assert_close(counted, balanced_loss(logits, labels, weights, torch.zeros(4)))


def test_rare_class_is_learned_where_the_plain_loss_ignores_it() -> None:
    """One feature tells the classes apart and is right in 80 of 100 cases; 95 records of 100 are normal."""
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(400, generator=generator) < 0.05).long()
    hint = torch.where(torch.rand(400, generator=generator) < 0.8, truth, 1 - truth)
    labels = torch.stack([torch.full_like(truth, -100), truth], dim=1)
    weights = weigh((AnswerClass("q", str(int(value))), 1) for value in truth)
    recalls = {}
    for name in ("plain", "weighted"):
        table = torch.zeros(2, 2, requires_grad=True)
        optimiser = torch.optim.Adam([table], lr=0.1)
        record = torch.tensor([1.0 if name == "plain" else weights[AnswerClass("q", str(int(v)))] for v in truth])
        for _ in range(100):
            optimiser.zero_grad()
            logits = table[hint][:, None].expand(-1, 2, -1)
            balanced_loss(logits, labels, record, torch.zeros(400)).backward()
            optimiser.step()
        recalls[name] = float((table.detach()[hint].argmax(1) == 1)[truth == 1].float().mean())
    assert recalls["plain"] == 0.0
    assert recalls["weighted"] > 0.6


LETTERED = "What is it? A: Normal B: Benign lesion C: Malignant lesion"


@pytest.mark.parametrize(
    ("question", "answer", "name"),
    [
        (LETTERED, "B", "benign lesion"),
        (LETTERED, "b)", "benign lesion"),
        (LETTERED, "C: Malignant lesion", "malignant lesion"),
        (LETTERED, "A, B", None),  # several
        ("Assess the normality.", "Within normal limits.", "within normal limits"),
        ("How many cells are there?", "12", None),
        ("What is the bone loss?", "37.5 %", None),
        ("Where is the lesion?", '[{"bbox_2d":[1,2,3,4],"label":"lesion"}]', None),
        ("Where is the lesion?", "[]", None),  # a box answer too
        ("Which are present? Select all from the following: RBC; WBC; Platelets", "RBC", None),
        ("Name the findings.", "opacity; effusion", None),
        ("Describe the image.", "The heart is normal in size. The lungs are clear. There is no effusion.", None),
        ("Assess the normality.", "", None),
    ],
)
def test_which_answers_are_classes(question: str, answer: str, name: str | None) -> None:
    found = answer_class(question, answer)
    assert (found.name if found else None) == name


def test_a_letter_is_compared_only_with_answers_to_the_same_options() -> None:
    other = "Which view is it? A: Front B: Side"
    assert answer_class(LETTERED, "A") == answer_class(
        "And this one? A: normal B: benign lesion C: Malignant lesion", "A"
    )
    assert answer_class(LETTERED, "A") != answer_class(other, "A")


def test_shuffled_options_are_the_same_options() -> None:
    assert answer_class("Which? A: cyst B: tumour", "A") == answer_class("Which? A: tumour B: cyst", "B")


def counted(counts: dict[str, int], *, group: str = "q", tokens: int = 1) -> list[tuple[AnswerClass | None, int]]:
    return [(AnswerClass(group, name), tokens) for name, count in counts.items() for _ in range(count)]


def test_weights_are_inverse_frequencies_with_a_mean_of_one() -> None:
    weights = weigh(counted({"normal": 95, "abnormal": 5}))
    normal, abnormal = (weights[AnswerClass("q", name)] for name in ("normal", "abnormal"))
    assert abnormal / normal == pytest.approx((95 + 1) / (5 + 1))  # smoothed by 1 % of 100 records
    assert (95 * normal + 5 * abnormal) / 100 == pytest.approx(1)


def test_ratio_is_capped() -> None:
    weights = weigh(counted({"normal": 9_990, "abnormal": 10}))
    assert weights[AnswerClass("q", "abnormal")] / weights[AnswerClass("q", "normal")] == pytest.approx(CAP)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (counted({f"text {i}": 2 for i in range(50)}), "hardly repeated"),
        (counted({f"class {i}": 9 for i in range(129)}), "too many"),
        (counted({"yes": 30}), "one answer only"),
        ([(None, 5)] * 20, "no class"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_free_text_keeps_weight_one(answers: list[tuple[AnswerClass | None, int]], why: str) -> None:
    assert weigh(answers) == {}


def test_an_answer_of_one_record_has_no_class() -> None:
    assert set(weigh(counted({"normal": 40, "abnormal": 8, "notmal": 1}))) == {
        AnswerClass("q", "normal"),
        AnswerClass("q", "abnormal"),
    }


def test_given_weights_count_by_their_ratio_and_touch_only_their_question() -> None:
    answers = counted({"normal": 90, "abnormal": 10}, tokens=3) + counted({"left": 50, "right": 50}, group="other")
    weights = weigh(answers, {"Abnormal": 10})
    assert set(weights) == {AnswerClass("q", "normal"), AnswerClass("q", "abnormal")}
    assert weights[AnswerClass("q", "abnormal")] / weights[AnswerClass("q", "normal")] == pytest.approx(10)
    assert 0.9 * weights[AnswerClass("q", "normal")] + 0.1 * weights[AnswerClass("q", "abnormal")] == pytest.approx(1)


@pytest.mark.parametrize("weight", [0, -1, math.inf, True, "2"])
def test_given_weights_must_be_positive_numbers(weight: object) -> None:
    with pytest.raises(ValueError, match="'normal' must be a positive number"):
        weigh(counted({"normal": 9, "abnormal": 9}), {"normal": weight})  # type: ignore[dict-item]


def test_a_label_that_no_record_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'abnormal'"):
        weigh(counted({"normal": 9, "abnormal": 9}), {"abnromal": 2})


@settings(max_examples=50)
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 400), min_size=1, max_size=20))
def test_mean_weight_of_all_answer_tokens_is_one(counts: dict[str, int]) -> None:
    answers = [(AnswerClass("q", name), 1 + len(name)) for name, count in counts.items() for _ in range(count)]
    weights = weigh(answers)
    tokens = sum(length for _, length in answers)
    weighted = sum(length * weights.get(answer, 1.0) for answer, length in answers)
    assert weighted == pytest.approx(tokens)
    assert all(weight > 0 for weight in weights.values())


def test_cross_entropy_of_the_oracle_is_the_trainers() -> None:
    """What the parity tests above compare with is the plain mean over supervised tokens."""
    logits, labels = batch()
    expected = cross_entropy(logits[:, :-1].reshape(-1, 17), labels[:, 1:].reshape(-1), ignore_index=-100)
    torch.testing.assert_close(ForCausalLMLoss(logits, labels, 17), expected)
