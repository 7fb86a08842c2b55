#!/usr/bin/env python
r"""Score prediction files against references.

examples:
  python evaluation/run.py predictions.json --references FLARE-MLLM-2D
  python evaluation/run.py predictions.jsonl --references data/flare/flare_all_val.json --rules strict,official
  python evaluation/run.py tuned.jsonl --references data/flare/flare_all_val.json --baseline untuned.jsonl
  python evaluation/run.py runs/*/predictions.jsonl --references data/flare/flare_all_val.json --out ablation
  python evaluation/run.py saves/demo/generated_predictions.jsonl --references data/flare/flare_retino_val.json --json

PREDICTIONS are told apart by their keys: the challenge's predictions.json (or the same as JSON lines), rows with
`prediction` and either `id` or the challenge's keys, and LLaMA-Factory's generated_predictions.jsonl. Challenge files
hold boxes in pixels, the others in the frame that the manifest.json beside the converted references names.

The table goes to standard output, everything else to standard error; OUT gets metrics.json, diagnosis.json,
per_sample.jsonl and report.html, a page to open in any browser; for several PREDICTIONS a folder each, comparison.json
and a page with all of them side by side.
Exit code: 0 scored, 2 wrong arguments, 3 the data was refused.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

if __name__ == "__main__":  # the clone this lies in, with its plugins, whichever is installed, or none
    CLONE = Path(__file__).resolve().parent.parent
    own_folder = 0 if sys.flags.safe_path else 1  # Python puts it first; its modules are no top-level ones
    sys.path[:own_folder] = [str(CLONE), str(CLONE / "plugins")]

from rich.console import Console

from evaluation.comparison import compare
from evaluation.comparison_tables import comparison_json, file_names, print_comparison, print_files
from evaluation.diagnose import diagnose
from evaluation.diagnosis import Diagnosis
from evaluation.evaluate import Evaluation, Settings, evaluate
from evaluation.gate import Finding
from evaluation.judges import METRICS as METRICS_BY_MODELS
from evaluation.judges import MissingExtraError
from evaluation.metrics import known_rules
from evaluation.outputs import COMPARISON, METRICS, metrics_json, print_scores, write_json, write_scores
from evaluation.page import REPORT, markdown_tables, render_page, runs_of
from evaluation.predictions import DataError
from evaluation.references import read_references
from evaluation.statistics import Resampling
from medvl.boxes import FRAMES
from medvl.console import accept_all_text
from medvl.sharegpt import to_json, write_atomic
from medvl.tasks import UnknownNameError, unknown_name

# Wide enough for every column where standard output is a file or a pipe, which have no width.
_WIDTH = 180


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
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
    add("--force", action="store_true", help="score even what the gate would refuse")
    add("--out", type=Path, metavar="DIR", help="output folder (default: PREDICTIONS without its suffix + _scores)")
    add("--pictures", type=int, default=24, metavar="N", help=f"pictures with boxes in {REPORT} (default: 24)")
    add(
        "--report-metrics",
        nargs="+",
        default=[],
        choices=METRICS_BY_MODELS,
        help="report metrics that need a large model and the extra `radiology`",
    )
    add("--green-transcript", type=Path, metavar="FILE", help="responses of a GREEN judge, JSON lines of id, response")
    add("--no-page", action="store_true", help=f"write no {REPORT}")
    printed = arguments.add_mutually_exclusive_group()
    printed.add_argument(
        "--json", action="store_true", help=f"print {METRICS} (for several files {COMPARISON}) instead of the table"
    )
    printed.add_argument("--markdown", action="store_true", help="print the tables as GitHub Markdown")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Score. Returns 0, 2 for wrong arguments, 3 if the data was refused."""
    accept_all_text()
    arguments = parser()
    args = arguments.parse_args(argv)
    if args.green_transcript and (args.baseline or len(args.predictions) > 1):
        arguments.error("--green-transcript holds responses to one file's reports; score the files one by one")
    errors = Console(stderr=True)
    try:
        return _run(args, [sys.argv[0], *(sys.argv[1:] if argv is None else argv)], errors)
    except (UnknownNameError, MissingExtraError) as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 2
    except DataError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 3
    except OSError as error:
        message = f"error: {error.filename} cannot be written ({error}); name another folder with --out"
        errors.print(message, markup=False, soft_wrap=True)
        return 2


def settings(args: argparse.Namespace) -> Settings:
    """The settings of a command line; raises UnknownNameError for rules that do not exist."""
    rules = tuple(dict.fromkeys(name.strip() for name in args.rules.split(",")))
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
    )


def _run(args: argparse.Namespace, command: Sequence[str], errors: Console) -> int:
    chosen = settings(args)
    references = read_references(args.references, args.splits)
    _note(references.notes, errors)
    with errors.status("scoring"):
        baseline = evaluate(args.baseline, references, chosen) if args.baseline else None
        evaluations = [evaluate(path, references, chosen) for path in args.predictions]
    out = args.out or _default_out(evaluations)
    names = file_names([evaluation.predictions.path for evaluation in evaluations])
    written, runs = [], []
    pictures = None if args.no_page else args.pictures
    for evaluation, name in zip(evaluations, names, strict=True):
        if len(evaluations) > 1:
            errors.print(f"{name}:", markup=False, highlight=False)
        folder = out / name if len(evaluations) > 1 else out
        diagnosis = diagnose(evaluation)
        written.append(_write(evaluation, baseline, diagnosis, folder, chosen, command, errors))
        runs.append(runs_of(evaluation, name, written[-1], diagnosis))
        if pictures is not None:
            write_atomic(folder / REPORT, render_page(runs[-1], most_pictures=pictures))
    if len(evaluations) > 1:
        together = comparison_json(evaluations, names)
        write_json(out / COMPARISON, together)
        if pictures is not None:
            pages = {name: f"{quote(name)}/{REPORT}" for name in names}
            write_atomic(out / REPORT, render_page(list(chain(*runs)), pages=pages))
    if args.json:
        sys.stdout.write(to_json(together if len(evaluations) > 1 else written[0]).decode())
    elif args.markdown:
        sys.stdout.write(markdown_tables(list(chain(*runs))))
    else:
        _print(evaluations, names, written, out)
    return 0


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
    """A finding of the gate in one line."""
    first = f" (first: {'; '.join(finding.examples)})" if finding.examples else ""
    return f"{finding.count} {finding.text}{first}"


if __name__ == "__main__":
    sys.exit(main())
