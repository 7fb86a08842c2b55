"""`medvl serve`: the command line."""

import argparse
import ipaddress
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.argument_types import positive
from medvl.serve.limits import MIB, Limits

if TYPE_CHECKING:
    from rich.console import Console

    from medvl.predict.backends import BackendSpec
    from medvl.serve.choice import Chooser

USAGE = 2
KEY_VARIABLES = ("MEDVL_API_KEY", "API_KEY")  # the second is LLaMA-Factory's
GRACE_SECONDS = 5  # for answers under way when the server is stopped
_DEFAULTS = Limits()
_EPILOG = """
examples:
  medvl serve --adapters saves/routes --router saves/router
  medvl serve --model Qwen/Qwen3-VL-4B-Instruct --port 8001
  MEDVL_API_KEY=... medvl serve --adapters saves/routes --router saves/router --host 0.0.0.0

A request's model is `auto` (the router chooses), a task, `general`, or an adapter (GET /v1/models). Headers of
the answer tell who gave it: X-Medvl-Task, -Confidence, -Source, -Profile, -Adapter. Images come as data addresses.
One answer is generated at a time; for real load see docs/serve.md (vLLM, SGLang).
Exit codes: 0 or 130 stopped, 2 wrong options.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl serve`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    _model_arguments(parser.add_argument_group("model and routing"))
    _access_arguments(parser.add_argument_group("who may ask"))
    _limit_arguments(parser.add_argument_group("what may be asked"))


def _model_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", metavar="PATH", help="base model, folder or hub name (default: from the adapters' run cards)")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--adapters", type=Path, metavar="DIR", help="a folder per adapter, of the profiles' names")
    one.add_argument("--adapter", type=Path, metavar="DIR", help="one adapter for all questions")
    add("--profiles", type=Path, metavar="YAML", help="how each task is asked (default: recipes/profiles/default.yaml)")
    router = group.add_mutually_exclusive_group()
    router.add_argument("--router", type=Path, metavar="DIR", help="of `medvl router train` (default: rules alone)")
    router.add_argument("--no-router", action="store_true", help="`auto` always means general")
    add("--quantization", choices=["4", "8", "none"], help="bits of the base model (default: as trained)")
    add("--dtype", choices=["auto", "bfloat16", "float16", "float32"], help="of its weights (default: as trained)")
    add("--template", help="LLaMA-Factory's name of the prompt's form (default: as trained)")


def _access_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine alone)")
    add("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    add(
        "--api-key",
        metavar="KEY",
        help=f"key that clients must send (default: from {' or '.join(KEY_VARIABLES)}, which `ps` does not show)",
    )
    add(
        "--image-folder",
        type=Path,
        metavar="DIR",
        help="images in it may be named by path or file:// (default: no file of this machine is read)",
    )
    add(
        "--image-host",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="images may be fetched from it; may be repeated (default: nothing is fetched)",
    )


def _limit_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--max-request-mib",
        type=positive,
        default=_DEFAULTS.body_bytes // MIB,
        metavar="N",
        help="size of a request, images included (default: %(default)s)",
    )
    add("--max-images", type=positive, default=_DEFAULTS.images, metavar="N", help="images (default: %(default)s)")
    add(
        "--max-image-pixels",
        type=positive,
        default=_DEFAULTS.image_pixels,
        metavar="N",
        help="largest image that is decoded, width times height (default: %(default)s)",
    )
    add(
        "--max-total-pixels",
        type=positive,
        metavar="N",
        help="all images of a request together; decoded, when its turn comes, a pixel takes 4 bytes of memory "
        f"(default: {_DEFAULTS.pixels}, or one of the largest)",
    )
    add(
        "--max-tokens",
        type=positive,
        default=_DEFAULTS.new_tokens,
        metavar="N",
        help="longest answer (default: %(default)s)",
    )
    add(
        "--max-waiting",
        type=positive,
        default=_DEFAULTS.unfinished,
        metavar="N",
        help="requests that wait or are answered; more are told to come back (default: %(default)s)",
    )

    add(
        "--max-waiting-mib",
        type=positive,
        metavar="N",
        help="size of all requests that wait or are answered, images included; more are told to come back "
        f"(default: {_DEFAULTS.unfinished_bytes // MIB}, or one of the largest)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; returns the exit code."""
    from rich.console import Console

    from medvl.errors import UsageError

    errors = Console(stderr=True)
    try:
        return _serve(args, errors)
    except UsageError as error:
        errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return USAGE


