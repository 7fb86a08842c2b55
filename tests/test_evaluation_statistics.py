"""Clusters, intervals and tests: against explicit loops, scipy and exhaustive enumeration."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from evaluation.metrics.registry import Table
from evaluation.samples import Sample
from evaluation.scores import Resampling
from evaluation.scoring import score
from evaluation.statistics import cluster_codes, clustered, draw_totals, interval, p_value, swap_totals, totals
from medvl.errors import DataError
from medvl.tasks import Task
from tests.support.samples import LOSS, samples_of


def with_images(samples: list[Sample], images: list[tuple[str, ...]], dataset: str = "d") -> list[Sample]:
    return [
        replace(sample, reference=replace(sample.reference, images=names, dataset=dataset))
        for sample, names in zip(samples, images, strict=True)
    ]


def counting(n: int = 40) -> list[Sample]:
    rng = np.random.default_rng(0)
    references, errors = rng.integers(9, 99, n), rng.integers(-9, 9, n)
    cases = [(str(truth), str(truth + error)) for truth, error in zip(references, errors, strict=True)]
    return with_images(samples_of(Task.COUNTING, cases), [(f"{row}.png",) for row in range(n)])


IMAGES = {
    "one each": ([("a",), ("b",), ("c",)], [0, 1, 2]),
    "two questions about one": ([("a",), ("b",), ("a",)], [0, 1, 0]),
    "views shared through another question": ([("a", "b"), ("c",), ("b", "c")], [0, 0, 0]),
    "views of two cases": ([("a", "b"), ("c", "d"), ("b",)], [0, 1, 0]),
}


@pytest.mark.parametrize(("images", "codes"), IMAGES.values(), ids=IMAGES)
def test_questions_that_share_a_image_are_one_cluster(images: list[tuple[str, ...]], codes: list[int]) -> None:
    samples = with_images(samples_of(Task.COUNTING, [("1", "1")] * 3), images)
    assert cluster_codes(samples).tolist() == codes
    assert cluster_codes(samples, "sample").tolist() == [0, 1, 2]


def test_the_same_image_name_in_two_datasets_is_two_clusters() -> None:
    one = samples_of(Task.COUNTING, [("1", "1")])
    assert len(set(cluster_codes([*with_images(one, [("a",)]), *with_images(one, [("a",)], "e")]))) == 2


def test_clusters_by_a_field_of_the_references() -> None:
    samples = samples_of(Task.COUNTING, [("1", "1")] * 3)
    patients = [
        replace(sample, reference=replace(sample.reference, fields={"patient": name}))
        for sample, name in zip(samples, "ABA", strict=True)
    ]
    assert cluster_codes(patients, "patient").tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="has no field 'study' to cluster by, it has patient"):
        cluster_codes(patients, "study")


def test_draws_are_those_of_a_loop_over_samples_and_sklearn() -> None:
    """Six questions about each image; the same random numbers, drawn image by image."""
    rng = np.random.default_rng(1)
    truth, said = rng.choice(list("ABC"), 60), rng.choice(list("ABC"), 60)
    samples = samples_of(Task.CLASSIFICATION, list(zip(truth, said, strict=True)), LOSS)
    samples = with_images(samples, [(f"{row // 6}.png",) for row in range(60)])
    resampling = Resampling(200, seed=3)
    scores = score(samples, "strict", resampling)[Task.CLASSIFICATION]
    drawn = resampling.generator("classification", "d").integers(10, size=(200, 10), dtype=np.int32)
    values = []
    for clusters in drawn:
        rows = np.concatenate([np.arange(6) + 6 * cluster for cluster in clusters])
        values.append(balanced_accuracy_score(truth[rows], said[rows]))
    parts = [part["balanced_accuracy"] for part in (scores.pooled, scores.datasets["d"], scores.macro)]
    for entry in parts:
        assert entry["ci95"] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist())


def test_interval_of_a_mean_agrees_with_scipy() -> None:
    samples = counting()
    entry = score(samples, "strict", Resampling(9999))[Task.COUNTING].pooled["mae"]
    errors = [abs(sample.truth.value - sample.answer.value) for sample in samples]  # type: ignore[operator]
    expected = stats.bootstrap((errors,), np.mean, n_resamples=9999, method="percentile", rng=0).confidence_interval
    assert entry["ci95"] == pytest.approx([expected.low, expected.high], abs=0.1)


def test_clustered_questions_have_wider_intervals() -> None:
    """Six copies of every answer are no more evidence than one."""
    once = counting()
    six = [sample for sample in once for _ in range(6)]
    width = {
        by: np.diff(score(six, "strict", Resampling(1000, cluster=by))[Task.COUNTING].pooled["mae"]["ci95"])[0]
        for by in ("image", "sample")
    }
    alone = np.diff(score(once, "strict", Resampling(1000))[Task.COUNTING].pooled["mae"]["ci95"])[0]
    assert width["image"] == pytest.approx(alone) and width["sample"] < 0.6 * alone


def test_the_seed_decides_the_interval_and_other_datasets_do_not() -> None:
    first, again, other = (
        score(counting(), "strict", Resampling(100, seed))[Task.COUNTING].datasets["d"]["mae"]["ci95"]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    both = [*with_images(counting(), [(f"{row}.png",) for row in range(40)], "e"), *counting()]
    assert score(both, "strict", Resampling(100))[Task.COUNTING].datasets["d"]["mae"]["ci95"] == first


def test_no_interval_without_draws_or_from_one_cluster_or_without_a_value() -> None:
    samples = counting(1)
    assert score(samples, "strict", Resampling(50))[Task.COUNTING].pooled["mae"]["ci95"] is None
    assert score(counting(), "strict")[Task.COUNTING].pooled["mae"]["ci95"] is None
    silent = samples_of(Task.COUNTING, [("1", "?"), ("2", "?")])
    assert score(silent, "strict", Resampling(50))[Task.COUNTING].pooled["mae"]["ci95"] is None


def test_interval_holds_its_value_and_needs_values() -> None:
    assert interval(np.linspace(0, 1, 1001), 2.0) == pytest.approx([0.025, 2.0])
    assert interval(np.array([1.0] * 90 + [np.nan] * 10), 1.0) is None


def test_more_draws_than_are_held_at_once_begin_with_the_same_ones() -> None:
    samples = counting()
    values = np.array([sample.answer.value for sample in samples], dtype=float)
    table = Table(np.zeros(40, bool), values, {"value": values, "n": np.ones(40)})
    matrix = clustered(table, cluster_codes(samples)).matrix
    few, many = (draw_totals([matrix], draws, np.random.default_rng(0))[0] for draws in (50, 120_000))
    assert np.array_equal(many[:50], few)
    assert len(many) == 120_000 and np.all(many[:, 1] == 40)
    assert totals(matrix)[0].tolist() == [values.sum(), 40]


def test_p_value_agrees_with_all_swaps() -> None:
    """Ten clusters have 1,024 swaps; twenty thousand random ones come close to their share."""
    rng = np.random.default_rng(5)
    mine, other = rng.normal(0.8, 1, 10), rng.normal(0, 1, 10)
    tables = [Table(np.zeros(10, bool), side, {"x": side}) for side in (mine, other)]
    matrices = [clustered(table, np.arange(10)).matrix for table in tables]
    swapped = swap_totals(matrices[0], matrices[1], 20_000, np.random.default_rng(0))
    observed = float(mine.sum() - other.sum())
    found = p_value(observed, (swapped[0] - swapped[1])[:, 0])
    signs = np.array(list(itertools.product([-1, 1], repeat=10)))
    exact = np.mean(np.abs(signs @ (mine - other)) >= abs(observed) - 1e-9)
    assert found == pytest.approx(exact, abs=0.01)


def test_p_value_of_no_difference_is_one_and_is_never_zero() -> None:
    assert p_value(0.0, np.zeros(99)) == 1.0
    assert p_value(5.0, np.zeros(99)) == 0.01
