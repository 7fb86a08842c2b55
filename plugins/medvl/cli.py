"""The `medvl` command: one subcommand per thing to run that is not a script of the clone."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from medvl.console import accept_all_text

# Subcommand -> module with `add_arguments(parser)` and `run(args) -> exit code`, and one line of help.
COMMANDS = {
    "demo": ("medvl.demo.pipeline", "see the whole way on this machine: data, training, prediction, scores"),
    "predict": ("medvl.predict.commands", "questions to predictions: routed, batched, resumable"),
    "router": ("medvl.router.commands", "which task a question asks for: train, calibrate, evaluate, route"),
    "serve": ("medvl.serve.commands", "answer questions over HTTP, with the router in front"),
    "fit": ("medvl.fit.commands", "the fastest setting of a recipe on this GPU that trains the same"),
    "sweep": ("medvl.sweep.commands", "one recipe under many settings, and one table of what came of it"),
    "track": ("medvl.factory.track_command", "scores join the run of their model in MLflow, W&B or TensorBoard"),
    "doctor": ("medvl.doctor.commands", "check versions, GPU, LLaMA-Factory hook, disk"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code, 2 for wrong arguments, 130 after Ctrl-C."""
    accept_all_text()
    parser = argparse.ArgumentParser(prog="medvl", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        import_module(module).add_arguments(subparser)
    args = parser.parse_args(argv)
    try:
        return int(import_module(COMMANDS[args.command][0]).run(args))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