def _serve(args: argparse.Namespace, errors: "Console") -> int:
    from medvl.errors import UsageError

    limits = _limits(args)
    listener = _bound(args.host, args.port)
    try:
        backend_spec, chooser = _prepared(args)
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    key = args.api_key or next((value for name in KEY_VARIABLES if (value := os.environ.get(name))), None)
    for note in (*backend_spec.notes, *warnings(args.host, key)):
        errors.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)

    backend = backend_spec.start()
    import logging

    import uvicorn

    from medvl.predict.batching import Batches
    from medvl.serve.application import LOOPBACK, Access, create_application
    from medvl.serve.engine import Engine

    if not isinstance(backend, Batches):
        raise TypeError(f"{type(backend).__name__} answers batches; serving needs the model itself")
    # On loopback without a key, a name that a web page chose is refused.
    names = frozenset({*LOOPBACK, args.host}) if key is None and _is_loopback(args.host) else None
    application = create_application(Engine(backend.loaded), chooser, limits, Access(key, names))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = uvicorn.Config(application, log_config=None, timeout_graceful_shutdown=GRACE_SECONDS)
    listener.listen(limits.unfinished)  # who asks from now on waits for uvicorn, and is not refused
    host, port = listener.getsockname()[:2]
    type(errors)().print(
        f"serving http://{f'[{host}]' if ':' in host else host}:{port}/v1", highlight=False, soft_wrap=True
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _limits(args: argparse.Namespace) -> Limits:
    from medvl.errors import UsageError

    if args.image_folder is not None and not args.image_folder.is_dir():
        raise UsageError(f"--image-folder {args.image_folder}: there is no such folder")
    if args.api_key is not None and not args.api_key.strip():  # an unset variable on the command line
        raise UsageError("--api-key is empty, so that anybody might ask; give a key, or leave the option out")
    return Limits(
        body_bytes=args.max_request_mib * MIB,
        images=args.max_images,
        image_pixels=args.max_image_pixels,
        pixels=args.max_total_pixels or max(_DEFAULTS.pixels, args.max_image_pixels),
        new_tokens=args.max_tokens,
        unfinished=args.max_waiting,
        unfinished_bytes=max((args.max_waiting_mib or _DEFAULTS.unfinished_bytes // MIB), args.max_request_mib) * MIB,
        folder=args.image_folder,
        hosts=frozenset(map(str.lower, args.image_host)),
    )


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address, which nobody can reach before the model is loaded. A port in use is said at once."""
    from medvl.errors import UsageError

    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen at {host}, port {port}: {error}; choose another --host or --port") from error
    return listener


def _prepared(args: argparse.Namespace) -> tuple["BackendSpec", "Chooser"]:
    from medvl.instructions import GENERAL
    from medvl.predict.backends import in_process
    from medvl.predict.setup import ModelOptions
    from medvl.profiles import read_profiles
    from medvl.router.chain import load_router
    from medvl.serve.choice import PROFILES, Chooser

    profiles = read_profiles(args.profiles)
    router = None if args.no_router else load_router(args.router)
    bits = {None: None, "none": 0}.get(args.quantization, args.quantization)
    wanted = ModelOptions(args.model, args.template, None if bits is None else int(bits), args.dtype)
    adapter_spec, general = [profiles[name] for name in PROFILES], profiles[GENERAL].adapter
    backend_spec = in_process(adapter_spec, wanted, args.adapters, args.adapter, general)
    return backend_spec, Chooser(profiles, backend_spec.serves, router)


def warnings(host: str, key: str | None) -> list[str]:
    """What whoever starts a server at this address should know."""
    if key is None and not _is_loopback(host):
        return [f"WARNING: listening at {host} without an API key: whoever reaches this machine may ask. Set --api-key"]
    return []


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
