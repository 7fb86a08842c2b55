"""A test is in the tier that it says it is in: `make quick` starts no process and loads no LLaMA-Factory."""

import os
import subprocess
import sys

import pytest

from tests.support.tiers import QUICK, TIERS


def test_an_unmarked_test_cannot_start_a_process() -> None:
    with pytest.raises(RuntimeError, match=r"starts a process, .*: mark it pytest\.mark\.subprocess"):
        subprocess.run([sys.executable, "--version"], check=False)
    with pytest.raises(RuntimeError, match=r"starts a process, os\.fork: mark it pytest\.mark\.subprocess"):
        os.fork()


def test_an_unmarked_test_cannot_load_llamafactory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "llamafactory", raising=False)
    with pytest.raises(RuntimeError, match=r"loads LLaMA-Factory: mark it pytest\.mark\.training"):
        __import__("llamafactory")


@pytest.mark.subprocess
def test_a_marked_one_can() -> None:
    assert subprocess.run([sys.executable, "--version"], check=False, capture_output=True).returncode == 0


def test_the_marks_are_declared_and_the_makefile_leaves_them_out(pytestconfig: pytest.Config) -> None:
    declared = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    assert declared >= set(TIERS)
    assert f'-m "{QUICK}"' in (pytestconfig.rootpath / "Makefile").read_text()
