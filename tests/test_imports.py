"""What every module keeps to: preprocessing and scoring start without the large libraries, and on every Python.

Their files lie at most six floors deep, and none is longer than 300 lines.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HEAVY = {"torch", "torchvision", "transformers", "llamafactory", "peft", "datasets"}
CORE = ["answers", "box_text", "boxes", "choices", "cli", "instructions", "per_image", "postprocessing",
        "predict.commands", "predict.endpoint", "predict.predicting", "profiles", "question_boxes", "sharegpt",
        "source_frames", "sources.flare", "tasks"]  # fmt: skip

IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print("\\n".join(sorted(sys.modules)))
"""


@pytest.mark.subprocess
def test_core_preprocessing_and_scoring_import_nothing_heavy(repository: Path) -> None:
    scripts = [
        ".".join(path.relative_to(repository).with_suffix("").parts).removesuffix(".__init__")
        for folder in ("preprocess", "evaluation")
        for path in sorted((repository / folder).rglob("*.py"))
    ]
    assert "preprocess.flare" in scripts
    names = [*(f"medvl.{name}" for name in CORE), *scripts]
    done = subprocess.run([sys.executable, "-c", IMPORT, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert modules >= set(names)
    assert modules & HEAVY == set()


def test_no_pattern_repeats_a_group_possessively(repository: Path) -> None:
    """Python before 3.11.5, Debian 12's among them, matches `(...)*+` wrongly; `(?>(...)*)` means the same."""
    sources = [
        path for folder in ("plugins", "preprocess", "evaluation") for path in (repository / folder).rglob("*.py")
    ]
    assert len(sources) > 100
    wrong = [
        f"{path}: {line.strip()}"
        for path in sources
        for line in path.read_text().splitlines()
        if re.search(r"\)(?:[*+?]|\{[0-9,]+\})\+", line.partition("  #")[0])
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["preprocess", "evaluation"])
def test_a_package_is_at_most_six_floors_deep(repository: Path, package: str) -> None:
    """The longest chain of files, each of which imports the next when it is imported itself."""
    files = {
        ".".join(path.relative_to(repository).with_suffix("").parts): path
        for path in (repository / package).rglob("*.py")
        if path.name != "__init__.py"
    }

    @cache
    def chain(name: str) -> list[str]:
        imports = [node for node in ast.parse(files[name].read_text()).body if isinstance(node, ast.ImportFrom)]
        named = {f"{node.module}.{item.name}" for node in imports for item in node.names} | {
            str(node.module) for node in imports
        }
        return [name, *max((chain(other) for other in sorted(named & files.keys() - {name})), key=len, default=[])]

    longest = max(map(chain, files), key=len)
    assert 3 < len(longest) <= 6, longest


def test_no_file_is_longer_than_300_lines(repository: Path) -> None:
    folders = ("plugins", "preprocess", "evaluation", "benchmarks", "docs")
    long = {
        str(path.relative_to(repository)): lines
        for folder in folders
        for path in (repository / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 300
    }
    assert long == {}
