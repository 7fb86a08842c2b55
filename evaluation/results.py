"""The call `evaluate`: predictions against references, and everything that comes of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evaluation.comparison import compare
from evaluation.diagnosis import diagnose
from evaluation.evaluations import evaluations
from evaluation.findings import Diagnosis, Finding
from evaluation.outputs import (
    COMPARISON,
    REPORT,
    comparison_json,
    metrics_json,
    sample_lines,
    write_json,
    write_page,
    write_scores,
)
from evaluation.page.render import render_page
from evaluation.predictions import predictions_in_memory, read_predictions
from evaluation.references import read_references, references_in_memory
from evaluation.samples import PredictionFile, References
from evaluation.scores import Evaluation, Settings
from evaluation.tables import ResultTable, Run
from medvl.errors import DataError
from medvl.sharegpt import Record
from medvl.tasks import UnknownNameError, canonical_task

# A path, id -> text, or rows of any shape that prediction files have, `id` and `prediction` for one.
Predictions = Path | str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
# A path, or converted records, as they are or as dicts.
ReferenceData = Path | str | References | Sequence[Record | Mapping[str, Any]]
DEFAULTS = Settings()


@dataclass(frozen=True, repr=False)
class Results:
    """A prediction file, scored. `results["classification"]["balanced_accuracy"]` is a number.

    Attributes:
        evaluation: The scored file, with every sample as it was understood.
        settings: How it was scored.
        name: How tables call it.
        baseline: The file that it is compared with.
        command: What stands in provenance as the command.
    """

    evaluation: Evaluation
    settings: Settings
    name: str
    baseline: Evaluation | None = None
    command: tuple[str, ...] = ()

    def __getitem__(self, task: str) -> dict[str, float | None]:
        """Metric -> value over all samples of a task, under the first rules; None where there is none.

        Raises:
            KeyError: nothing of that task was scored.
        """
        try:
            entries = self.metrics["tasks"][canonical_task(task).value]
        except (KeyError, UnknownNameError) as error:
            raise KeyError(f"{task!r} was not scored; there are {', '.join(self)}") from error
        return {name: entry["value"] for name, entry in entries.items()}

    def __iter__(self) -> Iterator[str]:
        """Names of the tasks that were scored."""
        return iter(self.metrics["tasks"])

    @property
    def findings(self) -> list[Finding]:
        """What the validity checks found."""
        return self.evaluation.findings

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """What is behind the numbers."""
        return diagnose(self.evaluation)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json."""
        made = metrics_json(self.evaluation, self.settings, self.command)
        if self.baseline is not None:
            made["comparison"] = compare(self.evaluation, self.baseline, self.settings.resampling)
        return made

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """The lines of per_sample.jsonl: a dict per reference, then one per prediction that answers none."""
        return list(sample_lines(self.evaluation, self.diagnosis))

    @cached_property
    def table(self) -> ResultTable:
        """The scores, a column per set of rules; a notebook shows it."""
        return ResultTable(tuple(self._runs()))

    def _runs(self) -> Iterator[Run]:
        """One per set of rules; only the first holds what does not depend on rules."""
        for rules, scores in self.evaluation.scores.items():
            counts, provenance = self.metrics["counts"], self.metrics["provenance"]
            if rules != self.evaluation.rules:
                yield Run(self.name, rules, scores, counts, provenance, image=lambda reference: reference.image())
                continue
            yield Run(
                file=self.name,
                rules=rules,
                scores=scores,
                counts=counts,
                provenance=provenance,
                comparison=self.metrics.get("comparison"),
                findings=self.findings,
                diagnosis=self.diagnosis,
                image=lambda reference: reference.image(),
            )

    def page(self, images: int = 24) -> bytes:
        """report.html, with up to so many images of the tasks with boxes."""
        return render_page(self.table, most_images=images)

    def save(self, folder: Path | str, *, page: bool = True, images: int = 24) -> None:
        """Write what `evaluation/run.py` writes: metrics.json, diagnosis.json, per_sample.jsonl and report.html.

        Raises:
            OSError: the folder cannot be written.
            PageError: the page could not be drawn; the other files are whole.
        """
        write_scores(Path(folder), self.evaluation, self.metrics, self.diagnosis, self.samples)
        if page:
            write_page(Path(folder) / REPORT, lambda: self.page(images))

    def __repr__(self) -> str:
        """The table; the fields hold every sample."""
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def evaluate(
    predictions: Predictions,
    references: ReferenceData,
    settings: Settings = DEFAULTS,
    *,
    baseline: Predictions | None = None,
) -> Results:
    """Score predictions against references.

    Args:
        predictions: A prediction file; or in memory, id -> text, or rows of `id` and `prediction`.
        references: A source's tree, a folder or file in it, a converted file; or in memory, converted records. Boxes
            predicted for records in memory need `Settings(frame=…)`.
        settings: How to score.
        baseline: Predictions to test the difference to.

    Raises:
        DataError: something cannot be read, joined or scored, or the validity checks refuse it; `Settings(force=True)`
            scores it all the same.
        MissingExtraError: `Settings(report_metrics=…)` needs a package that is not installed.
    """
    try:
        return evaluate_all([predictions], references, settings, baseline=baseline)[0]
    except UnknownNameError as error:
        raise DataError(str(error)) from error


