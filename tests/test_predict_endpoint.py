"""Prediction through a server: what is sent, what is tried again, and what is written."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from medvl.cli import main
from medvl.factory.run_card import Prompt, Vision, write_run_card
from medvl.predict.endpoint import image_data
from medvl.predict.writer import Row
from medvl.tasks import Task
from tests.support.records import a_card

TASKS = [*(str(task) for task in Task if task is not Task.VQA), "general"]  # of the tree of questions


@dataclass
class Server:
    """A server of models that answer with their name; `failures` are answered first, by status.

    `body` takes the place of every answer, `bodies` of one each, `listed` of the list of models; `drip` sends the
    answer by the byte, with so many seconds between, from its headers or its body on, and never ends.
    """

    models: list[str] | None = field(default_factory=lambda: TASKS)
    failures: list[int] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], str | None] = lambda request: request["model"]
    delay: float = 0.0
    key: str | None = None
    body: bytes | None = None
    bodies: list[bytes] = field(default_factory=list)
    listed: bytes | None = None
    drip: float = 0.0
    drips_from: str = "body"
    requests: list[dict[str, Any]] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, Any]]:
        if self.key and handler.headers["Authorization"] != f"Bearer {self.key}":
            return 401, {"error": {"message": "wrong key"}}
        if handler.command == "GET":
            listed = [{"id": name, "object": "model"} for name in self.models or []]
            return (404, {}) if self.models is None else (200, {"object": "list", "data": listed})
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.requests.append(request)
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            failure = self.failures.pop(0) if self.failures else None
        time.sleep(self.delay)
        with self.lock:
            self.busy -= 1
        if failure:
            return failure, {"error": {"message": f"status {failure}"}}
        message = {"role": "assistant", "content": self.answer(request)}
        return 200, {"id": "x", "object": "chat.completion", "created": 0, "model": request["model"],
                     "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            status, body = state.reply(self)
            answer = state.bodies.pop(0) if state.bodies and self.command == "POST" else state.body
            raw = state.listed if self.command == "GET" else answer
            content = json.dumps(body).encode() if raw is None else raw
            if state.drip and self.command == "POST":
                self.drop(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status in (429, 500, 503):
                self.send_header("retry-after-ms", "5")
            self.end_headers()
            self.wfile.write(content)

        def drop(self, head: bytes) -> None:
            """Close to for ever; until the client is gone."""
            first, each = (head + b"Content-Length: 9000\r\n\r\n", b" ") if state.drips_from == "body" else (head, b"X")
            with contextlib.suppress(OSError):
                self.wfile.write(first)
                for _ in range(400):
                    self.wfile.write(each)
                    time.sleep(state.drip)
            self.close_connection = True

        do_GET = do_POST = respond  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    class Http(ThreadingHTTPServer):
        request_queue_size = 64  # with the standard library's 5, a client that finds it full tries again a second later
        daemon_threads = True

    http = Http(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield state
    http.shutdown()
    http.server_close()


def predict(server: Server, tree: Path, out: Path, *options: str) -> tuple[int, list[Row]]:
    code = main(["predict", "--data", str(tree), "--endpoint", server.url, "--out", str(out), *options])
    lines = out.read_bytes().splitlines() if out.exists() else []
    return code, [msgspec.json.decode(line, type=Row) for line in lines]


def parts(request: dict[str, Any]) -> list[str]:
    """The user's turn: texts as they are, images as their size."""
    shown = []
    for part in request["messages"][-1]["content"]:
        if part["type"] == "text":
            shown.append(part["text"])
        else:
            url = part["image_url"]["url"]
            shown.append(url if url.startswith("file:") else str(image(url).size))
    return shown


def image(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(";base64,")[2])))


def test_every_task_asks_the_model_of_its_adapter(server: Server, question_tree: Path, tmp_path: Path) -> None:
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl")
    assert code == 0
    assert [row.prediction for row in rows] == TASKS, "in the order of the questions"
    assert [row.adapter for row in rows] == TASKS
    assert [row.finish for row in rows] == ["stop"] * 8
    assert {request["temperature"] for request in server.requests} == {0}
    limits = {request["model"]: request["max_tokens"] for request in server.requests}
    assert limits["classification"] == 64
    assert limits["instance_detection"] == 2048


