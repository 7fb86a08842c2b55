"""`medvl router`: train, calibrate, evaluate and use a router."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from medvl.router.fitting import Progress

OK, USAGE, REFUSED, INCOMPLETE = 0, 2, 3, 4

_EPILOG = """
examples:
  medvl router train --out saves/router
  medvl router train --data /data/FLARE-MLLM-2D --out saves/router
  medvl router train --data a_questions_train.json b_questions_train.json --encoder BAAI/bge-small-en-v1.5 --out OUT
  medvl router route questions.jsonl --router saves/router --out routes.jsonl
  medvl router evaluate --router saves/router --data /data/FLARE-MLLM-2D --lodo --json report.json

Exit codes: 0 done, 2 wrong options, 3 data or router refused, 4 routing failed for some questions (general is written).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl router`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _train_arguments(_action(actions, "train", "learn from question files which task a question asks for"))
    _calibrate_arguments(
        _action(actions, "calibrate", "fit temperature, thresholds and similarity gate to other questions")
    )
    _evaluate_arguments(_action(actions, "evaluate", "confusion matrix, coverage curve, unseen datasets and wordings"))
    _route_arguments(_action(actions, "route", "one task per question"))


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    return parser


def _data_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--data", type=Path, nargs="+", required=required, default=[], metavar="PATH",
        help="FLARE trees, folders with *questions*.json, or question files",
    )  # fmt: skip
    parser.add_argument("--splits", nargs="+", default=[], help="splits of a tree (default: train, if there is one)")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    _data_arguments(parser, required=False)
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="the router's folder; an earlier router there is replaced",
    )
    add("--recipe", type=Path, metavar="YAML", help="options of training (default: as recipes/router/gliclass.yaml)")
    add("--encoder", metavar="PATH", help="pretrained encoder, folder or hub name (default: a small one from scratch)")
    add("--label-encoder", metavar="PATH", help="the same for the labels (default: as --encoder)")
    add("--full", action="store_true", default=None, help="fine-tune the encoders instead of the heads alone")
    add("--epochs", type=int, metavar="N", help="passes over the questions")
    add("--no-written", action="store_false", dest="written", default=None,
        help="leave out the project's own questions of several professions (medvl/router/questions)")  # fmt: skip
    add("--seed", type=int, metavar="N", help="of everything random (default: the recipe's)")
    add("--device", default="cpu", help="to train on (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="also write what was counted and measured")


def _calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--router", type=Path, required=True, metavar="DIR", help="changed in place: its router.json")
    _data_arguments(parser, required=False)
    add("--questions", type=Path, metavar="JSONL", help='lines {"question", "task"}; task may be general')
    add("--json", type=Path, metavar="FILE", help="also write what was measured")


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--router", type=Path, metavar="DIR", help="default: rules alone")
    _data_arguments(parser, required=False)
    add("--paraphrases", type=Path, metavar="JSONL", help='lines {"question", "task"}')
    add("--out-of-domain", type=Path, metavar="JSONL", help='lines {"question"} that are no task: general is right')
    add("--held-out", action="store_true", help="the project's own questions of professions that training never reads")
    add("--lodo", action="store_true", help="train anew without each dataset of --data in turn (twelve minutes each)")
    add("--recipe", type=Path, metavar="YAML", help="options of training for --lodo (default: the router's own)")
    add("--json", type=Path, metavar="FILE", help="also write everything as JSON")


def _route_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help='JSON Lines, one {"question": ...} each; other keys are ignored')
    add("--router", type=Path, metavar="DIR", help="of `medvl router train` (default: rules alone)")
    add("--out", type=Path, metavar="FILE", help='one {"task", "confidence", "source"} per line (default: stdout)')
    add("--trust-metadata", action="store_true", help="a line's task, TaskType or task_type decides")
    add("--explain", action="store_true", help="write margin, reason and scores too")


def run(args: argparse.Namespace) -> int:
    """Run the action; returns the exit code."""
    from rich.console import Console

    from medvl.errors import DataError
    from medvl.router.folder import RouterFolderError
    from medvl.router.lines import LinesError
    from medvl.router.training import TrainingError

    errors = Console(stderr=True, soft_wrap=True)
    action: Callable[[argparse.Namespace, Console], int] = {
        "train": _train, "calibrate": _calibrate, "evaluate": _evaluate, "route": _route,
    }[args.action]  # fmt: skip
    try:
        return action(args, errors)
    except (DataError, RouterFolderError, LinesError, TrainingError) as error:
        return _said(errors, error, REFUSED)
    except (ValueError, OSError) as error:
        return _said(errors, error, USAGE)


def _said(errors: Console, error: Exception, code: int) -> int:
    errors.print(f"error: {error}", style="bold red", markup=False, highlight=False)
    return code


def _route(args: argparse.Namespace, errors: Console) -> int:
    from medvl.router.chain import load_router
    from medvl.router.lines import encode_routes, read_lines
    from medvl.sharegpt import write_atomic

    if args.out and args.out.resolve() == args.file.resolve():
        raise ValueError(f"--out {args.out} is the file of questions, which would be overwritten; choose another")
    lines = read_lines(args.file)
    router = load_router(args.router, trust_metadata=args.trust_metadata)
    routes = router.route([line.question for line in lines], metadata=[line.task for line in lines])
    encoded = encode_routes(routes, explain=args.explain)
    if args.out:
        write_atomic(args.out, encoded)
    else:
        sys.stdout.buffer.write(encoded)
    counts = Counter(route.task for route in routes)
    said = ", ".join(f"{task} {number}" for task, number in counts.most_common())
    errors.print(f"{len(routes)} questions: {said or 'none'}", markup=False, highlight=False)
    if router.failures:
        errors.print(f"{router.failures} went to general because routing failed", style="bold red", markup=False)
        return INCOMPLETE
    return OK


def _train(args: argparse.Namespace, errors: Console) -> int:
    from medvl.router.data import QuestionSet, read_question_set
    from medvl.router.fitting import fit, save
    from medvl.router.folder import check_replaceable
    from medvl.router.options import read_options
    from medvl.router.tables import print_training

    options = read_options(
        args.recipe,
        encoder=args.encoder,
        label_encoder=args.label_encoder,
        full=args.full,
        written=args.written,
        epochs=args.epochs,
        seed=args.seed,
    )
    if options.focal_alpha >= 1:
        errors.print(
            "warning: focal_alpha 1 gives negatives no gradient; every label tends to a score of 1 (preset mevlip)",
            style="yellow", markup=False,
        )  # fmt: skip
    if not args.data and not options.written:
        raise ValueError("nothing to train on: give --data, or the project's own questions (written: true)")
    check_replaceable(args.out)
    questions = read_question_set(args.data, args.splits) if args.data else QuestionSet([], 0, {}, [])
    with _progress(errors) as progress:
        fitted = fit(questions.questions, options, device=args.device, progress=progress)
    card = save(args.out, fitted, questions, options)
    report = {"rows": questions.rows, "contradictions": questions.contradictions, "tasks": card.data.tasks,
              "metrics": card.metrics, "temperature": card.temperature, "thresholds": card.thresholds,
              "similarity": card.similarity}  # fmt: skip
    print_training(report, len(questions.files))
    _write_json(args.json, report)
    return OK


def _calibrate(args: argparse.Namespace, errors: Console) -> int:
    from medvl.router.chain import load_router
    from medvl.router.data import LabelledQuestion, phrasing_group, read_question_set
    from medvl.router.fitting import calibrated
    from medvl.router.folder import recalibrate
    from medvl.router.lines import read_labelled
    from medvl.router.route import normalise
    from medvl.router.tables import print_pairs

    if not args.data and not args.questions:
        raise ValueError("calibrate needs questions with tasks: --data or --questions")
    rows = read_question_set(args.data, args.splits).questions if args.data else []
    for text, task in read_labelled(args.questions) if args.questions else []:
        rows.append(LabelledQuestion(normalise(text), task, args.questions.stem, phrasing_group(text)))
    stage = load_router(args.router).stage
    assert stage is not None, "a folder always holds a classifier"
    calibration, metrics = calibrated(stage, rows)
    card = recalibrate(args.router, calibration, metrics)
    report = {
        "metrics": card.metrics,
        "temperature": card.temperature,
        "thresholds": card.thresholds,
        "similarity": card.similarity,
    }
    print_pairs("Calibration", report)
    _write_json(args.json, report)
    errors.print(f"{args.router / 'router.json'} written; give it questions it was not trained on", markup=False)
    return OK


def _evaluate(args: argparse.Namespace, errors: Console) -> int:
    from medvl.router.chain import load_router
    from medvl.router.data import read_question_set
    from medvl.router.evaluation import evaluate, leave_one_dataset_out
    from medvl.router.folder import read_card
    from medvl.router.lines import read_labelled
    from medvl.router.options import TrainingOptions, read_options
    from medvl.router.tables import print_evaluation, print_left_out
    from medvl.router.written import held_out

    if args.lodo and not args.data:
        raise ValueError("--lodo needs --data with at least two datasets")
    rows = read_question_set(args.data, args.splits).questions if args.data else []
    sets: dict[str, Sequence[tuple[str, str]]] = {}
    if rows:
        sets["data"] = [(row.text, row.task) for row in rows]
    if args.paraphrases:
        sets["paraphrases"] = read_labelled(args.paraphrases)
    if args.out_of_domain:
        sets["out of domain"] = read_labelled(args.out_of_domain, general=True)
    if args.held_out:
        sets["held-out professions"] = [(it.question, it.task) for it in held_out()]
    if not sets:
        raise ValueError("evaluate needs --data, --paraphrases, --out-of-domain or --held-out")
    router = load_router(args.router)
    report: dict[str, Any] = {"router": router.fingerprint, "sets": {}}
    for name, questions in sets.items():
        report["sets"][name] = evaluate(router, questions)
        print_evaluation(name, report["sets"][name])
    if args.lodo:
        options = (
            read_options(args.recipe)
            if args.recipe or not args.router
            else TrainingOptions(**read_card(args.router).options)
        )
        folds = leave_one_dataset_out(rows, options, on_dataset=_said_dataset(errors))
        report["leave_one_dataset_out"] = list(folds)
        print_left_out(report["leave_one_dataset_out"])
    _write_json(args.json, report)
    return OK


def _said_dataset(errors: Console) -> Callable[[str, int, int], None]:
    def say(dataset: str, number: int, of: int) -> None:
        errors.print(f"leaving out {dataset} ({number} of {of})", markup=False, highlight=False)

    return say


@contextmanager
def _progress(errors: Console) -> Iterator[Progress]:
    from rich.progress import Progress as Bars

    with Bars(console=errors, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(what: str, step: int, planned: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=planned)
            bars.update(tasks[what], completed=step)

        yield update


def _write_json(path: Path | None, report: Any) -> None:
    from medvl.sharegpt import to_json, write_atomic

    if path:
        write_atomic(path, to_json(report))
