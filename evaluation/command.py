"""The command line of `evaluation/run.py`: what it reads, writes and prints, and its exit codes."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from evaluation.console import print_differences, print_files, print_scores
from evaluation.findings import Finding
from evaluation.metrics.registry import known_rules
from evaluation.model_based_metrics import METRICS as METRICS_BY_MODELS
from evaluation.model_based_metrics import MissingExtraError
from evaluation.outputs import COMPARISON, METRICS, REPORT, PageError
from evaluation.page.markdown import markdown_tables
from evaluation.results import Results, comparison_of, evaluate_all, references_of, save_together, together
from evaluation.scores import Resampling, Settings
from evaluation.sentence_models import MODELS as SENTENCE_MODELS
from medvl.boxes import Frame
from medvl.console import accept_all_text
from medvl.errors import DataError
from medvl.sharegpt import to_json
from medvl.tasks import UnknownNameError

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
    add(
        "--frame", choices=[*map(str, Frame)], help="frame of predicted boxes (default: by the kind of file, see below)"
    )
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
    """The settings of a command line."""
    named = [*args.rules.split(","), *([f"m3llm-{args.compat}"] if args.compat else [])]
    return Settings(
        rules=tuple(dict.fromkeys(name.strip() for name in named)),
        splits=tuple(args.splits),
        frame=Frame(args.frame) if args.frame else None,
        resampling=Resampling(max(0, args.bootstrap), args.seed, args.cluster),
        force=args.force,
        report_metrics=tuple(dict.fromkeys(args.report_metrics)),
        green_transcript=args.green_transcript,
        only_predicted=args.only_predicted,
    )


def _run(args: argparse.Namespace, command: Sequence[str], errors: Console) -> int:
    chosen = settings(args)
    references = references_of(args.references, chosen.splits)
    _note(references.notes, errors)
    with errors.status("scoring"):
        results = evaluate_all(args.predictions, references, chosen, baseline=args.baseline, command=command)
    out = args.out or _default_out(results)
    several = len(results) > 1
    for one in results:
        if several:
            errors.print(f"{one.name}:", markup=False, highlight=False)
        _note([finding_note(finding) for finding in one.findings], errors)
        _note([f"{other.text}; {other.cure}" for other in one.diagnosis.other_frames], errors)
        with _noted(errors):
            one.save(out / one.name if several else out, page=not args.no_page, images=args.images)
    made = results[0].metrics
    if several:
        made = comparison_of(results)
        with _noted(errors):
            save_together(results, out, page=not args.no_page)
    if args.json:
        sys.stdout.write(to_json(made).decode())
    elif args.markdown:
        sys.stdout.write(markdown_tables(together(results)))
    else:
        _print(results)
        names = [COMPARISON if several else METRICS, *([] if args.no_page else [REPORT])]
        for path in filter(Path.is_file, (out / name for name in names)):
            print(path)  # noqa: T201  (whole, however long it is)
    return 0


@contextmanager
def _noted(errors: Console) -> Iterator[None]:
    """A page that cannot be drawn costs neither the other files nor the table; it is said."""
    try:
        yield
    except PageError as error:
        _note([str(error)], errors)


def _print(results: Sequence[Results]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    table = together(results)
    if len(results) > 1:
        print_files(table.under(results[0].evaluation.rules), console)
    else:
        print_scores(table, console)
    for one in results:
        if "comparison" in one.metrics:
            print_differences(one.metrics["comparison"], one.name, console)


def _default_out(results: Sequence[Results]) -> Path:
    path = results[0].evaluation.predictions.path
    return path.with_name("comparison" if len(results) > 1 else f"{path.stem}_scores")


def _note(notes: Sequence[str], errors: Console) -> None:
    for note in notes:
        errors.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def finding_note(finding: Finding) -> str:
    """A finding of the validity checks in one line."""
    first = f" (first: {'; '.join(finding.examples)})" if finding.examples else ""
    return f"{finding.count} {finding.text}{first}"
