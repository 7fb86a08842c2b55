"""`medvl doctor` as case tables: what it was shown, and what it says."""

import argparse
import dataclasses
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from medvl.doctor import checks, commands, facts, versions
from medvl.doctor.check_result import CheckResult
from medvl.doctor.facts import Gpu, Hook, Hub, Machine
from medvl.doctor.versions import KNOWN_GOOD

BIN = Path("/env/bin")
FINE = Machine(
    gpus=[Gpu("A100", 40, True)],
    nvidia_driver=True,
    torch_cuda="13.0",
    ram_gb=64,
    disk_free_gb={"/work": 500},
    shm_gb=16,
    torchrun=BIN / "torchrun",
    environment=BIN,
)
GOOD_HOOK: dict[str, Any] = {
    "called": True,
    "disabled": False,
    "extended": {"a", "b"},
    "failures": {},
    "targets": {"a", "b"},
    "autoload": True,
}


def worst(results: list[CheckResult]) -> str:
    return max((result.level for result in results), key=["ok", "note", "warning", "problem"].index)


def test_built_in_set_is_what_the_clone_pins(repository: Path) -> None:
    assert versions.read_known_good(repository / "constraints.txt") == KNOWN_GOOD


def test_constraints_of_the_clone_come_first_and_may_be_missing(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    assert versions.read_known_good(constraints) == KNOWN_GOOD
    constraints.write_text("# why\ntorch==2.12.0  # newer\nunrelated==1\n")
    assert versions.read_known_good(constraints) == KNOWN_GOOD | {"torch": "2.12.0"}


def test_tested_set_has_no_complaint_also_with_a_cuda_suffix() -> None:
    installed = KNOWN_GOOD | {"torch": "2.11.0+cu130", "torchvision": "0.26.0+cu130", "torchaudio": "2.11.0+cu130"}
    assert worst(versions.check_versions(installed, KNOWN_GOOD)) == "ok"


VERSIONS: dict[str, tuple[dict[str, str | None], str, str, str]] = {
    "slow torch": (
        {"torch": "2.9.1", "torchvision": "0.24.1", "torchaudio": "2.9.1"}, "problem", "torch", "40 times slower",
    ),
    "unpinned install": (
        {"torch": "2.15.0", "torchvision": "0.30.0"}, "problem", "torchaudio", "is not built for torch 2.15.0",
    ),
    "torchvision of another torch": ({"torchvision": "0.25.0"}, "problem", "torchvision", "needs 0.26"),
    "flash-attention crash": ({"transformers": "5.6.0"}, "warning", "transformers", "flash-attention 2"),
    "refused by LLaMA-Factory": ({"transformers": "4.57.0"}, "problem", "transformers", "broken"),
    "untested but not known bad": ({"peft": "0.18.2"}, "note", "peft", "0.18.2, tested with 0.18.1"),
    "missing trainer": ({"llamafactory": None}, "problem", "llamafactory", "not installed"),
    "missing torch": ({"torch": None}, "problem", "torch", "not installed"),
    "missing for prediction": ({"jieba": None}, "warning", "jieba", "do_predict"),
    "missing for prediction too": ({"rouge-chinese": None}, "warning", "rouge-chinese", "do_predict"),
    "missing for QLoRA": ({"bitsandbytes": None}, "warning", "bitsandbytes", "quantization_bit"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "level", "subject", "words"), VERSIONS.values(), ids=VERSIONS)
def test_versions(changed: dict[str, str | None], level: str, subject: str, words: str) -> None:
    results = versions.check_versions({**KNOWN_GOOD, **changed}, KNOWN_GOOD)
    assert worst(results) == level
    assert any(result.subject == subject and words in result.message for result in results)


IMPORTS = {
    "works": (None, "ok", ""),
    "CUDA of torch and torchaudio differ": (
        "RuntimeError: PyTorch has CUDA version 13.2 whereas TorchAudio has CUDA version 13.0", "problem", "torchaudio",
    ),
    "CPU torch beside CUDA torchvision": (
        "RuntimeError: operator torchvision::nms does not exist", "problem", "torchvision",
    ),
    "not installed": ("ModuleNotFoundError: No module named 'llamafactory'", "problem", "make install"),
    "anything else": ("OSError: libfoo.so", "problem", "make install"),
}  # fmt: skip


@pytest.mark.parametrize(("error", "level", "cure"), IMPORTS.values(), ids=IMPORTS)
def test_imports(error: str | None, level: str, cure: str) -> None:
    result = checks.check_import(error)
    assert result.level == level
    assert cure in result.cure
    assert (error or "") in result.message


HOOKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "active": ({}, "ok", "active"),
    "switched off": ({"disabled": True, "extended": set()}, "warning", "MEDVL_DISABLE"),
    "torch told to load nothing": ({"autoload": False, "called": False}, "problem", "no entry points"),
    "not installed": ({"called": False, "extended": set()}, "problem", "entry point"),
    "renamed upstream": ({"extended": {"a"}, "failures": {"b": "AttributeError: no X"}}, "problem", "no X"),
    "half applied": ({"extended": {"a"}}, "problem", "not applied to b"),
}


@pytest.mark.parametrize(("changed", "level", "words"), HOOKS.values(), ids=HOOKS)
def test_hook(changed: dict[str, Any], level: str, words: str) -> None:
    result = checks.check_hook(Hook(**(GOOD_HOOK | changed)))
    assert result.level == level
    assert words in result.message