def test_the_prompt_has_images_where_its_tags_stand(server: Server, question_tree: Path, tmp_path: Path) -> None:
    predict(server, question_tree, tmp_path / "p.jsonl")
    two = next(parts(request) for request in server.requests if request["model"] == "multi_label_classification")
    assert two[:4] == ["(120, 80)", "\n", "(120, 80)", "\nWhich findings are there? Select all that apply: Nodule; "
                       "Fibrosis; Normal."]  # fmt: skip
    assert all(len(request["messages"]) == 1 for request in server.requests), "no system prompt is made up"
    server.requests.clear()
    predict(server, question_tree, tmp_path / "q.jsonl", "--template-breaks-lines", "--limit", "2")
    texts = [part for request in server.requests for part in parts(request)]
    assert not any(text.startswith("\n") for text in texts)


def test_prompt_and_budget_are_those_of_the_run_card(server: Server, question_tree: Path, tmp_path: Path) -> None:
    stated = a_card(
        vision=Vision(60 * 40, 784, False, None, None, None),
        prompt=Prompt("qwen3_vl_nothink", "Be careful.", None, "{question}", 4096),
    )
    write_run_card(stated, tmp_path / "routes" / "detection")
    write_run_card(stated, tmp_path / "one")
    options = ["--adapters", str(tmp_path / "routes")]
    _, rows = predict(server, question_tree, tmp_path / "p.jsonl", *options)
    by_model = {request["model"]: request for request in server.requests}
    assert by_model["detection"]["messages"][0] == {"role": "system", "content": "Be careful."}
    assert parts(by_model["detection"])[0] == str((int(64 * (2400 / 4096) ** 0.5), int(64 * (2400 / 4096) ** 0.5)))
    assert [message["role"] for message in by_model["regression"]["messages"]] == ["user"]
    assert parts(by_model["regression"])[0] == "(120, 80)"
    server.requests.clear()
    predict(server, question_tree, tmp_path / "q.jsonl", "--adapter", str(tmp_path / "one"), "--limit", "1")
    assert server.requests[0]["messages"][0]["content"] == "Be careful."
    assert {row.frame for row in rows} == {"norm1000"}


@pytest.mark.training
def test_images_are_shrunk_and_mended_as_in_training(tmp_path: Path) -> None:
    from llamafactory.data.mm_plugin import get_mm_plugin

    plugin = get_mm_plugin("qwen3_vl", image_token="<|image_pad|>")
    path = tmp_path / "p.png"
    Image.linear_gradient("L").resize((321, 123)).save(path)
    data, media_type, unchanged = image_data(path, 5000, normalised=True)
    with Image.open(path) as original:
        expected = plugin._preprocess_image(original, image_max_pixels=5000, image_min_pixels=1)
    assert (media_type, unchanged) == ("image/png", False)
    with Image.open(io.BytesIO(data)) as sent:
        assert sent.tobytes() == expected.tobytes()
    assert image_data(path, None, normalised=True) == (path.read_bytes(), "image/png", True)
    deep = tmp_path / "deep.tif"
    Image.new("I;16", (8, 8)).save(deep)
    assert image_data(deep, None, normalised=False)[1:] == ("image/png", False)


def test_images_may_be_sent_as_paths_where_the_file_will_do(
    server: Server, question_tree: Path, tmp_path: Path
) -> None:
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text("detection: {image_max_pixels: 100}")
    predict(server, question_tree, tmp_path / "p.jsonl", "--images", "path", "--profiles", str(profiles))
    shown = {request["model"]: parts(request)[0] for request in server.requests}
    folder = question_tree / "validation-public/Xray/mixed/imagesVal"
    assert shown["classification"] == (folder / "p0-0.png").as_uri()
    assert shown["detection"] == "(10, 10)"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_tried_again(server: Server, question_tree: Path, tmp_path: Path, status: int) -> None:
    server.failures = [status, status]
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl", "--limit", "1")
    assert (code, rows[0].prediction, len(server.requests)) == (0, "classification", 3)


