"""The command line of `evaluation/run.py`: what it reads, writes and prints, and its exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console

from evaluation.comparison import compare
from evaluation.comparison_tables import comparison_json, file_names, print_comparison, print_files
from evaluation.diagnose import diagnose
from evaluation.diagnosis import Diagnosis
from evaluation.evaluate import Evaluation, Settings, evaluate_all
from evaluation.metrics import known_rules, m3llm_v1
from evaluation.model_based_metrics import METRICS as METRICS_BY_MODELS
from evaluation.model_based_metrics import MissingExtraError
from evaluation.outputs import COMPARISON, METRICS, metrics_json, print_scores, write_json, write_scores
from evaluation.page import REPORT, markdown_tables, render_page, runs_of
from evaluation.reading import readable
from evaluation.references import read_references
from evaluation.sentence_models import MODELS as SENTENCE_MODELS
from evaluation.statistics import Resampling
from evaluation.validity_checks import Finding
from medvl.boxes import FRAMES
from medvl.console import accept_all_text
from medvl.errors import DataError
from medvl.sharegpt import to_json, write_atomic
from medvl.tasks import UnknownNameError, unknown_name

# Wide enough for every column where standard output is a file or a pipe, which have no width.
_WIDTH = 180


def parser(doc: str) -> argparse.ArgumentParser:
    """The command line; `doc` is its description and, after a blank line, examples."""
    description, _, examples = doc.partition("\n\n")
    arguments = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add(
        "predictions",
        type=Path,
        nargs="+",
        metavar="PREDICTIONS",
        help="prediction file, or a folder that holds one; several are compared",
    )
    add(
        "--references",
        type=Path,
        required=True,
        metavar="PATH",
        help="FLARE tree, a split or dataset folder in it, question file, converted file, or another prediction file",
    )
    add(
        "--splits",
        nargs="+",
        default=[],
        metavar="SPLIT",
        help="splits of a tree: train, val, hidden, test (default: all with answers; train only if no other has)",
    )
    add(
        "--rules",
        default="strict",
        metavar="RULES",
        help=f"how answers are judged, one or several of {','.join(known_rules())} (default: strict)",
    )
    add(
        "--compat",
        choices=("v1",),
        help="also score PMC-MI-Bench as M3LLM's first release does (rules m3llm-v1), which leaves invalid answers out",
    )
    add("--baseline", type=Path, metavar="OTHER", help="prediction file to test the difference to")
    add("--bootstrap", type=int, default=1000, metavar="N", help="draws for intervals and tests, 0 for none (1000)")
    add(
        "--cluster",
        default="image",
        metavar="FIELD",
        help="what is drawn: image (default), sample, or a field of the references' rows such as a patient's number",
    )
    add("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    add("--frame", choices=FRAMES, help="frame of predicted boxes (default: by the kind of file, see below)")
    add(
        "--only-predicted",
        action="store_true",
        help="leave references without a prediction out instead of counting them as wrong; every output says so. Of "
        "several files, and with --baseline, what all of them predicted is scored",
    )
    add("--force", action="store_true", help="score even what the validity checks would refuse")
    add("--out", type=Path, metavar="DIR", help="output folder (default: PREDICTIONS without its suffix + _scores)")
    add("--images", type=int, default=24, metavar="N", help=f"images with boxes in {REPORT} (default: 24)")
    add(
        "--report-metrics",
        nargs="+",
        default=[],
        choices=[*METRICS_BY_MODELS, *SENTENCE_MODELS],
        help="metrics of texts that need a model: the first three and the extra `radiology`; "
        f"{', '.join(SENTENCE_MODELS)} (rules m3llm) and the extra `m3llm`",
    )
    add("--green-transcript", type=Path, metavar="FILE", help="responses of a GREEN judge, JSON lines of id, response")
    add("--no-page", action="store_true", help=f"write no {REPORT}")
    printed = arguments.add_mutually_exclusive_group()
    printed.add_argument(
        "--json", action="store_true", help=f"print {METRICS} (for several files {COMPARISON}) instead of the table"
    )
    printed.add_argument("--markdown", action="store_true", help="print the tables as GitHub Markdown")
    return arguments


def run(words: Sequence[str], doc: str) -> int:
    """Score.

    Args:
        words: Command line.
        doc: Description and examples for `--help`.

    Returns:
        0, 2 for wrong arguments, 3 if the data was refused.
    """
    accept_all_text()
    arguments = parser(doc)
    args = arguments.parse_args(words)
    if args.green_transcript and (args.baseline or len(args.predictions) > 1):
        arguments.error("--green-transcript holds responses to one file's reports; score the files one by one")
    errors = Console(stderr=True)
    try:
        return _run(args, [sys.argv[0], *words], errors)
    except (UnknownNameError, MissingExtraError) as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 2
    except DataError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 3
    except OSError as error:
        cure = f"{error.filename} cannot be written ({error}); name another folder with --out"
        errors.print(f"error: {cure if error.filename else error}", markup=False, soft_wrap=True)
        return 2


def settings(args: argparse.Namespace) -> Settings:
    """The settings of a command line; raises UnknownNameError for rules that do not exist."""
    named = [*args.rules.split(","), *([m3llm_v1.RULES] if args.compat else [])]
    rules = tuple(dict.fromkeys(name.strip() for name in named))
    for name in rules:
        if name not in known_rules():
            raise unknown_name("set of rules", name, known_rules())
    return Settings(
        rules=rules,
        frame=args.frame,
        resampling=Resampling(max(0, args.bootstrap), args.seed, args.cluster),
        force=args.force,
        report_metrics=tuple(dict.fromkeys(args.report_metrics)),
        green_transcript=args.green_transcript,
        only_predicted=args.only_predicted,
    )


def _run(args: argparse.Namespace, command: Sequence[str], errors: Console) -> int:
    chosen = settings(args)
    with readable(args.references):
        references = read_references(args.references, args.splits)
    _note(references.notes, errors)
    with errors.status("scoring"):
        evaluations = evaluate_all([*args.predictions, *([args.baseline] if args.baseline else [])], references, chosen)
        baseline = evaluations.pop() if args.baseline else None
    out = args.out or _default_out(evaluations)
    names = file_names([evaluation.predictions.path for evaluation in evaluations])
    written, runs = [], []
    images = None if args.no_page else args.images
    for evaluation, name in zip(evaluations, names, strict=True):
        if len(evaluations) > 1:
            errors.print(f"{name}:", markup=False, highlight=False)
        folder = out / name if len(evaluations) > 1 else out
        diagnosis = diagnose(evaluation)
        written.append(_write(evaluation, baseline, diagnosis, folder, chosen, command, errors))
        runs.append(runs_of(evaluation, name, written[-1], diagnosis))
        if images is not None:
            _draw(folder / REPORT, partial(render_page, runs[-1], most_images=images), errors)
    if len(evaluations) > 1:
        together = comparison_json(evaluations, names)
        write_json(out / COMPARISON, together)
        if images is not None:
            pages = {name: f"{quote(name)}/{REPORT}" for name in names}
            _draw(out / REPORT, partial(render_page, list(chain(*runs)), pages=pages), errors)
    if args.json:
        sys.stdout.write(to_json(together if len(evaluations) > 1 else written[0]).decode())
    elif args.markdown:
        sys.stdout.write(markdown_tables(list(chain(*runs))))
    else:
        _print(evaluations, names, written, out)
    return 0


def _draw(path: Path, render: Callable[[], bytes], errors: Console) -> None:
    """Write a page. It shows what other files hold, so if it cannot be drawn that costs neither these nor the table."""
    try:
        write_atomic(path, render())
    except Exception as error:  # whatever a chart, an image or the disk may raise; it is said
        path.unlink(missing_ok=True)  # an earlier run's page would be taken for this one's
        why = f"{path} is not there, it could not be drawn ({type(error).__name__}: {error})"
        _note([f"{why}; the scores are whole. Please report it; --no-page leaves the page out"], errors)


def _write(
    evaluation: Evaluation,
    baseline: Evaluation | None,
    diagnosis: Diagnosis,
    folder: Path,
    chosen: Settings,
    command: Sequence[str],
    errors: Console,
) -> dict[str, Any]:
    """Write a file's outputs; returns the content of its metrics.json."""
    _note([finding_note(finding) for finding in evaluation.findings], errors)
    _note([f"{other.text}; {other.cure}" for other in diagnosis.other_frames], errors)
    metrics = metrics_json(evaluation, chosen, command)
    if baseline is not None:
        metrics["comparison"] = compare(evaluation, baseline, chosen.resampling)
    write_scores(folder, evaluation, metrics, diagnosis)
    return metrics


def _print(
    evaluations: Sequence[Evaluation], names: Sequence[str], written: Sequence[dict[str, Any]], out: Path
) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    if len(evaluations) > 1:
        print_files(evaluations, names, console)
    else:
        print_scores(evaluations[0], written[0], console)
    for name, metrics in zip(names, written, strict=True):
        if "comparison" in metrics:
            print_comparison(metrics["comparison"], name, console)
    console.print(
        f"{out / (COMPARISON if len(written) > 1 else METRICS)}", markup=False, highlight=False, soft_wrap=True
    )


def _default_out(evaluations: Sequence[Evaluation]) -> Path:
    path = evaluations[0].predictions.path
    return path.with_name("comparison" if len(evaluations) > 1 else f"{path.stem}_scores")


def _note(notes: Sequence[str], errors: Console) -> None:
    for note in notes:
        errors.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def finding_note(finding: Finding) -> str:
    """A finding of the validity checks in one line."""
    first = f" (first: {'; '.join(finding.examples)})" if finding.examples else ""
    return f"{finding.count} {finding.text}{first}"
