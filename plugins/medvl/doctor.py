"""`medvl doctor`: looks at this machine and this installation, and says in plain words what would go wrong.

Exit code 0 when training can start, 1 when something stops it. A machine without a GPU is fine, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import os
import shutil
import sys
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medvl import diagnosis
from medvl.diagnosis import Finding, Gpu, Machine
from medvl.factory import arguments, hook

CLONE = Path(__file__).resolve().parents[2]
STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}
HUB_TIMEOUT_SECONDS = 5.0
GIB = 1024**3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl doctor`."""
    parser.add_argument("--hub", action="store_true", help="also try to reach the model hub (5 seconds at most)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 when a finding stops training, else 0."""
    with _quiet():
        findings = examine(ask_hub=args.hub)
    healthy = all(finding.level != "problem" for finding in findings)
    if args.json:
        report = {"ok": healthy, "findings": findings, "recipe_keys": list(arguments.defaults())}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        _print(findings, healthy)
    return 0 if healthy else 1


def examine(*, ask_hub: bool = False) -> list[Finding]:
    """All findings about this machine. Imports torch and LLaMA-Factory, which takes some seconds."""
    known_good = read_known_good(CLONE / "constraints.txt")
    installed = {package: _version(package) for package in known_good}
    error = next(filter(None, map(_import_error, ("llamafactory.train.tuner", *hook.TARGETS))), None)
    findings = diagnosis.check_versions(installed, known_good)
    findings.append(diagnosis.check_import(error))
    if error is None:
        findings.append(_hook())
    findings += diagnosis.check_environment(os.environ)
    findings += diagnosis.check_machine(look_at_machine())
    findings.append(_hub(ask_hub))
    return findings


def read_known_good(constraints: Path) -> dict[str, str]:
    """Versions of the watched packages as the clone pins them; the built-in set where there is no clone."""
    if not constraints.is_file():
        return dict(diagnosis.KNOWN_GOOD)
    lines = (line.split("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines())
    pinned = dict(line.split("==", 1) for line in lines if "==" in line)
    return {package: pinned.get(package, version) for package, version in diagnosis.KNOWN_GOOD.items()}


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


def _hook() -> Finding:
    state = hook.STATE
    return diagnosis.check_hook(
        called=state.called,
        disabled=state.disabled,
        extended=state.extended,
        failures=state.failures,
        targets=set(hook.TARGETS),
        autoload=os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") == "1",
    )


def _hub(ask: bool) -> Finding:
    try:
        from huggingface_hub import constants
    except ImportError as reason:
        return Finding("problem", "model hub", f"huggingface_hub does not import: {reason}", diagnosis.REINSTALL)
    offline, endpoint = bool(constants.HF_HUB_OFFLINE), str(constants.ENDPOINT)
    error = hub_error(endpoint) if ask and not offline else None
    return diagnosis.check_hub(asked=ask, offline=offline, endpoint=endpoint, error=error)


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the probed libraries print at import off the report; their failures are findings."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _print(findings: list[Finding], healthy: bool) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "finding", "cure"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        # As Text, since messages hold other programs' words, where a `[` is no markup.
        row = (finding.subject, finding.message, finding.cure)
        table.add_row(Text(finding.level, STYLES[finding.level]), *map(Text, row))
    console = Console()
    console.print(table)
    console.print(f"\nRecipe keys medvl adds: {', '.join(arguments.defaults())}")
    verdict = "[green]Training can start.[/]" if healthy else "[bold red]Something above stops training.[/]"
    console.print(verdict)
