"""Copies of the code, which a test may change and start programs in."""

import shutil
from pathlib import Path


def copy_code(repository: Path, clone: Path, *folders: str) -> Path:
    """Copy folders of the repository to `clone`, with compiled modules: compiling takes longer than most programs do.

    Left out are the registry, which belongs to whoever works in the repository, and modules that are being compiled.
    """
    ignore = shutil.ignore_patterns("*.pyc.*", "dataset_info.json*")
    for folder in folders:
        shutil.copytree(repository / folder, clone / folder, ignore=ignore)
    return clone
