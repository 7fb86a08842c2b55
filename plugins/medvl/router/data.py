"""Questions with their tasks: read from question files, filled up with templates, grouped by wording and split."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvl.errors import DataError
from medvl.instructions import GENERAL
from medvl.router.route import normalise
from medvl.router.templates import make_questions
from medvl.router.written import CALIBRATION_PROFILES, to_train_on
from medvl.sharegpt import file_sha256
from medvl.sources import Tree, file_at, tree_at, trees_below
from medvl.sources.base import Source, SourceFile
from medvl.tasks import Task, UnknownNameError

_OPTIONS = re.compile(r"\b(?:Options:|[Aa][:.)]\s).*", re.DOTALL)
# Twins that differ in these alone ("maxillary", "mandibular") are one wording, so that no split parts them.
_SIDES = re.compile(r"\b(?:maxillary|mandibular|upper|lower|left|right|frontal|lateral|\d+)\b")
TEMPLATE_QUESTIONS = 240  # per task; as many as the questions that a dataset of FLARE asks at most, so neither drowns
_SYNTHETIC = "templates"
_WRITTEN = "written"  # the dataset of `medvl.router.written` is this and the profile


@dataclass(frozen=True)
class LabelledQuestion:
    """A question whose task is known.

    Attributes:
        text: Normalised.
        task: Canonical task, or `general` for a prompt that is none.
        dataset: Where it is asked; "templates" and "written/PROFILE" for the project's own.
        group: Its wording: questions that differ in options, numbers and sides alone share one.
    """

    text: str
    task: str
    dataset: str
    group: str

    @property
    def is_synthetic(self) -> bool:
        """Whether the project made it up."""
        return self.dataset == _SYNTHETIC or self.dataset.startswith(f"{_WRITTEN}/")

    @property
    def calibrates(self) -> bool:
        """Whether it is of a profile on which the router is calibrated."""
        return self.dataset in {f"{_WRITTEN}/{profile}" for profile in CALIBRATION_PROFILES}


@dataclass(frozen=True)
class QuestionSet:
    """The questions of some files, each once per dataset.

    Attributes:
        questions: In the order of files and rows.
        rows: Rows read.
        files: Path from the split's folder on -> SHA-256.
        contradictions: Questions that occur with several tasks; the most frequent task is kept.
    """

    questions: list[LabelledQuestion]
    rows: int
    files: dict[str, str]
    contradictions: list[str]


def phrasing_group(text: str) -> str:
    """What a question's twins have in common: no options, numbers, sides, case and punctuation."""
    stem = _OPTIONS.sub(" ", text) if len(_OPTIONS.sub(" ", text).split()) > 2 else text
    return " ".join(re.sub(r"[\W_]+", " ", _SIDES.sub(" ", stem.casefold())).split())


def read_question_set(paths: Sequence[Path], splits: Sequence[str] = ()) -> QuestionSet:
    """The questions of trees and question files.

    Args:
        paths: Roots of trees, folders with trees or question files, or question files.
        splits: Splits of the trees; the training split alone where there is one, else all. Files are read whatever
            their split.

    Raises:
        DataError: nothing to read, a file that cannot be read, an unknown TaskType or a row without question; every
            bad row of all files is named.
    """
    files = [found for path in paths for found in _question_files(path, splits)]
    problems: list[str] = []
    tasks: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    rows = 0
    for source, file in files:
        try:
            samples = source.read(file).samples
        except (DataError, OSError) as error:
            problems.append(str(error))
            continue
        for sample in samples:
            rows += 1
            if found := sample.problem("question", "task"):
                problems.append(f"{file.path}: row {sample.index}: {found.detail}")
            else:
                tasks[sample.dataset, normalise(sample.question)][str(sample.task)] += 1
    if problems:
        shown = "\n".join(problems[:20])
        raise DataError(f"{shown}\n{len(problems)} bad rows or files; mend them or leave the files out")
    questions = [
        LabelledQuestion(text, counts.most_common(1)[0][0], dataset, phrasing_group(text))
        for (dataset, text), counts in tasks.items()
    ]
    if not questions:
        raise DataError(f"{', '.join(map(str, paths))}: no question in these files")
    contradictions = [text for (_, text), counts in tasks.items() if len(counts) > 1]
    hashes = {"/".join(file.path.resolve().parts[-4:]): file_sha256(file.path) for _, file in files}
    return QuestionSet(questions, rows, hashes, contradictions)