def test_lasting_failures_are_recorded_and_asked_again_by_the_next_run(
    server: Server, question_tree: Path, tmp_path: Path
) -> None:
    server.failures = [400]
    options = ["--retries", "0", "--concurrency", "1"]
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl", *options)
    assert code == 4
    assert [bool(row.error) for row in rows].count(True) == 1
    assert len(server.requests) == 8, "a wrong request is not sent twice"
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl", *options)
    assert (code, len(server.requests)) == (0, 9)
    assert [row.prediction for row in rows] == TASKS


def test_a_server_that_takes_too_long_is_given_up(server: Server, question_tree: Path, tmp_path: Path) -> None:
    server.delay = 5.0
    started = time.monotonic()
    options = ["--timeout", "0.2", "--retries", "0", "--limit", "2"]
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl", *options)
    assert code == 4
    assert all("Timeout" in (row.error or "") for row in rows)
    assert time.monotonic() - started < 4


@pytest.mark.slow
@pytest.mark.parametrize("place", ["headers", "body"])
def test_a_server_that_never_ends_its_answer_is_given_up(
    server: Server, question_tree: Path, tmp_path: Path, place: str
) -> None:
    server.drip, server.drips_from = 0.05, place
    started = time.monotonic()
    options = ["--timeout", "0.5", "--retries", "1", "--limit", "2"]
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl", *options)
    assert code == 4
    assert [row.error for row in rows] == ["APITimeoutError: Request timed out."] * 2
    assert len(server.requests) == 4, "a retry each"
    assert time.monotonic() - started < 6


NO_ANSWERS = {
    "null": "null",
    "a list": "[]",
    "an empty object": "{}",
    "a text": '"hello"',
    "nothing": "",
    "a page": "<html>busy</html>",
    "a number of choices": '{"choices":5}',
    "an object of choices": '{"choices":{}}',
    "null choices": '{"choices":null}',
    "a null choice": '{"choices":[null]}',
    "a text for a choice": '{"choices":["A"]}',
    "a null message": '{"choices":[{"message":null}]}',
    "a text for a message": '{"choices":[{"message":"A"}]}',
    "a list for content": '{"choices":[{"message":{"content":["A"]}}]}',
    "a number for content": '{"choices":[{"message":{"content":7}}]}',
    "an object for content": '{"choices":[{"message":{"content":{"text":"A"}}}]}',
    "deep": "[" * 100_000,
    "an error without its status": '{"error":{"message":"no such model"}}',
}


def test_200_without_an_answer_is_recorded_and_asked_again(server: Server, question_tree: Path, tmp_path: Path) -> None:
    kinds = list(NO_ANSWERS)
    for part in range(0, len(kinds), len(TASKS)):
        asked = kinds[part : part + len(TASKS)]
        server.bodies = [NO_ANSWERS[kind].encode() for kind in asked]
        options = ["--limit", str(len(asked)), "--concurrency", "1"]
        code, rows = predict(server, question_tree, tmp_path / f"{part}.jsonl", *options)
        assert (code, len(rows), server.bodies) == (4, len(asked), [])
        assert {row.prediction for row in rows} == {""}
        errors = [row.error or "" for row in rows]
        assert all("the server sent no answer in OpenAI's form" in error for error in errors)
        for kind in asked:
            sent = f"but {NO_ANSWERS[kind][:50]!r}"[:-1]
            assert any(sent in error for error in errors), f"{kind}: it is told what was sent"
    code, rows = predict(server, question_tree, tmp_path / "0.jsonl")
    assert (code, [row.prediction for row in rows]) == (0, TASKS)


@pytest.mark.parametrize("listed", ["null", "[]", '{"data":5}', '{"data":[null]}', '{"data":[{"id":3}]}', "<html>"])
def test_a_list_of_models_in_another_form_says_nothing(
    server: Server, question_tree: Path, tmp_path: Path, listed: str
) -> None:
    server.listed = listed.encode()
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl", "--limit", "1", "--model-name", "only")
    assert (code, rows[0].adapter) == (0, "only")


