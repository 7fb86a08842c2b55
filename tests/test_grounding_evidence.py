"""The benchmark of the grounding loss: kept runs, their tables and the rule, and the losses on numbers it tries."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("torch")

import torch

from benchmarks.compact.numbers import distance_loss, soft_labels, soft_loss
from benchmarks.compact.rows import append_row, code_fingerprint, key_of, parse_seeds, read_rows
from benchmarks.compact.table import Difference, Rule, cells_of, gain, markdown
from medvl.box_text import parse_boxes
from medvl.demo.tokenizer import default_corpus, qwen3_tokenizer
from medvl.losses.coordinates import Vocabulary, find_targets

CELL = ("compact", "drawn")


def row(arm: str, seed: int, f1: float = 0.5, **changes: Any) -> dict[str, Any]:
    scores = dict.fromkeys(("f1_50", "f1_75", "mean_iou", "precision", "recall", "fp", "fn"), f1)
    values = {"family": "compact", "set": "drawn", "arm": arm, "seed": seed, "plan": f"p{arm}", "common": "c"}
    return values | {"scores": scores} | changes


def test_runs_are_kept_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "new/runs.jsonl"
    append_row(path, row("lm", 0))
    append_row(path, row("lm", 1))
    assert [key_of(found) for found in read_rows([path, tmp_path / "none.jsonl"])] == [
        ("compact", "drawn", "lm", 0, "plm"), ("compact", "drawn", "lm", 1, "plm"),
    ]  # fmt: skip
    append_row(path, row("lm", 1, 0.6))
    with pytest.raises(ValueError, match=r"runs\.jsonl:3: the same run as .*runs\.jsonl:2"):
        read_rows([path])


@pytest.mark.parametrize("line", ['{"family": "compact"', "[]", '{"family": "compact"}', ""])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "runs.jsonl").write_text(json.dumps(row("lm", 0)) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"runs\.jsonl:2: no run .*take the line out"):
        read_rows([tmp_path / "runs.jsonl"])


def test_the_code_fingerprint_sees_code_alone(tmp_path: Path) -> None:
    def of(text: str) -> str:
        (tmp_path / "a.py").write_text(text)
        return code_fingerprint([tmp_path / "a.py"])

    plain = of('"""A."""\ndef f(x):\n    """Double."""\n    return 2 * x\n')
    assert of('"""B."""\n# why\ndef f(x):\n    """Twice."""\n    return (2 *\n            x)\n') == plain
    assert of('"""A."""\ndef f(x):\n    """Double."""\n    return 3 * x\n') != plain


def test_seeds_are_ranges() -> None:
    assert parse_seeds("0-2,100,7-7") == [0, 1, 2, 100, 7]
    with pytest.raises(ValueError, match="invalid literal"):
        parse_seeds("all")


def test_the_interval_is_scipys() -> None:
    values = [0.03, -0.01, 0.05, 0.02]
    found, expected = Difference.of(values, 0.9), stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert str(Difference.of([0.25])) == "+0.250"
    assert Difference.of([0.25]).low == -np.inf


def eight(arm: str, gains: list[float]) -> list[dict[str, Any]]:
    return [row(arm, seed, 0.5 + seed / 100 + difference) for seed, difference in enumerate(gains)]


NOISE = [0.01, -0.01, 0.02, -0.02, 0.0, 0.01, -0.01, 0.0]
BETTER = [0.05 + noise for noise in NOISE]


def test_a_gain_is_shown_by_eight_seeds_and_no_fewer() -> None:
    rows = [*eight("lm", [0.0] * 8), *eight("full", BETTER), *eight("w1", NOISE)]
    arms = cells_of(rows, range(8))[CELL]
    assert gain(arms, "full") == "shown"
    assert gain(arms, "w1") == "not shown in f1_50 and f1_75"
    assert gain(cells_of(rows[:-9], range(8))[CELL], "full") == "undecided, 1 of 8 seeds missing"
    assert gain(arms, "beta=2") == "undecided, 8 of 8 seeds missing"
    assert "| full - lm | 8 | +0.050 (+0.039 to +0.061)" in markdown(arms)
    assert "| w1 - full | 8 | -0.050" in markdown(arms)


def test_a_candidate_replaces_the_defaults_where_it_gains_and_nowhere_loses() -> None:
    def rule(*candidates: str, base: str = "full", more: tuple[tuple[str, str], ...] = ()) -> Rule:
        return Rule(tuple(range(8)), base, candidates, (CELL, *more))

    rows = [*eight("lm", [0.0] * 8), *eight("full", NOISE), *eight("new", BETTER)]
    cells = cells_of(rows, range(8))
    assert rule("new").verdict(cells, "new").startswith("yes, +0.050")
    assert rule("lm").verdict(cells, "lm").startswith("no, ")
    assert rule("full", base="new").verdict(cells, "full").startswith("no, -0.050")
    bccd = ("compact", "bccd")
    assert rule("new", more=(bccd,)).verdict(cells, "new").endswith("8 of 8 seeds missing in compact/bccd")
    worse = [found | {"family": "internvl3"} for found in [*eight("full", NOISE), *eight("new", [-0.05] * 8)]]
    told = rule("new").verdict(cells_of([*rows, *worse], range(8)), "new")
    assert told.endswith("but it loses f1_50 in internvl3/drawn")
    # Many candidates have wider intervals than one.
    wide = cells_of([*eight("full", [0.0] * 8), *eight("new", [0.013 + noise for noise in NOISE])], range(8))
    assert rule("new").verdict(wide, "new").startswith("yes")
    assert rule("new", *map(str, range(49))).verdict(wide, "new").startswith("no")


def test_later_seeds_have_a_rule_of_their_own() -> None:
    later = [found | {"seed": found["seed"] + 8} for found in [*eight("beta=2", NOISE), *eight("new", BETTER)]]
    rule = Rule(tuple(range(8, 16)), "beta=2", ("new",), (CELL,))
    assert rule.verdict(cells_of(later, range(16)), "new").startswith("yes")
    assert rule.verdict(cells_of(later[:-3], range(16)), "new") == "undecided, 3 of 8 seeds missing in compact/drawn"
    assert "| new - beta=2 | 8 | +0.050" in markdown(cells_of(later, range(8, 16))[CELL], ["lm", "beta=2"])


def test_runs_of_two_plans_are_not_compared() -> None:
    with pytest.raises(ValueError, match="plans c and d; choose one with --common"):
        cells_of([row("lm", 0), row("full", 0, common="d")], [0])
    with pytest.raises(ValueError, match="full has changed, seed 0 is there twice"):
        cells_of([row("full", 0), row("full", 0, plan="q")], [0])
    assert cells_of([row("lm", 0), row("full", 100, common="d")], [0]) == {CELL: {"lm": {0: row("lm", 0)["scores"]}}}


@pytest.mark.parametrize("sigma", [0.4, 4.0, 30.0])
@pytest.mark.parametrize("truth", [0, 7, 10, 99, 102, 300, 999, 1000])
def test_soft_labels_are_those_of_all_numbers(truth: int, sigma: float) -> None:
    weights = {str(n): np.exp(-0.5 * ((n - truth) / sigma) ** 2) for n in range(1001)}
    total, text = sum(weights.values()), str(truth)
    digits, reached = soft_labels(sigma)
    for place in range(4):
        going_on = {n: w for n, w in weights.items() if n.startswith(text[:place]) and len(n) > place}
        if place >= len(text):
            assert not digits[truth, place].any() and not reached[truth, place]
            continue
        behind = sum(going_on.values())
        assert reached[truth, place] == pytest.approx(behind / total)
        expected = [sum(w for n, w in going_on.items() if n[place] == str(d)) / behind for d in range(10)]
        assert digits[truth, place] == pytest.approx(expected)


def test_soft_and_distance_loss_against_a_loop() -> None:
    tokenizer = qwen3_tokenizer(default_corpus(0, 200), 600)
    answers = ["[[102,300,202,400]]", "[[9,1000,0,57],[5,6,70,800]]"]
    ids = [tokenizer.encode(f" {answer}", add_special_tokens=False) for answer in answers]
    labels = torch.full((2, max(map(len, ids))), -100)
    for index, tokens in enumerate(ids):
        labels[index, : len(tokens)] = torch.tensor(tokens)
    targets = find_targets(labels, Vocabulary.of(tokenizer))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(targets.rows), 10, dtype=torch.float64, generator=generator)
    log_probabilities = logits.log_softmax(-1)[targets.digit_rows]
    digits, reached = soft_labels(4.0)
    soft = distance = 0.0
    for box, share in enumerate(targets.box_shares):
        for side in range(4):
            number = [int(d) for d, p in zip(targets.digits[box, side], targets.places[box, side], strict=True) if p]
            truth, certain = int("".join(map(str, number))), 1.0
            for place, digit in enumerate(number):
                says = log_probabilities[box, side, place]
                soft -= float(share) / 4 * reached[truth, place] * float(digits[truth, place] @ says.numpy())
                offsets = targets.offsets[box, side, place].abs()
                distance += float(share) / 4 * certain * float((says.exp() * offsets).sum())
                certain *= float(says[digit].exp())
    assert float(soft_loss(log_probabilities, targets, 4.0)) == pytest.approx(soft)
    assert float(distance_loss(log_probabilities, targets)) == pytest.approx(distance)


@pytest.fixture
def quality(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    return script("grounding_quality", repository, monkeypatch)


@pytest.fixture
def families(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The other script as a module."""
    return script("grounding_families", repository, monkeypatch)


