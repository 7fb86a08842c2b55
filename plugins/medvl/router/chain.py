"""The chain of stages: trusted metadata, the words alone where they are sure, GLiClass and the words together above a
calibrated threshold, rules, else abstain to `general`.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from medvl.instructions import GENERAL
from medvl.router.labels import TASK_LABELS
from medvl.router.request import brief
from medvl.router.route import Route, abstain, margin, normalise
from medvl.router.rules import match_rules, rules_fingerprint
from medvl.tasks import UnknownNameError, canonical_task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvl.router.calibration import Calibration
    from medvl.router.gliclass import QuestionClassifier
    from medvl.router.wording import WordingClassifier

log = logging.getLogger(__name__)

CACHE_SIZE = 4096
# Share of right answers among those of the rules alone, on questions of professions that they were not written for
# (medvl.router.written; benchmarks/RESULTS.md): 404 of 489.
CONFIDENCE_ALONE = 0.83
# Least share of the task that a rule tells, where the classifiers are sure of none.
VOUCHED = 0.5


@dataclass(frozen=True)
class ClassifierStage:
    """The classifiers with what they need to decide.

    Attributes:
        classifier: Scores questions.
        index: Unit features of the training questions, (rows, width).
        calibration: Temperature, thresholds, similarity gate.
        wording: Decides alone where it is sure, which spares GLiClass; else it is added to the scores.
    """

    classifier: QuestionClassifier
    index: NDArray[np.float32]
    calibration: Calibration
    wording: WordingClassifier | None = None

    def decide(self, texts: Sequence[str]) -> list[Route]:
        """One route per normalised, non-empty question: by its words where these are sure, else by both classifiers."""
        said = self.wording.score(texts) if self.wording is not None and self.calibration.wording else None
        routes: list[Route | None] = [None] * len(texts) if said is None else self._by_words(said)
        left = [place for place, route in enumerate(routes) if route is None]
        together = self._by_both([texts[place] for place in left], None if said is None else said[left])
        for place, route in zip(left, together, strict=True):
            routes[place] = route
        return [route for route in routes if route is not None]

    def _by_words(self, said: NDArray[np.float32]) -> list[Route | None]:
        from medvl.router.calibration import probabilities

        scores = probabilities(said, self.calibration.alone_temperature)
        return [self._sure(row) if max(row) >= self.calibration.alone else None for row in scores.tolist()]

    def _sure(self, row: list[float]) -> Route:
        scores = dict(zip(self.classifier.labels, row, strict=True))
        task = max(scores, key=scores.__getitem__)
        if task == GENERAL:
            return abstain(f"its words are of no task: {scores[task]:.2f}", scores=scores)
        reason = f"by its words alone, wanted {self.calibration.alone:.2f}"
        return Route(task, scores[task], "wording", scores, margin=margin(scores), reason=reason)

    def _by_both(self, texts: Sequence[str], said: NDArray[np.float32] | None) -> list[Route]:
        from medvl.router.calibration import probabilities
        from medvl.router.similarity import nearest

        if not texts:
            return []
        logits, features = self.classifier.score([brief(text) for text in texts])
        if said is not None:
            logits = (logits + self.calibration.wording * said).astype(logits.dtype)
        scores = probabilities(logits, self.calibration.temperature)
        similar = nearest(features, self.index)
        return [self._decided(row.tolist(), float(near)) for row, near in zip(scores, similar, strict=True)]

    def _decided(self, row: list[float], similarity: float) -> Route:
        scores = dict(zip(self.classifier.labels, row, strict=True))
        task = max(scores, key=scores.__getitem__)
        best, least = scores[task], self.calibration.thresholds[task]
        if task == GENERAL:
            return abstain(f"the classifiers take it for no task: {best:.2f}", scores=scores)
        if best < least:
            return abstain(f"the classifiers are not sure: {task} {best:.2f}, wanted {least:.2f}", scores=scores)
        if similarity < self.calibration.similarity:
            return abstain(
                f"unlike any training question: cosine {similarity:.2f}, wanted {self.calibration.similarity:.2f}",
                scores=scores,
            )
        return Route(
            task,
            best,
            "gliclass",
            scores,
            margin=margin(scores),
            reason=f"cosine {similarity:.2f} to a training question",
        )


class Router:
    """Routes questions to tasks; one object may serve several threads.

    Attributes:
        labels: The tasks it can answer with besides `general`, in a fixed order.
        fingerprint: Changes whenever a decision may change: rules, weights, thresholds.
        failures: How many questions went to `general` because a stage failed.
        trust_metadata: Whether a task that comes with a question decides.
        stage: The classifier before the rules; None: rules only.
    """

    def __init__(
        self, stage: ClassifierStage | None = None, *, trust_metadata: bool = False, version: str = ""
    ) -> None:
        """Rules, and a `stage` before them whose weights and calibration `version` names."""
        self.labels: tuple[str, ...] = tuple(TASK_LABELS)
        self.fingerprint = hashlib.sha256(f"{rules_fingerprint()}/{version}".encode()).hexdigest()[:12]
        self.failures = 0
        self.trust_metadata = trust_metadata
        self.stage = stage
        self._cache: OrderedDict[str, Route] = OrderedDict()
        self._lock = Lock()

    def route(self, questions: Sequence[str], *, metadata: Sequence[str | None] | None = None) -> list[Route]:
        """One route per question, in their order.

        A stage that fails sends its questions to `general` with source `error`, and counts them in `failures`.

        Args:
            questions: As the user asked them; media tags may stand in them.
            metadata: A task name per question, or None where there is none. Ignored unless `trust_metadata`.

        Raises:
            ValueError: not one metadata entry per question.
        """
        if metadata is not None and len(metadata) != len(questions):
            raise ValueError(f"{len(questions)} questions but {len(metadata)} metadata entries")
        trusted = metadata if metadata is not None and self.trust_metadata else [None] * len(questions)
        routes = [_by_metadata(name) for name in trusted]
        places = [place for place, route in enumerate(routes) if route is None]
        for place, route in zip(places, self._by_text([questions[place] for place in places]), strict=True):
            routes[place] = route
        return [route for route in routes if route is not None]

    def _by_text(self, questions: Sequence[str]) -> list[Route]:
        found: list[Route | None] = []
        left: dict[str, list[int]] = {}  # text -> places
        for place, question in enumerate(questions):
            try:
                text = normalise(question)
                route = self._cached(text) if text else abstain("an empty question")
            except Exception as error:  # a router must never end a prediction run
                route, text = _error(error), ""
                self._count_failures([route])
            found.append(route)
            if route is None:
                left.setdefault(text, []).append(place)
        for text, route in zip(left, self._decided(list(left)), strict=True):
            for place in left[text]:
                found[place] = route
        return [route for route in found if route is not None]

    def _decided(self, texts: list[str]) -> list[Route]:
        if not texts:
            return []
        try:
            guesses = self.stage.decide(texts) if self.stage else [abstain("no rule matched") for _ in texts]
        except Exception as error:  # as above; the rules are still there
            guesses = [_error(error)] * len(texts)
        routes = []
        for text, guess in zip(texts, guesses, strict=True):
            try:
                routes.append(_with_rules(text, guess))
            except Exception as error:  # as above
                routes.append(_error(error))
            if "error" not in (guess.source, routes[-1].source):
                self._keep(text, routes[-1])
        self._count_failures(routes)
        return routes

    def _count_failures(self, routes: Sequence[Route]) -> None:
        failed = [route for route in routes if route.source == "error"]
        if failed:
            log.warning("routing failed, %d questions go to general: %s", len(failed), failed[0].reason)
            with self._lock:
                self.failures += len(failed)

    def _cached(self, text: str) -> Route | None:
        with self._lock:
            if text in self._cache:
                self._cache.move_to_end(text)
            return self._cache.get(text)

    def _keep(self, text: str, route: Route) -> None:
        with self._lock:
            self._cache[text] = route
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)


def _by_metadata(name: str | None) -> Route | None:
    if name is None:
        return None
    try:
        task = str(canonical_task(name))
    except UnknownNameError as error:
        log.warning("metadata ignored: %s", error)
        return None
    return Route(task, 1.0, "metadata", {task: 1.0}, margin=1.0, reason="the record's own task")


def _error(error: Exception) -> Route:
    return abstain(f"{type(error).__name__}: {error}", source="error")


def _with_rules(text: str, guess: Route) -> Route:
    """The classifier's route; where it abstains, the rule's task unless the classifier speaks against it."""
    if not guess.abstained or (evidence := match_rules(text)) is None:
        return guess
    task = str(evidence.task)
    confidence = guess.scores[task] if guess.scores else CONFIDENCE_ALONE
    if guess.scores and confidence < VOUCHED:
        return guess
    return Route(task, confidence, "rules", {task: confidence}, margin=confidence, reason=evidence.rule)


def load_router(folder: Path | str | None, *, device: str = "cpu", trust_metadata: bool = False) -> Router:
    """The router in a folder; without one, rules only and no torch.

    Raises:
        RouterFolderError: no router, a damaged one, or one for other labels.
    """
    if folder is None:
        return Router(trust_metadata=trust_metadata)
    from medvl.router.folder import card_fingerprint, read_card
    from medvl.router.similarity import read_index
    from medvl.router.wording import WordingClassifier

    folder = Path(folder)
    card = read_card(folder)
    from medvl.router.gliclass import QuestionClassifier

    classifier = QuestionClassifier.load(folder, dict(card.labels), device=device)
    stage = ClassifierStage(classifier, read_index(folder), card.calibration, WordingClassifier.load(folder))
    return Router(stage, trust_metadata=trust_metadata, version=card_fingerprint(card))