def test_what_is_beside_an_answer_does_not_matter(server: Server, question_tree: Path, tmp_path: Path) -> None:
    server.body = b'{"choices":[{"finish_reason":5,"message":{"content":"B"}}],"created":"today","usage":[]}'
    _, rows = predict(server, question_tree, tmp_path / "p.jsonl", "--limit", "1")
    assert (rows[0].prediction, rows[0].finish) == ("B", "stop")


def test_a_image_that_is_missing_is_recorded(server: Server, question_tree: Path, tmp_path: Path) -> None:
    (question_tree / "validation-public/Xray/mixed/imagesVal/p0-0.png").unlink()
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl")
    assert code == 4
    assert [bool(row.error) for row in rows] == [True] + [False] * 7
    assert "p0-0.png" in (rows[0].error or "")


def test_a_run_card_that_is_not_there_is_said(
    server: Server, question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(server, question_tree, tmp_path / "p.jsonl", "--adapters", str(tmp_path / "adapters"))
    assert f"{tmp_path / 'adapters' / 'counting'}: no run card there" in capsys.readouterr().err


def test_half_a_character_does_not_end_a_run(server: Server, question_tree: Path, tmp_path: Path) -> None:
    server.answer = lambda _: "cell \ud83d"
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl")
    assert (code, {row.prediction for row in rows}) == (0, {"cell ?"})


def test_a_frame_that_is_stated_later_holds(server: Server, question_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    frames = []
    for options in ([], ["--frame", "pixel"], []):
        _, rows = predict(server, question_tree, out, *options)
        frames.append({row.frame for row in rows})
    questions_asked = len(server.requests)
    assert (frames, questions_asked) == ([{"norm1000"}, {"pixel"}, {"pixel"}], len(rows))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(["--no-router", "--router", "x"], "--no-router and --router", id="two routers"),
        pytest.param(["--model-name", "x"], "give its --endpoint", id="a server's model without a server"),
        pytest.param(["--concurrency", "8"], "--concurrency: for a server; give", id="requests at a time, no server"),
        pytest.param(["--timeout", "9"], "--timeout: for a server; give", id="seconds per attempt, no server"),
        pytest.param(["--retries", "0"], "--retries: for a server; give", id="further attempts, no server"),
        pytest.param(["--images", "data"], "--images: for a server; give", id="ways to send images, no server"),
        pytest.param(["--template-breaks-lines"], "--template-breaks-lines: for", id="a server's template, no server"),
        pytest.param(
            ["--endpoint", "x", "--batch-size", "8"], "--batch-size: for a model in", id="batches at a server"
        ),
        pytest.param(
            ["--endpoint", "x", "--dtype", "auto", "--template", "qwen3_vl", "--quantization", "none"],
            "--quantization, --dtype, --template: for a model in this process",
            id="how a model is loaded, at a server",
        ),
        pytest.param(["--ask-nothing"], "--ask-nothing writes --challenge", id="nothing asked and nothing written"),
        pytest.param(["--challenge", "{out}"], "the same file", id="two formats in one file"),
        pytest.param(["--out", "{file}"], "choose another", id="predictions over questions"),
        pytest.param(["--timeout", "0"], "--timeout", id="no time"),
    ],
)
def test_options_that_cannot_be_followed(
    question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    (file,) = question_tree.rglob("*_val.json")
    before, out = file.read_bytes(), tmp_path / "p.jsonl"
    given = [option.format(out=out, file=file) for option in options]
    try:
        code = main(["predict", "--data", str(question_tree), "--out", str(out), *given])
    except SystemExit as stopped:
        code = stopped.code
    assert (code, file.read_bytes()) == (2, before)
    assert says in capsys.readouterr().err


def test_an_answer_without_text_is_no_answer(server: Server, question_tree: Path, tmp_path: Path) -> None:
    server.answer = lambda _: None
    code, rows = predict(server, question_tree, tmp_path / "p.jsonl", "--limit", "1")
    assert (code, rows[0].error) == (4, "the server sent no text")


def test_requests_run_side_by_side_and_no_more_than_asked_for(
    server: Server, question_tree: Path, tmp_path: Path
) -> None:
    server.delay = 0.05
    predict(server, question_tree, tmp_path / "p.jsonl", "--concurrency", "3")
    assert server.busiest == 3


@pytest.mark.parametrize(
    ("models", "options", "expected"),
    [
        pytest.param(["base", "counting"], ["--model-name", "base"], {"base", "counting"}, id="adapters and the rest"),
        pytest.param(["only"], ["--model-name", "only"], {"only"}, id="one model"),
        pytest.param(None, ["--model-name", "only"], {"only"}, id="a server that does not say"),
        pytest.param(None, [], set(TASKS), id="neither says"),
        pytest.param(["general", "detection"], [], {"general", "detection"}, id="general stands in"),
    ],
)
def test_models_are_found_by_name(
    server: Server,
    question_tree: Path,
    tmp_path: Path,
    models: list[str] | None,
    options: list[str],
    expected: set[str],
) -> None:
    server.models = models
    assert predict(server, question_tree, tmp_path / "p.jsonl", *options)[0] == 0
    assert {request["model"] for request in server.requests} == expected


def test_a_server_without_a_fitting_model_is_refused(
    server: Server, question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.models = ["gpt"]
    assert predict(server, question_tree, tmp_path / "p.jsonl")[0] == 2
    assert "it has gpt" in capsys.readouterr().err


def test_the_key_comes_from_the_environment(
    server: Server,
    question_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.key = "secret"
    assert predict(server, question_tree, tmp_path / "p.jsonl")[0] == 2
    assert "MEDVL_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("MEDVL_API_KEY", "secret")
    assert predict(server, question_tree, tmp_path / "p.jsonl")[0] == 0
    assert b"secret" not in (tmp_path / "p.jsonl").read_bytes()


def test_no_server_is_said_at_once(question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    options = ["--endpoint", url, "--retries", "0", "--out", str(tmp_path / "p.jsonl")]
    assert main(["predict", "--data", str(question_tree), *options]) == 2
    assert "no server answers there" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_stopped_at_once_whatever_is_under_way(server: Server, question_tree: Path, tmp_path: Path) -> None:
    server.delay, started = 8.0, time.monotonic()
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert predict(server, question_tree, tmp_path / "p.jsonl") == (130, [])
    assert time.monotonic() - started < 6


def test_a_stopped_run_hands_nothing_in_unless_told_to(
    server: Server, question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part of predictions.json would look whole. With --ask-nothing it is what the user wants, and said."""
    out, challenge = tmp_path / "p.jsonl", tmp_path / "predictions.json"
    options = ["--concurrency", "1", "--challenge", str(challenge)]
    answers = iter(["A", "B", "C"])

    def stopped(request: dict[str, Any]) -> str:
        try:
            return next(answers)
        except StopIteration:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # until the main thread, which waits, has got it
            return "too late"

    server.answer = stopped
    code, rows = predict(server, question_tree, out, *options)
    assert (code, [row.prediction for row in rows], challenge.exists()) == (130, ["A", "B", "C"], False)
    assert f"{challenge} was not written: that is done" in capsys.readouterr().err

    questions_asked = len(server.requests)
    code, rows = predict(server, question_tree, out, *options, "--ask-nothing")
    said = capsys.readouterr().err
    handed_in = [row["Answer"] for row in json.loads(challenge.read_text())]
    assert (code, len(rows), len(server.requests)) == (4, 3, questions_asked)
    assert sorted(handed_in) == ["", "", "", "", "", "A", "B", "C"]
    assert f"5 questions have no answer, and {challenge} has empty ones for them; the same command without" in said

    server.answer = lambda request: "D"
    code, rows = predict(server, question_tree, out, *options)
    handed_in = [row["Answer"] for row in json.loads(challenge.read_text())]
    assert (code, len(rows), sorted(handed_in)) == (0, 8, ["A", "B", "C", "D", "D", "D", "D", "D"])


def test_a_frame_is_stated_for_what_is_there(server: Server, question_tree: Path, tmp_path: Path) -> None:
    """With --ask-nothing there is a part of the questions, or none of them."""
    out, challenge = tmp_path / "p.jsonl", tmp_path / "predictions.json"
    options = ["--ask-nothing", "--challenge", str(challenge), "--frame", "pixel"]
    assert predict(server, question_tree, out, *options) == (4, [])
    predict(server, question_tree, out, "--limit", "2")
    server.failures = [400]
    predict(server, question_tree, out, "--limit", "3", "--retries", "0")
    code, rows = predict(server, question_tree, out, *options)
    assert (code, [row.frame for row in rows]) == (4, ["pixel", "pixel", "norm1000"]), "a failure has no boxes"
    assert len(json.loads(challenge.read_text())) == 8


def test_answers_to_another_prompt_are_not_handed_in(server: Server, question_tree: Path, tmp_path: Path) -> None:
    out, challenge = tmp_path / "p.jsonl", tmp_path / "predictions.json"
    options = ["--challenge", str(challenge)]
    assert predict(server, question_tree, out, *options)[0] == 0
    before = out.read_bytes()
    (tmp_path / "profiles.yaml").write_text(json.dumps({"counting": {"instruction": "Answer with a number."}}))
    options += ["--profiles", str(tmp_path / "profiles.yaml"), "--ask-nothing"]
    assert predict(server, question_tree, out, *options)[0] == 2
    assert predict(server, question_tree, out, *options, "--redo")[0] == 4
    handed_in = [row["Answer"] for row in json.loads(challenge.read_text())]
    assert (handed_in.count(""), out.read_bytes()) == (1, before)


@pytest.mark.subprocess
def test_killed_at_any_moment_the_file_ends_up_as_if_never_killed(
    server: Server, question_tree: Path, tmp_path: Path
) -> None:
    """The endpoint starts within a second; benchmarks/kill_predict.py does the same with a model in process."""
    folder = question_tree / "validation-public/Xray/mixed"
    rows = json.loads((folder / "mixed_questions_val.json").read_text()) * 15
    (folder / "mixed_questions_val.json").write_text(json.dumps(rows))
    assert predict(server, question_tree, tmp_path / "whole.jsonl")[0] == 0
    server.requests.clear()
    server.delay, out = 0.02, tmp_path / "killed.jsonl"
    command = [sys.executable, "-m", "medvl.cli", "predict", "--data", str(question_tree), "--endpoint", server.url,
               "--concurrency", "2", "--out", str(out)]  # fmt: skip
    for kills in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, deadline = out.stat().st_size if out.exists() else 0, time.monotonic() + 60
        while (out.stat().st_size if out.exists() else 0) < before + 2000 and time.monotonic() < deadline:
            time.sleep(0.005 * (kills + 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert 0 < len(out.read_bytes().splitlines()) < len(rows)
    assert predict(server, question_tree, out)[0] == 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(server.requests) <= len(rows) + 3 * 3, "only what was under way is asked twice"


def test_through_llamafactorys_own_server(
    marked_adapters: Callable[[str], Path], question_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `llamafactory-cli api` serves, in this process."""
    uvicorn = pytest.importorskip("uvicorn")
    app, chat = pytest.importorskip("llamafactory.api.app"), pytest.importorskip("llamafactory.chat")
    marked = marked_adapters("internvl3")
    recipe = {"model_name_or_path": str(marked / "base"), "template": "intern_vl", "default_system": "",
              "adapter_name_or_path": str(marked / "adapters" / "counting"), "finetuning_type": "lora"}  # fmt: skip
    monkeypatch.setenv("API_MODEL_NAME", "counting")
    server = uvicorn.Server(uvicorn.Config(app.create_app(chat.ChatModel(recipe)), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        options = ["--endpoint", f"http://127.0.0.1:{port}/v1", "--model-name", "counting"]
        out = tmp_path / "p.jsonl"
        assert main(["predict", "--data", str(question_tree), "--out", str(out), *options]) == 0
    finally:
        server.should_exit = True
        thread.join(10)
    rows = [msgspec.json.decode(line, type=Row) for line in out.read_bytes().splitlines()]
    assert [row.prediction for row in rows] == ["E"] * 8, "the letter of the adapter that is served"
