"""What is built once per run and read by all workers: checkpoints, adapters, trained runs, converted trees."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

# `once(name, build)`: the folder that `build(folder)` has filled. It is shared, so nobody may change it.
Once = Callable[[str, Callable[[Path], object]], Path]


@contextmanager
def shared_folders(basetemp: Path) -> Iterator[Once]:
    """Folders below `basetemp` of a run, or below its parent where the run has several workers.

    The first that asks for a name builds it, the others wait. A folder that a test has changed is an error at the end.
    """
    root = (basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp) / "once"
    root.mkdir(exist_ok=True)
    used: list[Path] = []

    def once(name: str, build: Callable[[Path], object]) -> Path:
        folder, listing = root / name, root / f"{name}.json"
        with FileLock(root / f"{name}.lock"):
            if not listing.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a build that failed
                build(folder)
                listing.write_text(json.dumps(_files(folder)))
        used.append(folder)
        return folder

    yield once
    changed = [str(folder) for folder in used if _files(folder) != json.loads(Path(f"{folder}.json").read_text())]
    assert not changed, f"tests share these folders and one of them has changed it: {changed}"


def _files(folder: Path) -> dict[str, list[int]]:
    """Size and time of every file."""
    return {
        str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
