"""Which back end answers, and which adapter or model of it answers which profile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medvl.errors import UsageError
from medvl.instructions import GENERAL
from medvl.predict.adapter_spec import AdapterSpec, at_endpoint, differences
from medvl.predict.reply import Reply
from medvl.predict.setup import ModelOptions, checked, find_adapters, read_setup
from medvl.profiles import Profile

if TYPE_CHECKING:
    from medvl.predict.endpoint import Connection
    from medvl.predict.plan import Request


class Backend(Protocol):
    """What answers questions."""

    def at_once(self, longest: Request, /) -> int:
        """How many questions it takes together, by the longest of them."""

    def answers(self, batches: Iterable[Sequence[Request]]) -> Iterator[list[tuple[Request, Reply]]]:
        """Replies, some at a time, one for every question."""


@dataclass(frozen=True)
class BackendSpec:
    """A back end before it is started.

    Attributes:
        serves: Profile name -> the adapter or model that answers it.
        identity: Of the base model, and of how it is loaded.
        start: Load the model, or connect; called only if there is something to ask.
        together: Whether the questions of a batch are computed together, so that one alone may be answered otherwise.
        notes: What the user should know: where asking differs from training, who answers in whose place.
    """

    serves: Mapping[str, AdapterSpec]
    identity: str
    start: Callable[[], Backend]
    together: bool
    notes: tuple[str, ...]


def in_process(
    profiles: Sequence[Profile],
    options: ModelOptions,
    adapters: Path | None,
    adapter: Path | None,
    general: str | None = GENERAL,
) -> BackendSpec:
    """The model in this process.

    Args:
        profiles: Those that questions were routed to.
        wanted: What the user stated about the model.
        adapters: Folder with a folder per adapter; a profile names its own.
        adapter: Folder of one adapter that answers everything.
        general: The adapter that answers for one that is not there; None for the base model.

    Raises:
        UsageError, ValueError: adapters that are not there, or cannot be loaded together.
    """
    names: dict[str, str | None] = {}
    folders: dict[str, Path] = {}
    if adapter is not None:
        name = adapter.resolve().name
        folders = {name: checked(adapter)}
        names = dict.fromkeys((profile.name for profile in profiles), name)
    elif adapters is not None:
        folders = find_adapters([profile.adapter for profile in profiles if profile.adapter], adapters, general)
        names = {
            profile.name: profile.adapter if profile.adapter in folders else profile.adapter and general
            for profile in profiles
        }
    else:
        names = dict.fromkeys((profile.name for profile in profiles), None)
    setup = read_setup(folders, options)

    def start() -> Backend:
        # LLaMA-Factory prints whole configurations otherwise; read when it is imported.
        os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "WARNING")
        from medvl.predict.batching import Batches
        from medvl.predict.in_process import InProcess

        try:
            return Batches(InProcess(setup))
        except UsageError:
            raise
        except (OSError, ValueError) as error:
            raise UsageError(f"{setup.model} cannot be loaded: {error}") from error

    serves = {name: setup[adapter_name] for name, adapter_name in names.items()}
    stated = [setup.identity, setup.template, setup.enable_thinking, setup.quantization, setup.dtype]
    return BackendSpec(
        serves=serves,
        identity=repr(stated),
        start=start,
        together=True,
        notes=(*setup.warnings, *_notes(profiles, serves, by_name=adapters is not None)),
    )


def endpoint(
    profiles: Sequence[Profile],
    connection: Connection,
    options: ModelOptions,
    model: str | None,
    cards: Mapping[str, Path],
) -> BackendSpec:
    """A server.

    A profile is answered by the server's model of its adapter's name, else by `model`, else by the one named general.

    Args:
        profiles: Those that questions were routed to.
        connection: How to reach it.
        wanted: What the user stated about the model.
        model: Name of the model for profiles whose adapter the server does not have.
        cards: Model name -> folder with its run card; the key "" stands for all others.

    Raises:
        UsageError: nothing answers there, or has no model for a profile.
        ValueError: a damaged run card.
    """
    from medvl.predict.endpoint import Endpoint

    backend = Endpoint(connection)
    there = backend.models()
    serves = {}
    for profile in profiles:
        name = _model(profile, there, model)
        serves[profile.name] = at_endpoint(name, cards.get(name, cards.get("")), options.frame)
    without_card = [
        f"{folder}: no run card there, so {adapter_spec.name} is asked with the server's own prompt and pixels"
        for adapter_spec in {adapter_spec.name: adapter_spec for adapter_spec in serves.values()}.values()
        if adapter_spec.card is None and (folder := cards.get(adapter_spec.name or "", cards.get("")))
    ]
    return BackendSpec(
        serves=serves,
        identity="endpoint",
        start=lambda: backend,
        together=False,
        notes=(*without_card, *_notes(profiles, serves, by_name=there is not None)),
    )


def _model(profile: Profile, there: set[str] | None, otherwise: str | None) -> str:
    if profile.adapter is not None and (profile.adapter in there if there is not None else otherwise is None):
        return profile.adapter
    if otherwise is not None:
        return otherwise
    if there is not None and GENERAL in there:
        return GENERAL
    known = f", it has {', '.join(sorted(there))}" if there else ""
    raise UsageError(
        f"the server has no model {profile.adapter!r} for the profile {profile.name}{known}; name the one to ask with "
        "--model-name"
    )


def _notes(profiles: Sequence[Profile], serves: Mapping[str, AdapterSpec], *, by_name: bool) -> list[str]:
    found = []
    for profile in profiles:
        adapter_spec = serves[profile.name]
        if by_name and profile.adapter is not None and adapter_spec.name != profile.adapter:
            instead = adapter_spec.name or "the base model"
            found.append(f"profile {profile.name}: no adapter {profile.adapter}, {instead} answers in its place")
        found += differences(profile, adapter_spec)
    return found
