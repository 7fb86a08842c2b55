#!/usr/bin/env python
r"""Score a prediction file against references.

examples:
  python evaluation/run.py predictions.json --references FLARE-MLLM-2D
  python evaluation/run.py predictions.jsonl --references data/flare/flare_all_val.json --out scores
  python evaluation/run.py saves/demo/generated_predictions.jsonl --references data/flare/flare_retino_val.json --json

PREDICTIONS are told apart by their keys: the challenge's predictions.json (or the same as JSON lines), rows with
`prediction` and either `id` or the challenge's keys, and LLaMA-Factory's generated_predictions.jsonl. Challenge files
hold boxes in pixels, the others in the frame that the manifest.json beside the converted references names.

The table goes to standard output, everything else to standard error; OUT gets metrics.json and per_sample.jsonl.
Exit code: 0 scored, 2 wrong arguments, 3 the data was refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from evaluation import gate
from evaluation.frames import choose_frame
from evaluation.join import join
from evaluation.metrics import known_rules
from evaluation.outputs import METRICS, metrics_json, print_scores, provenance, write_scores
from evaluation.predictions import DataError, read_predictions
from evaluation.references import read_references
from evaluation.samples import make_samples
from evaluation.scoring import invalid_reasons, score
from medvl.boxes import FRAMES, Frame
from medvl.sharegpt import to_json
from medvl.tasks import UnknownNameError

# Wide enough for every column where standard output is a file or a pipe, which have no width.
_WIDTH = 120


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    arguments = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add("predictions", type=Path, metavar="PREDICTIONS", help="prediction file, or a folder that holds one")
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
    add("--rules", choices=known_rules(), default="strict", help="how answers are judged (default: strict)")
    add("--frame", choices=FRAMES, help="frame of predicted boxes (default: by the kind of file, see below)")
    add("--seed", type=int, default=0, help="written into metrics.json; no strict metric draws lots (default: 0)")
    add("--out", type=Path, metavar="DIR", help="output folder (default: PREDICTIONS without its suffix + _scores)")
    add("--json", action="store_true", help="print metrics.json instead of the table")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Score. Returns 0, 2 for wrong arguments, 3 if the data was refused."""
    args = parser().parse_args(argv)
    errors = Console(stderr=True)
    try:
        return _run(args, [sys.argv[0], *(sys.argv[1:] if argv is None else argv)], errors)
    except UnknownNameError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 2
    except DataError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 3


def _run(args: argparse.Namespace, command: Sequence[str], errors: Console) -> int:
    references = read_references(args.references, args.splits)
    predictions = read_predictions(args.predictions)
    frame: Frame | None = choose_frame(args.frame, predictions, references.frame)
    joined = join(references, predictions)
    with errors.status("reading answers"):
        samples = make_samples(joined, frame)
        scores = score(samples, args.rules)
    found = gate.findings(references, joined, samples)
    metrics = metrics_json(
        scores,
        rules=args.rules,
        counts=gate.counts(references, predictions, joined, samples),
        provenance=provenance(
            predictions,
            references,
            command=command,
            rules=args.rules,
            frame=frame,
            seed=args.seed,
            joined_by=joined.how,
            gate=gate.as_json(found),
            invalid_reasons={task.value: invalid_reasons(part.samples) for task, part in scores.items()},
        ),
    )
    for note in references.notes:
        errors.print(f"note: {note}", markup=False, soft_wrap=True)
    for finding in found:
        first = f" (first: {'; '.join(finding.examples)})" if finding.examples else ""
        errors.print(f"note: {finding.count} {finding.text}{first}", markup=False, highlight=False, soft_wrap=True)
    out = args.out or predictions.path.with_name(f"{predictions.path.stem}_scores")
    try:
        write_scores(out, metrics, samples, scores, joined)
    except OSError as error:
        message = f"error: {out} cannot be written ({error}); name another folder with --out"
        errors.print(message, markup=False, soft_wrap=True)
        return 2
    if args.json:
        sys.stdout.write(to_json(metrics).decode())
    else:
        console = Console(width=None if sys.stdout.isatty() else _WIDTH)
        print_scores(metrics, scores, console)
        console.print(f"{out / METRICS}", markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
