"""From a command line to a file of predictions: read, route, plan, ask, write."""

import argparse
from pathlib import Path

from rich.console import Console

from medvl.boxes import Frame
from medvl.errors import UsageError
from medvl.instructions import GENERAL
from medvl.predict import backends
from medvl.predict.backends import BackendSpec
from medvl.predict.challenge import check_challenge, write_challenge
from medvl.predict.plan import Request, ask, batches, remaining, route
from medvl.predict.progress import summary, write_answers
from medvl.predict.questions import Question, choose, read_questions
from medvl.predict.setup import ModelOptions
from medvl.predict.writer import Row, done, opened, stale
from medvl.profiles import Profile, Profiles, read_profiles
from medvl.router.chain import Router, load_router
from medvl.router.route import Route


def predict(args: argparse.Namespace, errors: Console) -> dict[str, Row | None]:
    """Do what the command line asks for; id -> row of all questions, in their order, None for one that was not asked.

    Raises:
        UsageError, UnknownNameError: options that cannot be followed.
        DataError: data that cannot be read, or an output that cannot be continued.
        HopelessError: every question fails.
    """
    profiles, questions = _read(args)
    router = _router(args)
    routes = route(questions, router, by_own_task=args.oracle_task)
    chosen = [profiles.chosen(item.task, item.confidence) for item in routes]
    used = list({profile.name: profile for profile in chosen}.values())
    backend_spec = _answering(args, used, profiles[GENERAL].adapter)
    asked = _asked(questions, routes, profiles, backend_spec)
    notes = (
        [f"{router.failures} questions went to general because the router failed"] if router and router.failures else []
    )
    doubts = [f"{item.question.id}: {item.doubt}" for item in asked if item.doubt]
    if doubts:
        notes.append(f"{len(doubts)} questions give numbers that may be a box and stay as they are, first {doubts[0]}")
    for note in (*notes, *backend_spec.notes):
        errors.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    fingerprints = {item.question.id: item.fingerprint for item in asked}
    with opened(args.out) as predictions:
        other = stale(predictions.rows, fingerprints)
        if other and not args.redo:
            raise UsageError(
                f"{args.out}: {len(other)} predictions were made with another prompt, model or budget, first "
                f"{other[0]}; choose another --out, or replace them with --redo"
            )
        wanted = set(fingerprints) - done(predictions.rows, fingerprints)
        if wanted and not args.ask_nothing:
            backend = backend_spec.start()
            planned = batches(asked, lambda longest: args.batch_size or backend.at_once(longest))
            todo = remaining(planned, wanted, whole=backend_spec.together)
            write_answers(backend.answers(todo), predictions, wanted, errors)
        if args.frame:
            predictions.reframe(done(predictions.rows, fingerprints), args.frame)
        predictions.finish([question.id for question in questions])
        rows = predictions.rows
    if args.ask_nothing:  # what stands there for another prompt or model is no answer to this one
        rows = {name: row for name, row in rows.items() if name not in wanted or row.error is not None}
    if args.challenge:
        write_challenge(args.challenge, questions, rows, profiles)
    Console().print(summary(asked, rows, profiles))
    return {question.id: rows.get(question.id) for question in questions}


def _read(args: argparse.Namespace) -> tuple[Profiles, list[Question]]:
    try:
        profiles = read_profiles(args.profiles)
    except ValueError as error:
        raise UsageError(f"--profiles {error}") from error
    if args.challenge and args.challenge.resolve() == args.out.resolve():
        raise UsageError("--out and --challenge are the same file; the formats differ, give two")
    if args.no_router and args.router:
        raise UsageError("--no-router and --router contradict each other; give one")
    if args.ask_nothing and not args.challenge:
        raise UsageError("--ask-nothing writes --challenge from what is in --out; name that file")
    if args.challenge and args.shard != (1, 1):
        raise UsageError(
            "--challenge wants all questions and --shard gives a part; join the parts into one file (cat), then run "
            "without --shard and with that --out"
        )
    questions = read_questions(args.data, splits=args.splits, instructions=profiles.instructions)
    questions = choose(questions, args.limit, args.shard)
    if not questions:
        raise UsageError(f"--shard {args.shard[0]}/{args.shard[1]}: no question is left for it")
    if args.challenge:  # what cannot be handed in is refused before hours of predicting
        check_challenge(args.challenge, questions)
    if args.out.resolve() in {question.file.resolve() for question in questions} | {args.data.resolve()}:
        raise UsageError(f"--out {args.out} is a file of questions, which would be overwritten; choose another")
    return profiles, questions


def _router(args: argparse.Namespace) -> Router | None:
    if args.no_router:
        return None
    try:
        return load_router(args.router, trust_metadata=args.oracle_task)
    except (OSError, ValueError) as error:
        raise UsageError(f"--router {args.router}: {error}") from error


def _answering(args: argparse.Namespace, profiles: list[Profile], general: str | None) -> BackendSpec:
    bits = {None: None, "none": 0}.get(args.quantization, args.quantization)
    frame = Frame(args.frame) if args.frame else None
    wanted = ModelOptions(args.model, args.template, None if bits is None else int(bits), args.dtype, frame)
    try:
        if args.endpoint is None:
            return backends.in_process(profiles, wanted, args.adapters, args.adapter, general)
        from medvl.predict.endpoint import Connection

        connection = Connection(
            args.endpoint, args.concurrency, args.timeout, args.retries, args.images, args.template_breaks_lines
        )
        cards = {
            profile.adapter: args.adapters / profile.adapter
            for profile in profiles
            if args.adapters and profile.adapter
        }
        rest = args.adapter or (Path(args.model) if args.model else None)
        return backends.endpoint(profiles, connection, wanted, args.model_name, cards | ({"": rest} if rest else {}))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def _asked(
    questions: list[Question], routes: list[Route], profiles: Profiles, backend_spec: BackendSpec
) -> list[Request]:
    return [
        ask(question, item, profiles, lambda profile: backend_spec.serves[profile.name], backend_spec.identity)
        for question, item in zip(questions, routes, strict=True)
    ]
