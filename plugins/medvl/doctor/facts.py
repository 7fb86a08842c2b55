"""What `medvl doctor` finds out about this machine and this installation; nothing is judged here."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import sys
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvl.doctor.versions import read_known_good
from medvl.factory import hook

CLONE = Path(__file__).resolve().parents[3]
HUB_TIMEOUT_SECONDS = 5.0
GIB = 1024**3


@dataclass(frozen=True)
class Gpu:
    """One device as torch sees it; memory in GiB."""

    name: str
    memory_gb: float
    bf16: bool


@dataclass(frozen=True)
class Machine:
    """What the hardware and the shell offer; sizes in GiB, None where the system does not tell."""

    gpus: list[Gpu] = field(default_factory=list)
    nvidia_driver: bool = False
    torch_cuda: str | None = None
    ram_gb: float | None = None
    disk_free_gb: Mapping[str, float] = field(default_factory=dict)
    shm_gb: float | None = None
    torchrun: Path | None = None
    environment: Path = Path()


@dataclass(frozen=True)
class Hook:
    """How far the hook in LLaMA-Factory got.

    Attributes:
        called: Whether torch loaded medvl's entry point.
        disabled: Whether MEDVL_DISABLE switches it off.
        extended: Modules that it has extended.
        failures: Module -> why it could not be extended.
        targets: Modules to extend.
        autoload: False under TORCH_DEVICE_BACKEND_AUTOLOAD=0.
    """

    called: bool
    disabled: bool
    extended: set[str]
    failures: Mapping[str, str]
    targets: set[str]
    autoload: bool


@dataclass(frozen=True)
class Hub:
    """Where models are downloaded from.

    Attributes:
        asked: Whether it was tried.
        offline: Whether HF_HUB_OFFLINE is set.
        endpoint: Its address.
        error: Why it could not be reached.
        missing: Why its client does not import.
    """

    asked: bool
    offline: bool = False
    endpoint: str = ""
    error: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Facts:
    """All that is judged.

    Attributes:
        known_good: Package -> version of the tested set.
        installed: Package -> version, None where it is not installed.
        import_error: What the import of LLaMA-Factory raises, None where it works.
        hook: How far the hook got.
        variables: Of the environment.
        machine: Hardware and shell.
        hub: The model hub.
    """

    known_good: Mapping[str, str]
    installed: Mapping[str, str | None]
    import_error: str | None
    hook: Hook
    variables: Mapping[str, str]
    machine: Machine
    hub: Hub


def look(*, ask_hub: bool = False) -> Facts:
    """All facts. Imports torch and LLaMA-Factory, which takes some seconds."""
    known_good = read_known_good(CLONE / "constraints.txt")
    error = next(filter(None, map(_import_error, ("llamafactory.train.tuner", *hook.TARGETS))), None)
    return Facts(
        known_good=known_good,
        installed={package: _version(package) for package in known_good},
        import_error=error,
        hook=_look_at_hook(),  # after the imports, which it extends
        variables=dict(os.environ),
        machine=look_at_machine(),
        hub=_look_at_hub(ask_hub),
    )


def look_at_machine() -> Machine:
    """Hardware and shell, as far as this process may see them."""
    torchrun = shutil.which("torchrun")
    shm = Path("/dev/shm")
    gpus, cuda = _gpus()
    return Machine(
        gpus=gpus,
        nvidia_driver=shutil.which("nvidia-smi") is not None,
        torch_cuda=cuda,
        ram_gb=_ram_gb(),
        disk_free_gb=_disk_free_gb(),
        shm_gb=shutil.disk_usage(shm).total / GIB if shm.is_dir() else None,
        torchrun=Path(torchrun) if torchrun else None,
        environment=Path(sys.executable).parent,
    )


def hub_error(url: str, timeout: float = HUB_TIMEOUT_SECONDS) -> str | None:
    """Why the hub could not be reached within `timeout` seconds; None when it answered.

    The request runs in a thread that is left behind: looking up a name can take minutes whatever the timeout.
    """
    outcome = ["no answer in time"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
            outcome[0] = ""
        except (OSError, ValueError) as error:
            outcome[0] = str(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return outcome[0] or None


def _look_at_hook() -> Hook:
    state = hook.STATE
    return Hook(
        called=state.called,
        disabled=state.disabled,
        extended=state.extended,
        failures=state.failures,
        targets=set(hook.TARGETS),
        autoload=os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") == "1",
    )


def _look_at_hub(ask: bool) -> Hub:
    try:
        from huggingface_hub import constants
    except ImportError as reason:
        return Hub(ask, missing=str(reason))
    offline, endpoint = bool(constants.HF_HUB_OFFLINE), str(constants.ENDPOINT)
    return Hub(ask, offline, endpoint, error=hub_error(endpoint) if ask and not offline else None)


def _gpus() -> tuple[list[Gpu], str | None]:
    """The devices torch sees, and the CUDA version it was built for."""
    if _import_error("torch"):
        return [], None
    torch: Any = importlib.import_module("torch")
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            # 8.0 is Ampere, the first generation with bf16 units.
            gpus.append(Gpu(device.name, device.total_memory / GIB, device.major >= 8))
    return gpus, torch.version.cuda


def _ram_gb() -> float | None:
    """Physical memory, or the container's limit where that is lower."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        # Not a POSIX system: nothing to report is better than a guess.
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return (min(total, int(text)) if text.isdigit() else total) / GIB


def _disk_free_gb() -> dict[str, float]:
    """Free space where runs and models are written; one entry per disk."""
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    found: dict[int, tuple[str, float]] = {}
    for folder in (Path.cwd(), cache):
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        found.setdefault(existing.stat().st_dev, (str(existing), shutil.disk_usage(existing).free / GIB))
    return dict(found.values())


def _import_error(module: str) -> str | None:
    """The last line of what an import raises; None when it works."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