MACHINES: dict[str, tuple[dict[str, Any], str, str]] = {
    "fine": ({}, "ok", "A100, 40 GB, bf16"),
    "no GPU is no failure": ({"gpus": [], "nvidia_driver": False}, "note", "`medvl demo` and the tests run"),
    "GPU that torch does not see": ({"gpus": []}, "problem", "built for CUDA 13.0"),
    "GPU and a torch for CPUs": ({"gpus": [], "torch_cuda": None}, "problem", "built for CPUs only"),
    "GPU without bf16": ({"gpus": [Gpu("T4", 15, False)]}, "warning", "no bf16"),
    "environment not active": ({"torchrun": None}, "warning", "not on PATH"),
    "environment not active with two GPUs": (
        {"torchrun": None, "gpus": [Gpu("A100", 40, True)] * 2}, "problem", "every run needs it",
    ),
    "torchrun of another environment": ({"torchrun": Path("/usr/bin/torchrun")}, "warning", "another environment"),
    "little memory": ({"ram_gb": 8}, "warning", "8 GB: little"),
    "container with docker's default": ({"shm_gb": 0.0625}, "warning", "bus error"),
    "disk nearly full": ({"disk_free_gb": {"/work": 1}}, "problem", "1 GB free in /work"),
    "little disk": ({"disk_free_gb": {"/work": 20}}, "note", "20 GB free in /work"),
    "system that tells nothing": ({"ram_gb": None, "shm_gb": None, "disk_free_gb": {}}, "ok", "on PATH"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "level", "words"), MACHINES.values(), ids=MACHINES)
def test_machine(changed: dict[str, Any], level: str, words: str) -> None:
    results = checks.check_machine(dataclasses.replace(FINE, **changed))
    assert worst(results) == level
    assert any(words in result.message for result in results)


@pytest.mark.parametrize(
    ("variables", "levels"),
    [
        ({}, []),
        ({"ALLOW_EXTRA_ARGS": "0"}, []),
        ({"ALLOW_EXTRA_ARGS": "1"}, ["warning"]),
        ({"USE_V1": "true", "ALLOW_EXTRA_ARGS": "y"}, ["warning", "problem"]),
    ],
)
def test_environment(variables: dict[str, str], levels: list[str]) -> None:
    assert [result.level for result in checks.check_environment(variables)] == levels


HUBS: dict[str, tuple[dict[str, Any], str, str]] = {
    "not asked": ({"asked": False}, "note", "--hub"),
    "answers": ({}, "ok", "answers"),
    "unreachable is no failure of training from folders": ({"error": "timed out"}, "warning", "timed out"),
    "offline by wish": ({"offline": True, "error": "never asked"}, "note", "HF_HUB_OFFLINE"),
}


@pytest.mark.parametrize(("changed", "level", "words"), HUBS.values(), ids=HUBS)
def test_hub(changed: dict[str, Any], level: str, words: str) -> None:
    asked: dict[str, Any] = {"asked": True, "offline": False, "endpoint": "http://hub.example", "error": None}
    result = checks.check_hub(Hub(**(asked | changed)))
    assert result.level == level
    assert words in result.message


def test_every_complaint_comes_with_a_cure() -> None:
    results = [checks.check_hook(Hook(**(GOOD_HOOK | changed))) for changed, *_ in HOOKS.values()]
    results += [checks.check_import(error) for error, *_ in IMPORTS.values()]
    for changed, *_ in MACHINES.values():
        results += checks.check_machine(dataclasses.replace(FINE, **changed))
    for changed_versions, *_ in VERSIONS.values():
        results += versions.check_versions({**KNOWN_GOOD, **changed_versions}, KNOWN_GOOD)
    complaints = [result for result in results if result.level in ("warning", "problem")]
    assert complaints
    assert [result for result in complaints if not result.cure] == []


def test_hub_that_never_answers_does_not_hang() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        error = facts.hub_error(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        assert error is not None
        assert time.monotonic() - started < 3


def test_hub_that_refuses_is_named() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert "refused" in str(facts.hub_error(f"http://127.0.0.1:{port}", timeout=3))


def arguments_of(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return parser.parse_args(words)


PROBLEM = CheckResult("problem", "disk [full]", "0 GB free in [/work]", "free some space")


@pytest.mark.parametrize(("results", "code"), [([CheckResult("note", "GPU", "none")], 0), ([PROBLEM], 1)])
def test_exit_code_and_json(
    results: list[CheckResult], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "judge", lambda _: results)
    monkeypatch.setattr(commands, "look", lambda **_: None)
    assert commands.run(arguments_of("--json")) == code
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is (code == 0)
    assert report["findings"] == [dataclasses.asdict(result) for result in results]
    assert "medvl_run_card" in report["recipe_keys"]


def test_table_prints_other_programs_brackets_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(commands, "judge", lambda _: [PROBLEM])
    monkeypatch.setattr(commands, "look", lambda **_: None)
    assert commands.run(arguments_of()) == 1
    printed = capsys.readouterr().out
    assert "0 GB free in [/work]" in printed
    assert "Something above stops training" in printed


@pytest.mark.training
def test_this_environment_is_the_tested_one() -> None:
    """The real thing, once: imports torch and LLaMA-Factory in this process."""
    pytest.importorskip("llamafactory")
    by_subject = {result.subject: result for result in checks.judge(facts.look())}
    assert by_subject["recipe keys (hook)"].level == "ok"
    assert by_subject["LLaMA-Factory"].level == "ok"
    assert {by_subject[package].level for package in KNOWN_GOOD} == {"ok"}
    assert by_subject["model hub"].level == "note"
