"""A trained router as a folder that can be moved: weights, two tokenizers, the similarity index and router.json.

router.json is written last, lists every other file with its hash, and is what makes the folder a router.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from medvl.router.calibration import Calibration
from medvl.router.labels import LABELS
from medvl.router.wording import FILE as WORDING
from medvl.sharegpt import file_sha256, to_json, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvl.router.gliclass import QuestionClassifier
    from medvl.router.wording import WordingClassifier

CARD = "router.json"
_PACKAGES = ("gliclass", "transformers", "torch", "tokenizers")


class RouterFolderError(ValueError):
    """A folder that is no router, or one that must not be used any more; says why and what to do."""


class TrainingData(msgspec.Struct, frozen=True):
    """What a router was trained on.

    Attributes:
        files: Question file -> SHA-256.
        sha256: Of all questions and their tasks, synthetic ones included.
        tasks: Task -> {"questions", "wordings", "synthetic"}.
    """

    files: dict[str, str]
    sha256: str
    tasks: dict[str, dict[str, int]]


class RouterCard(msgspec.Struct, frozen=True, kw_only=True):
    """router.json.

    Attributes:
        labels: (task, the text that stands for it), in the order of the scores.
        architecture: Of GLiClass.
        pooling: masked mean: the library's own ignores the mask.
        max_length: Tokens of a question that are read, from its end.
        temperature: See `medvl.router.calibration.Calibration`, as the next two.
        thresholds: Task -> least score.
        similarity: Least cosine to the nearest training question.
        wording: See `medvl.router.calibration.Calibration`, as the next two.
        alone: Least share with which the words decide without GLiClass.
        alone_temperature: Of that share.
        options: Of training.
        data: Of training.
        metrics: Measured on held-out wordings before the last training.
        versions: Of the packages that wrote the folder.
        files: Every other file -> SHA-256.
    """

    schema: Literal[2] = 2
    labels: list[tuple[str, str]]
    architecture: str
    pooling: str
    max_length: int
    temperature: float
    thresholds: dict[str, float]
    similarity: float
    wording: float
    alone: float
    alone_temperature: float
    options: dict[str, Any]
    data: TrainingData
    metrics: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str]

    @property
    def calibration(self) -> Calibration:
        """How scores are read."""
        return Calibration(**{field.name: getattr(self, field.name) for field in fields(Calibration)})


def save_router(
    folder: Path,
    classifier: QuestionClassifier,
    index: NDArray[np.float32],
    calibration: Calibration,
    wording: WordingClassifier,
    *,
    options: dict[str, Any],
    data: TrainingData,
    metrics: dict[str, Any],
) -> RouterCard:
    """Write a router: into a folder beside it first, which then takes its place.

    Raises:
        RouterFolderError: the folder holds something else than a router.
    """
    from medvl.router.similarity import save_index

    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        made = Path(beside) / "router"
        made.mkdir()
        classifier.save(made)
        save_index(made, index)
        wording.save(made)
        names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
        card = RouterCard(
            labels=list(classifier.labels.items()),
            architecture=classifier.model.config.architecture_type,
            pooling="masked mean",
            max_length=classifier.max_length,
            **asdict(calibration),
            options=options,
            data=data,
            metrics=metrics,
            versions={package: version(package) for package in _PACKAGES},
            files={name: file_sha256(made / name) for name in names},
        )
        write_atomic(made / CARD, to_json(card))
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)
    return card


def check_replaceable(folder: Path) -> None:
    """Raises RouterFolderError where something else than a router stands."""
    if folder.exists() and not (folder / CARD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise RouterFolderError(f"{folder}: holds something else than a router; choose another --out")


def read_card(folder: Path) -> RouterCard:
    """The card of a router folder, checked.

    Raises:
        RouterFolderError: no router, a damaged or changed file, or labels other than this version's tasks.
    """
    path = folder / CARD
    if not path.is_file():
        raise RouterFolderError(
            f"{folder}: no router, {CARD} is missing; make one with medvl router train --out {folder}"
        )
    try:
        card = msgspec.json.decode(path.read_bytes(), type=RouterCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RouterFolderError(f"{path}: {error}; train the router again") from error
    if card.labels != list(LABELS.items()):
        raise RouterFolderError(
            f"{path}: its labels are {', '.join(task for task, _ in card.labels)}; this version routes to "
            f"{', '.join(LABELS)} and describes them in other words or another order; train the router again"
        )
    if set(card.thresholds) != set(LABELS):
        raise RouterFolderError(
            f"{path}: thresholds are missing for {', '.join(set(LABELS) ^ set(card.thresholds))}; calibrate it again"
        )
    if WORDING not in card.files:
        raise RouterFolderError(f"{folder}: trained by an earlier version, without {WORDING}; train the router again")
    for name, expected in card.files.items():
        if not (folder / name).is_file():
            raise RouterFolderError(f"{folder / name}: is missing; copy the whole folder or train the router again")
        if file_sha256(folder / name) != expected:
            raise RouterFolderError(f"{folder / name}: changed since the router was trained; train it again")
    return card


def recalibrate(folder: Path, calibration: Calibration, metrics: dict[str, Any]) -> RouterCard:
    """Put another calibration into a router's card."""
    card = msgspec.structs.replace(
        read_card(folder),
        **asdict(calibration),
        metrics=metrics,
    )
    write_atomic(folder / CARD, to_json(card))
    return card


def card_fingerprint(card: RouterCard) -> str:
    """Changes with weights, labels and calibration, not with what was measured."""
    decides = [card.labels, card.files, asdict(card.calibration)]
    return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:12]
