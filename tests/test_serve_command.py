"""`medvl serve` as users type it, and what it refuses before a model is loaded."""

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

pytest.importorskip("llamafactory")
from medvl import cli
from medvl.serve import commands
from tests.support.questions import QUESTIONS

pytestmark = pytest.mark.training


@pytest.mark.subprocess
def test_serve_from_start_to_stop(marked_adapters: Callable[[str], Path]) -> None:
    folder = marked_adapters("qwen3vl")
    options = ["--model", str(folder / "base"), "--adapters", str(folder / "adapters"), "--port", "0"]
    command = [sys.executable, "-m", "medvl.cli", "serve", *options]
    environment = {**os.environ, "MEDVL_API_KEY": "secret"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(server.stdout or [])
        address = next(line.split()[1] for line in lines if line.startswith("serving "))
        assert address.startswith("http://127.0.0.1:")
        body = {"messages": [{"role": "user", "content": QUESTIONS["counting"]}]}
        assert httpx.post(f"{address}/chat/completions", json=body).status_code == 401
        key = {"Authorization": "Bearer secret"}
        answer = httpx.post(f"{address}/chat/completions", json=body, headers=key, timeout=60)
        assert answer.json()["choices"][0]["message"]["content"] == "E"
        assert answer.headers["x-medvl-adapter"] == "counting"
    finally:
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
    assert server.returncode == -signal.SIGTERM, errors
    assert "no run card beside it" in errors
    assert QUESTIONS["counting"] not in errors, "what patients are asked about belongs in no log"
    assert "Traceback" not in errors


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from medvl import cli\ntry: cli.main(['serve', '--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--image-folder" in done.stdout
    assert not {"torch", "llamafactory", "fastapi"} & set(done.stdout.split())


def serve(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """Exit code and error output of `medvl serve` with these options, in this process."""
    code = cli.main(["serve", "--port", "0", *options])
    return code, capsys.readouterr().err


def test_one_largest_image_fits_into_a_request_unless_told_otherwise() -> None:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    cases = {
        (): (64_000_000, 64_000_000),
        ("--max-image-pixels", "90000000"): (90_000_000, 90_000_000),
        ("--max-image-pixels", "1000"): (1000, 64_000_000),
        ("--max-total-pixels", "5000"): (64_000_000, 5000),
    }
    for options, expected in cases.items():
        limits = commands._limits(parser.parse_args(options))
        assert (limits.image_pixels, limits.pixels) == expected


def test_what_cannot_be_served_is_refused_at_once(
    marked_adapters: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(marked_adapters("qwen3vl") / "base")
    (tmp_path / "profiles.yaml").write_text("counting:\n  max_new_token: 3\n")
    (tmp_path / "empty").mkdir()
    cases = {
        "adapters": (["--model", base, "--adapters", str(tmp_path / "empty")], "no adapter classification"),
        "profiles": (["--model", base, "--profiles", str(tmp_path / "profiles.yaml")], "'max_new_tokens'?"),
        "router": (["--model", base, "--router", str(tmp_path / "missing")], "missing"),
        "no model": ([], "--model is missing"),
        "folder": (["--model", base, "--image-folder", str(tmp_path / "missing")], "there is no such folder"),
        "key": (["--model", base, "--api-key", ""], "--api-key is empty"),
        "host": (["--model", base, "--host", "no.such.host.invalid"], "cannot listen at no.such.host.invalid"),
    }
    for name, (options, says) in cases.items():
        code, errors = serve(capsys, *options)
        assert (code, says in errors) == (2, True), (name, errors)


def test_the_adapter_of_generals_own_profile_stands_in(marked_adapters: Callable[[str], Path], tmp_path: Path) -> None:
    folder = marked_adapters("qwen3vl")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "all").symlink_to(folder / "adapters" / "general")
    for adapter in ("all", None):
        (tmp_path / "profiles.yaml").write_text(f"general: {{adapter: {adapter or 'null'}}}\n")
        parser = argparse.ArgumentParser()
        commands.add_arguments(parser)
        options = ["--model", str(folder / "base"), "--adapters", str(tmp_path / "adapters"), "--no-router"]
        _, chooser = commands._prepared(parser.parse_args([*options, "--profiles", str(tmp_path / "profiles.yaml")]))
        assert {adapter_spec.name for adapter_spec in chooser.serves.values()} == {adapter}


def test_port_in_use_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, errors = serve(capsys, "--model", "never/loaded", "--port", port)
    assert (code, f"cannot listen at 127.0.0.1, port {port}" in errors) == (2, True)


@pytest.mark.parametrize(
    ("host", "key", "warned"),
    [("127.0.0.1", None, False), ("localhost", None, False), ("::1", None, False), ("0.0.0.0", None, True),
     ("192.168.1.5", None, True), ("gpu7.example", None, True), ("0.0.0.0", "secret", False)],
)  # fmt: skip
def test_warns_when_anybody_may_ask(host: str, key: str | None, warned: bool) -> None:
    assert bool(commands.warnings(host, key)) is warned