def script(name: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A benchmark as a module; `sys.path`, which it changes, and torch's threads are as before afterwards."""
    monkeypatch.setattr("sys.path", [str(repository), str(repository / "benchmarks"), *sys.path])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["quality", pytest.param("families", marks=pytest.mark.training)])
def test_a_second_call_runs_what_is_missing(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    benchmark = request.getfixturevalue(name)
    runs: list[tuple[Any, ...]] = []

    def instead(_work: Any, *words: Any) -> dict[str, Any]:  # family, images, arm, seed; or images, arm, seed, data
        images, arm, seed = words[1:4] if name == "families" else words[:3]
        runs.append((images, arm.name, seed))
        return {"scores": {}}

    monkeypatch.setattr(benchmark, "run", instead)

    def call(*words: str) -> list[tuple[Any, ...]]:
        runs.clear()
        out = ["--sets", "drawn", "--out", str(tmp_path / "runs.jsonl"), "--work", str(tmp_path)]
        one = ["--families", "internvl3"] if name == "families" else []
        monkeypatch.setattr("sys.argv", [name, *out, *one, *words])
        assert benchmark.main() == 0
        return list(runs)

    assert call("--seeds", "0", "--arms", "lm") == [("drawn", "lm", 0)]
    assert call("--seeds", "0-1", "--arms", "lm", "full") == [
        ("drawn", "full", 0),
        ("drawn", "lm", 1),
        ("drawn", "full", 1),
    ]
    assert call("--seeds", "0-1", "--arms", "lm", "full") == []
    assert call("--seeds", "0", "--arms", "lm", "--steps", "7") == [("drawn", "lm", 0)]  # another plan


def test_a_start_is_shown_where_to_look(quality: ModuleType) -> None:
    training = importlib.import_module("compact.training")
    images = importlib.import_module("compact.images")
    tokenizer = training.make_tokenizer()
    vocabulary = Vocabulary.of(tokenizer)
    scenes = next(images.stream(None, (9, 9), 3))
    batch = training.collate(scenes, tokenizer, vocabulary)
    model = training.new_model(0, len(tokenizer))
    with torch.no_grad():
        logits, looked = model.watched(batch.images, batch.ids)
        assert torch.equal(logits, model(batch.images, batch.ids))
    assert torch.allclose(looked.sum(-1), torch.ones(()))
    side, costs = round(looked.shape[-1] ** 0.5), []
    rows = batch.targets.rows.tolist()
    for index, box in enumerate((batch.targets.places * batch.targets.digits).sum(-1).numpy().round(6).tolist()):
        places = [
            row * side + column
            for row in range(side)
            for column in range(side)
            if column / side < box[2] and (column + 1) / side > box[0]
            and row / side < box[3] and (row + 1) / side > box[1]
        ]  # fmt: skip
        for number, digits in enumerate(batch.targets.digit_rows[index].tolist()):
            for digit, place in zip(digits, batch.targets.places[index, number].tolist(), strict=True):
                if place:
                    at = looked.flatten(0, 1)[rows[digit]]
                    costs.append(-np.log(float(at[places].sum())))
    assert len(costs) > 10
    assert float(training.look_loss(looked, batch.targets)) == pytest.approx(np.mean(costs), rel=1e-4)


def test_an_order_moves_boxes_with_their_labels(quality: ModuleType) -> None:
    images = importlib.import_module("compact.images")
    boxes = np.array([[0, 0, 10, 10], [20, 20, 90, 90], [30, 40, 50, 50.0]])
    scene = images.Scene(np.zeros((3, 128, 128), np.float32), boxes, ("a", "b", "c"))
    rng = np.random.default_rng(0)
    assert images.reordered(scene, "raster", rng) is scene
    assert images.reordered(scene, "size", rng).labels == ("b", "c", "a")
    orders = {images.reordered(scene, "random", rng).labels for _ in range(50)}
    assert len(orders) == 6
    by_label = dict(zip(scene.labels, boxes.tolist(), strict=True))
    moved = images.reordered(scene, "random", rng)
    assert dict(zip(moved.labels, moved.boxes.tolist(), strict=True)) == by_label


def test_of_two_boxes_the_cheaper_order_is_learned_and_no_answer_gets_dearer(quality: ModuleType) -> None:
    training, images = (importlib.import_module(f"compact.{name}") for name in ("training", "images"))
    tokenizer = training.make_tokenizer()
    vocabulary = Vocabulary.of(tokenizer)
    scenes = [images.draw(np.random.default_rng((9, index)), (0, 0, 0.5, 0, 0.5)) for index in range(6)]
    scenes.append(images.draw(np.random.default_rng(9), (1.0,)))
    model = training.new_model(0, len(tokenizer))

    def costs(told: list[Any]) -> list[float]:
        trial = training.collate(told, tokenizer, vocabulary)
        with torch.no_grad():
            logits = model(trial.images, trial.ids).log_softmax(-1)
        wanted = [(row != -100).nonzero()[:, 0].tolist() for row in trial.labels]
        return [-sum(float(logits[i, at - 1, trial.labels[i, at]]) for at in places) for i, places in enumerate(wanted)]

    learned = training.matched(training.collate(scenes, tokenizer, vocabulary), model, tokenizer).scenes
    before, after = costs(scenes), costs(learned)
    assert all(new <= old + 1e-3 for old, new in zip(before, after, strict=True))
    assert sum(new < old - 1e-3 for old, new in zip(before, after, strict=True)) >= 2
    for scene, chosen, cost in zip(scenes, learned, after, strict=True):
        assert sorted(chosen.boxes.tolist()) == sorted(scene.boxes.tolist())
        if len(scene.boxes) == 2:
            turned = dataclasses.replace(scene, boxes=scene.boxes[::-1].copy())
            assert cost == pytest.approx(min(costs([scene, turned])), abs=1e-3)


def test_moves_of_single_boxes_find_an_order(quality: ModuleType) -> None:
    images, matching = (importlib.import_module(f"compact.{name}") for name in ("images", "matching"))
    scene = images.Scene(np.zeros((3, 8, 8)), np.array([[n, n, n + 9, n + 9.0] for n in range(4)]), tuple("abcd"))
    asked: list[int] = []

    def costs(scenes: list[Any]) -> list[float]:  # how far the labels are from their places in "dbca"
        asked.append(len(scenes))
        return [sum(abs(place - "dbca".index(label)) for place, label in enumerate(told.labels)) for told in scenes]

    found, same = matching.cheapest([scene, dataclasses.replace(scene, boxes=scene.boxes[:1], labels=("a",))], costs)
    assert "".join(found.labels) == "dbca"
    assert found.boxes[:, 0].tolist() == [3, 1, 2, 0]
    assert same.labels == ("a",)
    assert asked == [2, 3, 2, 1]


def test_noise_is_learned_but_for_its_numbers_and_is_in_no_score(quality: ModuleType) -> None:
    training, images, denoising, scoring = (
        importlib.import_module(f"compact.{name}") for name in ("training", "images", "denoising", "scoring")
    )
    tokenizer = training.make_tokenizer()
    vocabulary = Vocabulary.of(tokenizer)
    rng = np.random.default_rng(0)
    scenes = [images.draw(np.random.default_rng((9, count)), (0,) * count + (1.0,)) for count in (0, 1, 3)]
    told = [denoising.noisy(scene, 2, rng) for scene in scenes]
    assert [scene.labels[-2:] for scene in told] == [("#noise", "#noise")] * 3
    assert denoising.noisy(scenes[1], 0, rng) is scenes[1]
    assert scoring.scores(scenes, [scene.text for scene in told]) == scoring.scores(scenes, [s.text for s in scenes])

    batch = training.collate(told, tokenizer, vocabulary)
    learned = denoising.without_noise_numbers(batch.labels, vocabulary)
    assert batch.targets.boxes == sum(len(scene.boxes) for scene in scenes)
    for scene, noisy, labels, all_labels in zip(scenes, told, learned, batch.labels, strict=True):
        ignored = (labels != all_labels).nonzero()[:, 0]
        assert (labels[ignored] == -100).all()
        numbers = noisy.boxes[len(scene.boxes) :].round().astype(int)
        assert tokenizer.decode(all_labels[ignored]) == "".join(",".join(map(str, box)) for box in numbers.tolist())


def test_boxes_read_askew_leave_all_else_alone(quality: ModuleType) -> None:
    training, images, denoising = (
        importlib.import_module(f"compact.{name}") for name in ("training", "images", "denoising")
    )
    tokenizer = training.make_tokenizer()
    vocabulary = Vocabulary.of(tokenizer)
    boxes = np.array([[0, 9, 57, 100], [102, 300, 899, 1000], [5, 40, 999, 960]] * 20, float)
    scenes = [images.Scene(np.zeros((3, 8, 8), np.float32), boxes[:count], ("cell",) * count) for count in (60, 0, 1)]
    batch = training.collate(scenes, tokenizer, vocabulary)
    labels, targets = batch.labels.clone(), batch.targets
    none = training.collate(scenes[1:2] * 2, tokenizer, vocabulary)
    same = denoising.askew(none.ids, none.targets, vocabulary, 20.0, np.random.default_rng(0))
    assert torch.equal(same, none.ids)
    read = denoising.askew(batch.ids, targets, vocabulary, 20.0, np.random.default_rng(0))
    assert torch.equal(batch.labels, labels)
    assert read.shape == batch.ids.shape
    changed = (read != batch.ids).nonzero()
    places = targets.rows[targets.digit_rows] + 1
    behind_first = set(places[..., 1:][targets.places[..., 1:] > 0].tolist())
    assert {row * read.shape[1] + column for row, column in changed.tolist()} <= behind_first
    text = tokenizer.decode([token for token in read[0].tolist() if token != tokenizer.eos_token_id])
    moved = parse_boxes(text).boxes
    off = np.abs(moved - boxes)
    assert 15 < off.any(1).sum() < 45
    assert off[:, :2][boxes[:, :2] < 10].max() == 0
    assert moved.max() == 1000
    assert 5 < np.std((moved - boxes)[1::3, 1][off[1::3].any(1)]) < 30
    assert [len(str(int(n))) for n in moved.ravel()] == [len(str(int(n))) for n in boxes.ravel()]


def test_an_arm_learns_what_it_says(quality: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    training, images = (importlib.import_module(f"compact.{name}") for name in ("training", "images"))
    tokenizer = training.make_tokenizer()
    scenes = [images.draw(np.random.default_rng((9, index)), (0, 0, 0, 1.0)) for index in range(2)]
    monkeypatch.setattr(training, "stream", lambda *_: iter([scenes]))

    def of(name: str) -> tuple[list[Any], float]:
        arm, losses = quality.ARMS[name], []
        model = training.new_model(0, len(tokenizer))
        batches = list(training.arm_batches([], arm, 0, 1, tokenizer, Vocabulary.of(tokenizer)))
        training.train(model, batches, 1, arm, tokenizer, lambda _, loss: losses.append(loss))
        return batches[0].scenes, losses[0]

    (plain, loss), (told, noisy), (same, matched) = map(of, ("beta=2", "beta=2,noise=2", "beta=2,matched"))
    assert [len(scene.boxes) for scene in plain] == [3, 3]
    assert [len(scene.boxes) for scene in told] == [5, 5]
    assert [scene.text for scene in same] == [scene.text for scene in plain]  # its order is found in training
    assert len({loss, noisy, matched}) == 3
    batch = training.collate(told, tokenizer, Vocabulary.of(tokenizer))
    with torch.no_grad():
        logits = training.new_model(0, len(tokenizer))(batch.images, batch.ids)
        arms = (quality.ARMS[name] for name in ("beta=2,noise=2", "beta=2"))
        masked, all_learned = (float(training._loss(logits, batch, arm, tokenizer, 0.0)) for arm in arms)
    assert masked == pytest.approx(noisy)
    assert abs(masked - all_learned) > 1e-4


def test_without_the_smears_a_call_says_so(
    quality: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--bccd", str(tmp_path / "none"), "--out", str(tmp_path / "runs.jsonl"), "--sets", "bccd"]
    monkeypatch.setattr("sys.argv", ["grounding_quality.py", *out])
    assert quality.main() == 0
    assert "skipped bccd" in capsys.readouterr().err
    assert read_rows([tmp_path / "runs.jsonl"]) == []


@pytest.mark.training
def test_arms_of_the_families_are_recipe_keys(families: ModuleType) -> None:
    from medvl.factory.arguments import defaults

    arms = families.ARMS
    assert families.arm_keys(arms["lm"]) == {}
    keys = families.arm_keys(arms["beta=2"])
    assert keys["use_grounding_loss"] is True
    assert (keys["grounding_beta"], keys["grounding_scale"]) == (2.0, 0.05)
    assert keys.keys() <= defaults().keys()


def test_kept_runs_are_of_the_arms_as_they_are(quality: ModuleType, repository: Path) -> None:
    rows = read_rows(sorted((repository / "benchmarks/evidence").glob("*.jsonl")))
    assert len(rows) > 40
    changed = {
        row["arm"] for row in rows if row["plan"] != quality.fingerprint([row["common"], quality.ARMS[row["arm"]].plan])
    }
    assert changed == set()