def evaluate_all(
    predictions: Sequence[Predictions],
    references: ReferenceData,
    settings: Settings = DEFAULTS,
    *,
    baseline: Predictions | None = None,
    command: Sequence[str] = (),
) -> list[Results]:
    """Score several predictions on the same references; `together` and `save_together` compare them.

    Raises:
        DataError: as `evaluate`.
        UnknownNameError: there are no such rules or splits.
    """
    read = references_of(references, settings.splits)
    files = [predictions_of(given) for given in ([*predictions] if baseline is None else [*predictions, baseline])]
    scored = evaluations(files, read, settings)
    against = None if baseline is None else scored.pop()
    names = file_names([evaluation.predictions.path for evaluation in scored])
    return [
        Results(evaluation, settings, name, against, tuple(command))
        for evaluation, name in zip(scored, names, strict=True)
    ]


def predictions_of(given: Predictions) -> PredictionFile:
    """Predictions from wherever they are; raises DataError."""
    if isinstance(given, Path | str):
        return read_predictions(Path(given))
    if isinstance(given, Mapping | list | tuple):
        return predictions_in_memory(given)
    raise DataError(
        f"predictions are a {type(given).__name__}; give a path, a dict of id and text, or rows{_rows(given)}"
    )


def references_of(given: ReferenceData, splits: Sequence[str] = ()) -> References:
    """References from wherever they are; raises DataError, and UnknownNameError for a split that is not there."""
    if isinstance(given, References):
        return given
    if isinstance(given, Path | str):
        return read_references(Path(given), splits)
    if isinstance(given, list | tuple):
        return references_in_memory(given)
    raise DataError(f"references are a {type(given).__name__}; give a path, or converted records{_rows(given)}")


def _rows(given: object) -> str:
    """What makes rows of a table of pandas."""
    return ", as .to_dict('records') makes of it" if hasattr(given, "to_dict") else ""


def file_names(paths: Sequence[Path]) -> list[str]:
    """A name per file, all different: its stem, with its folder where stems repeat, with a number where both do."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else f"{path.resolve().parent.name}_{path.stem}" for path in paths]
    repeated = Counter(names)
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if repeated[name] == 1 else f"{name}_{seen[name]}")
    return unique


def together(results: Sequence[Results]) -> ResultTable:
    """One table of several files."""
    return ResultTable(tuple(chain.from_iterable(one.table.runs for one in results)))


def comparison_of(results: Sequence[Results]) -> dict[str, Any]:
    """The content of comparison.json."""
    return comparison_json([one.evaluation for one in results], [one.name for one in results])


def save_together(results: Sequence[Results], folder: Path, *, page: bool = True) -> None:
    """Write comparison.json, and a page that links to the files' own in folders of their names.

    Raises:
        OSError: the folder cannot be written.
        PageError: the page could not be drawn.
    """
    write_json(folder / COMPARISON, comparison_of(results))
    if page:
        pages = {one.name: f"{quote(one.name)}/{REPORT}" for one in results}
        write_page(folder / REPORT, lambda: render_page(together(results), pages=pages))
