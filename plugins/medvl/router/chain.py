"""The chain of stages: trusted metadata, rules, GLiClass above its calibrated threshold, else abstain to `general`."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from medvl.router.route import Route, abstain, normalise
from medvl.router.rules import match_rules
from medvl.tasks import Task, UnknownNameError, canonical_task

log = logging.getLogger(__name__)

CACHE_SIZE = 4096
CONFIDENCE_OF_FORMS, CONFIDENCE_OF_REQUESTS = 0.98, 0.95


class Router:
    """Routes questions to tasks; one object may serve several threads.

    Attributes:
        labels: The tasks it can answer with besides `general`, in a fixed order.
        fingerprint: Changes whenever a decision may change: rules, weights, thresholds.
        failures: How many questions went to `general` because a stage failed.
        trust_metadata: Whether a task that comes with a question decides.
    """

    def __init__(self, *, trust_metadata: bool = False) -> None:
        self.labels: tuple[str, ...] = tuple(str(task) for task in Task)
        self.fingerprint = "rules"
        self.failures = 0
        self.trust_metadata = trust_metadata
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
        return [self._by_metadata(name) or self._routed(text) for text, name in zip(questions, trusted, strict=True)]

    def _by_metadata(self, name: str | None) -> Route | None:
        if name is None:
            return None
        try:
            task = canonical_task(name)
        except UnknownNameError as error:
            log.warning("metadata ignored: %s", error)
            return None
        return Route(str(task), 1.0, "metadata", {str(task): 1.0}, margin=1.0, reason="the record's own task")

    def _routed(self, question: str) -> Route:
        try:
            text = normalise(question)
            with self._lock:
                if text in self._cache:
                    self._cache.move_to_end(text)
                    return self._cache[text]
            route = self._decide(text)
        except Exception as error:  # a router must never end a prediction run
            log.warning("routing failed, the question goes to general: %s: %s", type(error).__name__, error)
            with self._lock:
                self.failures += 1
            return abstain(f"{type(error).__name__}: {error}", source="error")
        with self._lock:
            self._cache[text] = route
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return route

    def _decide(self, text: str) -> Route:
        if not text:
            return abstain("an empty question")
        evidence = match_rules(text)
        if evidence is None:
            return abstain("no rule matched")
        confidence = CONFIDENCE_OF_FORMS if evidence.strong else CONFIDENCE_OF_REQUESTS
        scores = {str(evidence.task): confidence}
        return Route(str(evidence.task), confidence, "rules", scores, margin=confidence, reason=evidence.rule)


def load_router(folder: Path | str | None, *, device: str = "cpu", trust_metadata: bool = False) -> Router:
    """The router saved in `folder`; None: rules only, without torch."""
    if folder is not None:
        raise NotImplementedError(f"{folder}: only rules so far")
    return Router(trust_metadata=trust_metadata)
