"""The chain: what each stage decides, when it abstains, what it keeps, and that it never stops a run."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvl.instructions import GENERAL
from medvl.router import chain
from medvl.router.calibration import Calibration
from medvl.router.chain import ClassifierStage, Router, load_router
from medvl.router.folder import RouterFolderError
from medvl.router.labels import LABELS
from medvl.router.route import Route
from medvl.tasks import Task

UNDECIDED = "Tell about it, colleague."  # no rule matches


class Scores:
    """Stands for the classifier: fixed logits and features for every question."""

    labels = LABELS

    def __init__(self, logits: Sequence[float], feature: Sequence[float] = (1.0, 0.0)) -> None:
        self.row, self.feature, self.asked = list(logits), list(feature), list[str]()

    def score(self, texts: Sequence[str]) -> tuple[Any, Any]:
        self.asked += texts
        return (
            np.array([self.row] * len(texts), np.float32),
            np.array([self.feature] * len(texts), np.float32),
        )


def stage(*logits: float, feature: Sequence[float] = (1.0, 0.0), least: float = 0.7) -> ClassifierStage:
    row = [*logits, *[-9.0] * (len(LABELS) - len(logits))]
    calibration = Calibration(1.0, dict.fromkeys(LABELS, least), similarity=0.5)
    return ClassifierStage(Scores(row, feature), np.array([[1.0, 0.0]], np.float32), calibration)  # type: ignore[arg-type]


def one(router: Router, question: str) -> Route:
    (route,) = router.route([question])
    return route


def test_the_classifier_decides_first() -> None:
    route = one(Router(stage(9.0)), "How many cells are there?")
    assert (route.task, route.source) == ("classification", "gliclass")


def test_rules_decide_where_the_classifier_is_not_sure_but_does_not_object() -> None:
    unsure = stage(*[-9.0] * 4, 0.5, 0.0)  # counting .62 < .7
    route = one(Router(unsure), "How many cells are there?")
    assert (route.task, route.source, route.abstained) == ("counting", "rules", False)
    assert route.confidence == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-3)
    assert route.confidence > chain.VOUCHED
    objecting = stage(0.5, 0.0)  # counting .0
    assert one(Router(objecting), "How many cells are there?").task == GENERAL


def test_without_a_classifier_rules_decide() -> None:
    assert one(Router(), "How many cells are there?").source == "rules"


def test_confidence_and_margin_are_the_scores_of_the_classifier() -> None:
    route = one(Router(stage(1.0, 0.0, 3.0)), UNDECIDED)
    assert (route.task, route.source) == ("detection", "gliclass")
    shares = np.exp([3.0, 1.0, 0.0, *[-9.0] * (len(LABELS) - 3)])
    shares /= shares.sum()
    assert route.confidence == pytest.approx(shares[0], abs=1e-5)
    assert route.margin == pytest.approx(shares[0] - shares[1], abs=1e-5)
    assert list(route.scores) == list(LABELS)


@pytest.mark.parametrize(
    ("given", "question", "reason"),
    [
        (stage(0.5, 0.0), UNDECIDED, "not sure: classification 0.62, wanted 0.70"),
        (stage(5.0, feature=(0.0, 1.0)), UNDECIDED, "unlike"),  # the similarity gate
        (stage(*[-9.0] * 8, 2.0), "What is the dose of ibuprofen?", "no task"),
        (None, UNDECIDED, "no rule"),
        (stage(9.0), "  <image>\n ", "empty"),
        (stage(9.0), "", "empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_abstention_goes_to_general_and_says_why(given: ClassifierStage | None, question: str, reason: str) -> None:
    route = one(Router(given), question)
    assert (route.task, route.abstained, route.source) == (GENERAL, True, "none")
    assert reason in route.reason


def test_both_opinions_count() -> None:
    class Counting:
        def score(self, texts: Sequence[str]) -> Any:
            return np.array([[5.0 * (label == "counting") for label in LABELS]] * len(texts), np.float32)

    alone = stage(2.0, *[0.0] * 8, least=0.3)
    both = replace(alone, wording=Counting())  # type: ignore[arg-type]
    assert one(Router(both), UNDECIDED).task == one(Router(alone), UNDECIDED).task == "classification"  # weighs 0
    both = replace(both, calibration=replace(both.calibration, wording=1.0))
    assert one(Router(both), UNDECIDED).task == "counting"


class Words:
    """Stands for the words: sure of counting for cells and of no task for poems, else of nothing."""

    def score(self, texts: Sequence[str]) -> Any:
        sure = ["counting" if "cells" in text else GENERAL if "poem" in text else None for text in texts]
        return np.array([[6.0 if label == task else -3.0 for label in LABELS] for task in sure], np.float32)


def test_sure_words_decide_without_the_classifier() -> None:
    given = stage(9.0)
    calibration = replace(given.calibration, wording=0.1, alone=0.9)
    given = replace(given, wording=Words(), calibration=calibration)  # type: ignore[arg-type]
    questions = ["A poem.", UNDECIDED, "The cells."]
    routes = Router(given).route(questions)
    assert [(route.task, route.source) for route in routes] == [
        (GENERAL, "none"), ("classification", "gliclass"), ("counting", "wording"),
    ]  # fmt: skip
    assert given.classifier.asked == [UNDECIDED]  # type: ignore[attr-defined]
    assert routes[2].confidence == pytest.approx(1 / (1 + (len(LABELS) - 1) * np.exp(-9)), abs=1e-5)
    assert routes[0].abstained
    assert "no task" in routes[0].reason
    assert routes == [one(Router(given), question) for question in questions]
    hotter = replace(given, calibration=replace(calibration, alone_temperature=6.0))
    assert {route.source for route in Router(hotter).route(questions)} == {"gliclass"}


def test_metadata_decides_only_where_trusted() -> None:
    lie, said = "How many cells are there?", "Multi-label Classification"
    (route,) = Router(trust_metadata=True).route([lie], metadata=[said])
    assert (route.task, route.source, route.confidence) == ("multi_label_classification", "metadata", 1.0)
    (route,) = Router().route([lie], metadata=[said])
    assert (route.task, route.source) == ("counting", "rules")


@pytest.mark.parametrize("name", [None, "nonsense", ""])
def test_unusable_metadata_is_no_metadata(name: str | None) -> None:
    (route,) = Router(trust_metadata=True).route(["How many cells are there?"], metadata=[name])
    assert route.source == "rules"


def test_metadata_for_each_question() -> None:
    with pytest.raises(ValueError, match="2 questions but 1 metadata"):
        Router().route(["a", "b"], metadata=[None])


class ByWord(Scores):
    """Counting for cells, a report for lungs, else several labels."""

    def score(self, texts: Sequence[str]) -> tuple[Any, Any]:
        logits, features = super().score(texts)
        for row, text in zip(logits, texts, strict=True):
            task = "counting" if "cells" in text else "report_generation" if "lungs" in text else None
            row[list(LABELS).index(task or "multi_label_classification")] = 4.0
        return logits, features


def test_order_and_duplicates() -> None:
    questions = ["How many cells?", UNDECIDED, "", "Describe the lungs.", UNDECIDED, "How many cells?"]
    given = ClassifierStage(ByWord([-9.0] * len(LABELS)), stage().index, stage().calibration)  # type: ignore[arg-type]
    expected = [
        "counting",
        "multi_label_classification",
        GENERAL,
        "report_generation",
        "multi_label_classification",
        "counting",
    ]
    assert [route.task for route in Router(given).route(questions)] == expected
    assert Router().route([]) == []


def test_questions_are_scored_once() -> None:
    given = stage(4.0)
    router = Router(given)
    router.route([UNDECIDED] * 3)
    router.route([f"<image>\n{UNDECIDED}", f"  {UNDECIDED} "])  # the same once normalised
    assert len(given.classifier.asked) == 1  # type: ignore[attr-defined]


def test_the_cache_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "CACHE_SIZE", 2)
    given = stage(4.0)
    router = Router(given)
    for text in ("first one", "second one", "first one", "third one", "first one", "second one"):
        router.route([text])
    assert given.classifier.asked == ["first one", "second one", "third one", "second one"]  # type: ignore[attr-defined]


def test_a_failing_stage_is_counted_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    given = stage(4.0)
    monkeypatch.setattr(given.classifier, "score", lambda texts: (_ for _ in ()).throw(RuntimeError("boom")))
    router = Router(given)
    routes = router.route(["How many cells?", UNDECIDED, "Another such, colleague."])
    assert [route.source for route in routes] == ["rules", "error", "error"]
    assert [route.task for route in routes] == ["counting", GENERAL, GENERAL]
    assert "RuntimeError: boom" in routes[1].reason
    assert router.failures == 2
    router.route([UNDECIDED])  # not kept: it is tried again
    assert router.failures == 3


def test_no_text_is_a_failure_not_a_crash() -> None:
    router = Router()
    routes = router.route([None, "How many cells?"])  # type: ignore[list-item]
    assert [route.source for route in routes] == ["error", "rules"]
    assert router.failures == 1


def test_labels_and_fingerprint() -> None:
    assert Router().labels == tuple(str(task) for task in Task)
    assert Router().fingerprint == Router(trust_metadata=True).fingerprint
    assert Router().fingerprint != Router(stage(1.0), version="weights").fingerprint


def test_a_folder_without_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RouterFolderError, match=r"router\.json is missing"):
        load_router(tmp_path)


@pytest.mark.subprocess
def test_rules_alone_need_no_torch() -> None:
    code = (
        "import sys; from medvl.router.chain import load_router; load_router(None).route(['How many cells?']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