def _question_files(path: Path, splits: Sequence[str]) -> list[tuple[Source, SourceFile]]:
    if path.is_file():
        return [file_at(path)]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; expected a FLARE tree or question files")
    tree = tree_at(path)
    if tree and tree.split is None:
        return _of_tree(tree, splits)
    trees = list(trees_below(path))  # a tree is read as a tree wherever it lies: without its validation split
    in_trees = [file for below in trees for file in _of_tree(below, splits)]
    loose = [file for file in sorted(path.rglob("*questions*.json"))
             if not any(file.is_relative_to(below.root) for below in trees)]  # fmt: skip
    # The copy with answers and the blank one ask the same.
    loose = [file for file in loose if not file.with_name(f"{file.stem}_withGT.json").is_file()]
    found = in_trees + [file_at(file) for file in loose]
    if not found:
        raise DataError(f"{path}: neither a FLARE tree nor a folder with *questions*.json files")
    return found


def _of_tree(tree: Tree, splits: Sequence[str]) -> list[tuple[Source, SourceFile]]:
    train = [split.name for split in tree.source.splits.values()
             if split.role == "train" and (tree.root / split.folder).is_dir()]  # fmt: skip
    try:
        return [(tree.source, file) for file in tree.files(splits or train)]
    except UnknownNameError as error:
        raise DataError(str(error)) from error


def with_templates(questions: Sequence[LabelledQuestion], kind: str, *, seed: int = 0) -> list[LabelledQuestion]:
    """The questions and, after them, synthetic ones.

    Args:
        questions: Real ones.
        kind: missing: for tasks of which there are none. all: for every task. none: no question; in each case
            prompts that are no task (`general`), without which a classifier never learns to abstain.
        seed: What fills the slots.
    """
    present = {question.task for question in questions}
    tasks = [str(task) for task in Task if kind == "all" or (kind == "missing" and str(task) not in present)]
    made = [
        LabelledQuestion(normalise(text), task, _SYNTHETIC, f"{_SYNTHETIC}/{task}/{wording}")
        for task in [*tasks, GENERAL]
        for text, wording in make_questions(task, TEMPLATE_QUESTIONS * (2 if task == GENERAL else 1), seed)
    ]
    return [*questions, *made]


def with_written(questions: Sequence[LabelledQuestion]) -> list[LabelledQuestion]:
    """The questions and, after them, those that `medvl.router.written` lets train; each is a wording of its own."""
    made = [
        LabelledQuestion(normalise(it.question), it.task, f"{_WRITTEN}/{it.profile}", f"{_WRITTEN}/{number}")
        for number, it in enumerate(to_train_on())
    ]
    return [*questions, *made]


def split_for_calibration(
    questions: Sequence[LabelledQuestion], share: float, *, seed: int = 0
) -> tuple[list[LabelledQuestion], list[LabelledQuestion]]:
    """(training, held out): of written questions whole profiles are held out, of others a share of the wordings.

    Where there are written questions, wordings of templates are not held out: nobody asks like them.
    """
    written = [it for it in questions if it.dataset.startswith(f"{_WRITTEN}/")]
    if not written:
        return split_by_phrasing(questions, share, seed=seed)
    others = [it for it in questions if not it.is_synthetic]
    known, held = split_by_phrasing(others, share, seed=seed)
    known += [it for it in questions if it.is_synthetic and not it.calibrates]
    return known, [*held, *(it for it in written if it.calibrates)]


def split_by_phrasing(
    questions: Sequence[LabelledQuestion], share: float, *, seed: int = 0
) -> tuple[list[LabelledQuestion], list[LabelledQuestion]]:
    """(training, held out): wordings are on one side only, and every task has its share where it has two wordings."""
    groups: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        if question.group not in groups[question.task]:
            groups[question.task].append(question.group)
    rng = random.Random(seed)
    held: set[str] = set()
    for _, names in sorted(groups.items()):
        number = min(round(len(names) * share) or 1, len(names) - 1) if share else 0
        held.update(rng.sample(sorted(names), number))
    return [it for it in questions if it.group not in held], [it for it in questions if it.group in held]


def counts_by_task(questions: Iterable[LabelledQuestion]) -> dict[str, dict[str, int]]:
    """Task -> {"questions", "wordings", "synthetic"}."""
    counted: dict[str, dict[str, int]] = {}
    groups: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        row = counted.setdefault(question.task, {"questions": 0, "wordings": 0, "synthetic": 0})
        row["questions"] += 1
        row["synthetic"] += question.is_synthetic
        groups[question.task].add(question.group)
        row["wordings"] = len(groups[question.task])
    return counted
