"""Scripts of a clone use that clone, its plugins included: with another one installed, or none at all."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.clones import copy_code
from tests.support.flare_tree import row, write_tree

pytestmark = pytest.mark.subprocess

MARK = "this is the second clone"


@pytest.fixture(scope="module")
def second_clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone whose plugins say so when they are imported; and a tree beside it."""
    clone = copy_code(repository, tmp_path_factory.mktemp("clones") / "second", "preprocess", "plugins", "evaluation")
    with (clone / "plugins/medvl/console.py").open("a") as file:
        file.write(f"\nprint({MARK!r})\n")
    write_tree(clone.parent / "tree", {"BUSI": [row("BUSI")]})
    return clone


@pytest.fixture(params=["another clone installed", "nothing installed, safe path"])
def environment(request: pytest.FixtureRequest) -> tuple[list[str], dict[str, str]]:
    """How Python is started: with the editable installation of this clone, or with its packages but not medvl."""
    if (
        request.param != "another clone installed"
    ):  # a folder of PYTHONPATH has no .pth read, which is what makes it editable
        return [sys.executable, "-S", "-P"], os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    return [sys.executable], dict(os.environ)


def run(environment: tuple[list[str], dict[str, str]], *words: str | Path) -> str:
    python, variables = environment
    done = subprocess.run([*python, *map(str, words)], cwd="/", env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_conversion_and_scoring(
    second_clone: Path, environment: tuple[list[str], dict[str, str]], repository: Path
) -> None:
    tree, registry = second_clone.parent / "tree", repository / "dataset_info/dataset_info.json"
    before = registry.read_bytes() if registry.exists() else None
    said = run(environment, second_clone / "preprocess/flare.py", "--root", tree, "--workers", "1")
    assert MARK in said
    assert (second_clone / "data/flare/manifest.json").is_file()  # the default --out and --dataset-info are its own
    assert '"flare_busi_train"' in (second_clone / "dataset_info/dataset_info.json").read_text()
    assert (registry.read_bytes() if registry.exists() else None) == before
    assert MARK in run(environment, second_clone / "evaluation/run.py", "--help")
    shutil.rmtree(second_clone / "data")
