"""Runs commands of the clone: output to a log file, and nothing left behind on Ctrl-C. Imports no torch."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_TAIL_LINES = 30
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10


class CommandFailedError(RuntimeError):
    """A command ended with an exit code other than 0; the message holds the end of its output.

    Attributes:
        code: The exit code; a signal's number, negative, for one that was killed.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        """The message, and the code."""
        super().__init__(message)
        self.code = code


def repository_root() -> Path:
    """The clone this package is installed from.

    Raises:
        FileNotFoundError: the package was installed without its clone, which holds the recipes and scripts.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "recipes").is_dir():
        raise FileNotFoundError(f"{root} has no recipes/: this command runs in a clone; install with pip install -e .")
    return root


def environment(**fixed: str) -> dict[str, str]:
    """This process's environment with the scripts of this interpreter first on the path, and what is `fixed`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, **fixed}


def run_logged(
    command: Sequence[str],
    *,
    title: str,
    cwd: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
    on_poll: Callable[[], None] = lambda: None,
) -> float:
    """Run a command, its output in `log`; seconds of wall time. `on_poll` is called about twice a second.

    `title` is what an error calls it.

    Raises:
        CommandFailedError: it failed.
        KeyboardInterrupt: the user gave up; the command and what it started have been ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as output:
        # A session of its own, so that the command and its data loaders can be ended together.
        process = subprocess.Popen(
            command, cwd=cwd, env=env or environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                on_poll()
                time.sleep(_POLL_SECONDS)
        finally:
            _end(process)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
        raise CommandFailedError(
            f"{tail}\n\n{title}: exit code {process.returncode}. Whole output: {log}", process.returncode
        )
    return time.monotonic() - started


@contextmanager
def killed_as_interrupted() -> Iterator[None]:
    """While it lasts, `kill` ends this process as Ctrl-C does: commands of `run_logged` are not left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
