"""The tiers of the tests, and what keeps a test in its own.

subprocess: starts another process, as a whole conversion does. training: trains, or loads LLaMA-Factory. browser: opens
a page. slow: takes more than a second of itself.
`make quick` runs what has none of these marks. A test has a mark by `pytestmark` or `pytest.mark`, or by a fixture of
FIXTURES. An unmarked test that starts a process or loads LLaMA-Factory fails and says so.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TIERS = ("subprocess", "training", "browser", "slow")
QUICK = f"not ({' or '.join(TIERS)})"
FIXTURES = {"browser": "browser", "tiny_recipe": "training", "marked_adapters": "training",
            "trained_adapter": "training", "trained": "training"}  # fmt: skip
MINUTES = 10  # that a marked test may take on a busy machine; others have `timeout` of pyproject.toml

_WHOLE_FILE = re.compile(rf"^pytestmark = pytest\.mark\.({'|'.join(TIERS)})$", re.MULTILINE)
_PROCESSES = {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork"}
_running: list[set[str]] = []  # the marks of the test that runs


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files that are of a tier as a whole unread in a quick run: importing LLaMA-Factory takes ten seconds."""
    if config.option.markexpr != QUICK or collection_path.suffix != ".py":
        return None
    return True if _WHOLE_FILE.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures, before `-m` selects, and put files with many marked tests first.

    `--dist loadfile --no-loadscope-reorder` hands out files in that order, so that a long one does not start last.
    """
    slow: Counter[Path] = Counter()
    for item in items:
        for fixture in FIXTURES.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(FIXTURES[fixture])
        if any(mark.name in TIERS for mark in item.iter_markers()):
            item.add_marker(pytest.mark.timeout(MINUTES * 60), append=True)
            slow[item.path] += 1
    items.sort(key=lambda item: -slow[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tell the audit hook which test runs."""
    _running.append({mark.name for mark in item.iter_markers()})
    try:
        return (yield)
    finally:
        _running.pop()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _running:
        return
    if event in _PROCESSES and not _running[-1] & {"subprocess", "training", "browser"}:
        started = str(arguments[0]) if arguments else event
        raise RuntimeError(f"an unmarked test starts a process, {started}: mark it pytest.mark.subprocess")
    loads = event == "import" and arguments[0].partition(".")[0] == "llamafactory"
    if loads and not _running[-1] & {"subprocess", "training"}:
        raise RuntimeError("an unmarked test loads LLaMA-Factory: mark it pytest.mark.training")


sys.addaudithook(_audit)
