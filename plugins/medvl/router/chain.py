"""The chain of stages: trusted metadata, rules, GLiClass above its calibrated threshold, else abstain to `general`."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from medvl.router.labels import LABELS
from medvl.router.request import asked, brief
from medvl.router.route import Route, abstain, margin, normalise
from medvl.router.rules import match_rules, rules_fingerprint
from medvl.router.scope import asks_for_knowledge, asks_for_writing, is_medical_image
from medvl.tasks import UnknownNameError, canonical_task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvl.router.calibration import Calibration
    from medvl.router.gliclass import QuestionClassifier

log = logging.getLogger(__name__)

CACHE_SIZE = 4096
# Share of right answers among the rules' on tests/data/router_paraphrases.jsonl at first sight, by the rule of
# succession: 38 of 38 where the form was stated, 44 of 45 where a request was worded.
CONFIDENCE_OF_FORMS, CONFIDENCE_OF_REQUESTS = 39 / 40, 45 / 47
# What the classifier must reach where a prompt names nothing of medicine, say because of typos. Of 112 prompts
# that are no task 3 were routed without it and 1 with it, of 457 questions with typos up to 1 % fewer rightly.
OUT_OF_SCOPE = 0.8


@dataclass(frozen=True)
class ClassifierStage:
    """GLiClass with what it needs to decide.

    Attributes:
        classifier: Scores questions.
        index: Unit features of the training questions, (rows, width).
        calibration: Temperature, thresholds, similarity gate.
    """

    classifier: QuestionClassifier
    index: NDArray[np.float32]
    calibration: Calibration

    def decide(self, texts: Sequence[str]) -> list[Route]:
        """One route per normalised, non-empty question."""
        from medvl.router.calibration import probabilities
        from medvl.router.similarity import nearest

        logits, features = self.classifier.score([brief(text) for text in texts])
        scores = probabilities(logits, self.calibration.temperature)
        similar = nearest(features, self.index)
        return [
            self._decided(text, row.tolist(), float(near))
            for text, row, near in zip(texts, scores, similar, strict=True)
        ]

    def _decided(self, text: str, row: list[float], similarity: float) -> Route:
        scores = dict(zip(self.classifier.labels, row, strict=True))
        task = max(scores, key=scores.__getitem__)
        best, least = scores[task], self.calibration.thresholds[task]
        if not is_medical_image(asked(text)):
            least = max(least, OUT_OF_SCOPE)
        if asks_for_writing(asked(text)) or asks_for_knowledge(asked(text)):
            return abstain("asks for something else than what a picture shows", source="none", scores=scores)
        if best < least:
            return abstain(f"GLiClass is not sure: {task} {best:.2f}, wanted {least:.2f}", scores=scores)
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
        stage: The classifier after the rules; None: rules only.
    """

    def __init__(
        self, stage: ClassifierStage | None = None, *, trust_metadata: bool = False, version: str = ""
    ) -> None:
        """Rules, and a `stage` after them whose weights and calibration `version` names."""
        self.labels: tuple[str, ...] = tuple(LABELS)
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
                route = self._cached(text) or _by_rules(text)
            except Exception as error:  # a router must never end a prediction run
                route = self._failed(error, 1)
                text = ""
            found.append(route)
            if route is None:
                left.setdefault(text, []).append(place)
            elif text:
                self._keep(text, route)
        for text, route in zip(left, self._by_classifier(list(left)), strict=True):
            for place in left[text]:
                found[place] = route
        return [route for route in found if route is not None]

    def _by_classifier(self, texts: list[str]) -> list[Route]:
        if self.stage is None or not texts:
            return [abstain("no rule matched") for _ in texts]
        try:
            routes = self.stage.decide(texts)
        except Exception as error:  # as above
            return [self._failed(error, len(texts))] * len(texts)
        for text, route in zip(texts, routes, strict=True):
            self._keep(text, route)
        return routes

    def _failed(self, error: Exception, questions: int) -> Route:
        log.warning("routing failed, %d questions go to general: %s: %s", questions, type(error).__name__, error)
        with self._lock:
            self.failures += questions
        return abstain(f"{type(error).__name__}: {error}", source="error")

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


def _by_rules(text: str) -> Route | None:
    if not text:
        return abstain("an empty question")
    evidence = match_rules(text)
    if evidence is None:
        return None
    task, confidence = str(evidence.task), CONFIDENCE_OF_FORMS if evidence.strong else CONFIDENCE_OF_REQUESTS
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

    folder = Path(folder)
    card = read_card(folder)
    from medvl.router.gliclass import QuestionClassifier

    classifier = QuestionClassifier.load(folder, dict(card.labels), device=device)
    stage = ClassifierStage(classifier, read_index(folder), card.calibration)
    return Router(stage, trust_metadata=trust_metadata, version=card_fingerprint(card))
