"""`medvl predict`: the command line."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.argument_types import natural, positive
from medvl.boxes import Frame

if TYPE_CHECKING:
    from rich.console import Console

    from medvl.predict.writer import Row

OK, USAGE, REFUSED, INCOMPLETE, INTERRUPTED = 0, 2, 3, 4, 130
_SHOWN = 5
# Options that one back end alone follows -> what holds where they are not given.
_IN_PROCESS = {"batch_size": None, "quantization": None, "dtype": None, "template": None}
_AT_ENDPOINT = {
    "model_name": None,
    "concurrency": 8,
    "timeout": 120.0,
    "retries": 5,
    "images": "data",
    "template_breaks_lines": False,
}
_EPILOG = """
examples:
  medvl predict --data TREE --splits val --adapters saves/routes --router saves/router --out val.jsonl
  medvl predict --data data/flare/flare_all_val.json --adapter saves/flare_qwen3vl_4b_lora --out val.jsonl
  medvl predict --data TREE --endpoint http://127.0.0.1:8000/v1 --adapters saves/routes --out val.jsonl
  medvl predict --data TREE --adapters saves/routes --out part1.jsonl --shard 1/4

The same command goes on where a run was stopped or killed, and asks again what has no answer.
--challenge is written when every question has been asked, never before: a part of it would look whole. Questions that
could not be answered have an empty Answer in it. --ask-nothing writes it from what there is.
Exit codes: 0 all answered, 2 wrong options, 3 data refused, 4 some questions have no answer, 130 stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl predict`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    _input_arguments(parser.add_argument_group("questions and answers"))
    _routing_arguments(parser.add_argument_group("routing"))
    _model_arguments(parser.add_argument_group("model"))
    _endpoint_arguments(parser.add_argument_group("endpoint"))


def _input_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="a FLARE tree, a folder in or above one, a folder of question files, a question file, or a converted file",
    )
    add("--splits", nargs="+", default=[], help="splits of a tree (default: all but training)")
    add("--out", type=Path, required=True, metavar="JSONL", help="predictions, a line per question, raw text")
    add("--challenge", type=Path, metavar="JSON", help="also write the challenge's predictions.json")
    add(
        "--ask-nothing",
        action="store_true",
        help="write --challenge from what --out has by now; all other answers are empty (exit code 4)",
    )
    add("--limit", type=positive, metavar="N", help="only the first N questions")
    add("--shard", type=_shard, default=(1, 1), metavar="I/N", help="only every N-th question from the I-th on")
    add(
        "--redo",
        action="store_true",
        help="replace predictions in --out that were made with another prompt, model or budget",
    )


def _routing_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--profiles", type=Path, metavar="YAML", help="how each task is asked (default: recipes/profiles/default.yaml)")
    add("--router", type=Path, metavar="DIR", help="what `medvl router train` wrote (default: its rules alone)")
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--oracle-task",
        action="store_true",
        help="route by the questions' own task; for comparison, the challenge forbids it",
    )
    one.add_argument("--no-router", action="store_true", help="ask everything with the profile general")


def _model_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", metavar="PATH", help="base model, folder or hub name (default: from the adapters' run cards)")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--adapters", type=Path, metavar="DIR", help="a folder per adapter, of the profiles' names")
    one.add_argument("--adapter", type=Path, metavar="DIR", help="one adapter for all questions")
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="questions at a time (default: what the GPU's memory holds, 64 at most; 8 without a GPU); halved when "
        "memory runs out",
    )
    add("--quantization", choices=["4", "8", "none"], help="bits of the base model (default: as trained)")
    add("--dtype", choices=["auto", "bfloat16", "float16", "float32"], help="of its weights (default: as trained)")
    add("--template", help="LLaMA-Factory's name of the prompt's form (default: as trained)")
    add("--frame", choices=[*map(str, Frame)], help="frame of boxes in answers (default: as trained, else norm1000)")


def _endpoint_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--endpoint",
        metavar="URL",
        help="ask an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1; the key "
        "comes from MEDVL_API_KEY or OPENAI_API_KEY. --adapters and --adapter then only give the run cards",
    )
    add(
        "--model-name",
        metavar="NAME",
        help="model for profiles whose adapter is no model of the server (default: general, if it has that)",
    )
    default = "(default: {})".format
    concurrency, timeout, retries = (default(_AT_ENDPOINT[name]) for name in ("concurrency", "timeout", "retries"))
    add("--concurrency", type=positive, metavar="N", help=f"requests at a time {concurrency}")
    add("--timeout", type=_seconds, metavar="S", help=f"seconds per attempt {timeout}")
    add("--retries", type=natural, metavar="N", help=f"further attempts {retries}")
    add(
        "--images",
        choices=["data", "path"],
        help="send images in the request, or as file:// addresses that the server opens (default: data)",
    )
    add(
        "--template-breaks-lines",
        action="store_true",
        default=None,
        help="the server's chat template writes a line break after each image, as InternVL3's own does",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds above 0")
    return seconds


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with I from 1 to N, e.g. 1/4")
    return int(match[1]), int(match[2])


def run(args: argparse.Namespace) -> int:
    """Predict; returns the exit code."""
    from rich.console import Console

    from medvl.errors import DataError, UsageError
    from medvl.predict.predicting import predict
    from medvl.predict.progress import HopelessError
    from medvl.tasks import UnknownNameError

    errors = Console(stderr=True)
    try:
        _complete(args)
        return _report(args, predict(args, errors), errors)
    except (UsageError, UnknownNameError, OSError) as error:  # OSError: no right to write --out, say
        return _said(errors, f"error: {error}", USAGE)
    except DataError as error:
        return _said(errors, f"error: {error}", REFUSED)
    except HopelessError as error:
        return _said(errors, f"stopped: {error}{_without_challenge(args)}", INCOMPLETE)
    except KeyboardInterrupt:
        going_on = f"stopped; the same command goes on with what is in {args.out}"
        return _said(errors, going_on + _without_challenge(args), INTERRUPTED)


def _complete(args: argparse.Namespace) -> None:
    """Fill in the defaults of both back ends; raise UsageError for an option that the chosen one would not follow."""
    from medvl.errors import UsageError

    unused, cure = (
        (_IN_PROCESS, "for a model in this process; the server of --endpoint decides that itself, leave it out")
        if args.endpoint
        else (_AT_ENDPOINT, "for a server; give its --endpoint, or leave it out")
    )
    given = [f"--{name.replace('_', '-')}" for name in unused if getattr(args, name) is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: {cure}")
    for name, value in (_IN_PROCESS | _AT_ENDPOINT).items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))


def _without_challenge(args: argparse.Namespace) -> str:
    """What a run that was stopped says about the challenge's file."""
    if not args.challenge:
        return ""
    earlier = " (the one there is of an earlier run)" if args.challenge.exists() else ""
    return (
        f"; {args.challenge} was not written{earlier}: that is done when all questions have been asked, or by the same "
        "command with --ask-nothing, with empty answers for the rest"
    )


def _report(args: argparse.Namespace, rows: "Mapping[str, Row | None]", errors: "Console") -> int:
    there = [row for row in rows.values() if row is not None]
    written = [f"{len(there)} predictions in {args.out}"]
    written += [f"the challenge's format in {args.challenge}"] if args.challenge else []
    for line in written:
        _said(type(errors)(), line, OK)
    failures = [row for row in there if row.error is not None]
    missing = len(rows) - len(there) + len(failures)
    if not missing:
        return OK
    for row in failures[:_SHOWN]:
        _said(errors, f"{row.id}: {row.error}", INCOMPLETE)
    more = f", {_SHOWN} of them above" if len(failures) > _SHOWN else ""
    handed_in = f", and {args.challenge} has empty ones for them" if args.challenge else ""
    again = (
        "the same command without --ask-nothing asks them" if args.ask_nothing else "the same command asks them again"
    )
    return _said(errors, f"{missing} questions have no answer{more}{handed_in}; {again}", INCOMPLETE)


def _said(console: "Console", message: str, code: int) -> int:
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    return code
