"""A real server on loopback, with adapters that each say one letter: who answered can be read in every answer."""

import base64
import concurrent.futures
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image, PngImagePlugin

pytest.importorskip("llamafactory")
import uvicorn

from medvl import cli
from medvl.instructions import Instruction
from medvl.predict.backends import in_process
from medvl.predict.batching import Batches
from medvl.predict.setup import ModelOptions
from medvl.profiles import Profiles, read_profiles
from medvl.router.chain import load_router
from medvl.serve.application import Access, create_application
from medvl.serve.choice import PROFILES, Chooser
from medvl.serve.engine import Engine
from medvl.serve.limits import Limits
from tests.support.questions import QUESTIONS

pytestmark = pytest.mark.training

LETTERS = dict(zip(PROFILES, "ABCDEFGIH", strict=True))
OF_THE_TREE = [name for name in PROFILES if name != "vqa"]  # whose questions the tree of questions asks, in its order
COMPLETIONS = "/v1/chat/completions"


@dataclass(frozen=True)
class Running:
    """A server under test. Clients verify nothing: loading certificates takes longer than most answers."""

    url: str
    engine: Engine
    chooser: Chooser

    def post(
        self, content: Any, timeout: float = 30, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": content}], **fields}
        return httpx.post(self.url + COMPLETIONS, json=body, timeout=timeout, headers=headers, verify=False)

    def ask(self, content: Any, **fields: Any) -> str:
        answer = self.post(content, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def stream(self, content: Any, **fields: Any) -> contextlib.AbstractContextManager[httpx.Response]:
        body = {"messages": [{"role": "user", "content": content}], "stream": True, **fields}
        return httpx.stream("POST", self.url + COMPLETIONS, json=body, timeout=30, verify=False)

    def streamed(self, content: Any, **fields: Any) -> tuple[str, str | None, httpx.Headers]:
        """The text, why it ended, and the headers."""
        with self.stream(content, **fields) as answer:
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        assert events.pop() == "[DONE]"
        choices = [json.loads(event)["choices"][0] for event in events]
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        return text, choices[-1].get("finish_reason"), answer.headers

    def wait_for(self, waiting: int, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while self.engine.waiting < waiting:
            assert time.monotonic() < deadline, "nothing waits"
            time.sleep(0.01)

    def wait_until_idle(self, seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while self.engine.waiting:
            assert time.monotonic() < deadline, "still generating"
            time.sleep(0.01)


@contextlib.contextmanager
def serving(
    folder: Path | None,
    *,
    adapter: Path | None = None,
    limits: Limits | None = None,
    access: Access | None = None,
    profiles: Profiles | None = None,
) -> Iterator[Running]:
    """A server for the adapters in `folder`, or for one adapter with a run card; stopped at the end."""
    profiles = profiles or read_profiles(None)
    wanted, adapters = (ModelOptions(str(folder / "base")), folder / "adapters") if folder else (ModelOptions(), None)
    backend_spec = in_process([profiles[name] for name in PROFILES], wanted, adapters, adapter)
    backend = backend_spec.start()
    assert isinstance(backend, Batches)
    limits = limits or Limits()
    engine = Engine(backend.loaded)
    chooser = Chooser(profiles, backend_spec.serves, load_router(None))
    application = create_application(engine, chooser, limits, access or Access())
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", engine, chooser)
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def qwen(marked_adapters: Callable[[str], Path]) -> Iterator[Running]:
    with serving(marked_adapters("qwen3vl")) as running:
        yield running


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters that say their letter as long as they may."""
    from medvl.demo.adapters import build_marked

    return build_marked("qwen3vl", tmp_path_factory.mktemp("endless"), LETTERS, endless=True)


@pytest.fixture(scope="module")
def talking(endless: Path) -> Iterator[Running]:
    with serving(endless) as running:
        yield running


def png(size: tuple[int, int] = (64, 64)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, "navy").save(buffer, "PNG")
    return data_url(buffer.getvalue())


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shown(question: str, *images: str) -> list[dict[str, Any]]:
    addresses = images or (png(),)
    return [
        *({"type": "image_url", "image_url": {"url": url}} for url in addresses),
        {"type": "text", "text": question},
    ]


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
def test_every_task_is_answered_by_its_own_adapter(family: str, marked_adapters: Callable[[str], Path]) -> None:
    with serving(marked_adapters(family)) as server:
        for task, question in zip(OF_THE_TREE, QUESTIONS.values(), strict=True):
            answer = server.post(shown(question), model="auto")
            assert answer.json()["choices"][0]["message"]["content"] == LETTERS[task], question
            assert answer.headers["x-medvl-task"] == answer.headers["x-medvl-adapter"] == task
            text, finish, headers = server.streamed(shown(question))
            assert (text, finish, headers["x-medvl-task"]) == (LETTERS[task], "stop", task)


def test_medvl_predict_asks_it_for_the_adapter_of_each_task(
    qwen: Running, question_tree: Path, tmp_path: Path, marked_adapters: Callable[[str], Path]
) -> None:
    adapters = str(marked_adapters("qwen3vl") / "adapters")
    options = ["--data", str(question_tree), "--adapters", adapters, "--out", str(tmp_path / "out.jsonl")]
    assert cli.main(["predict", *options, "--endpoint", f"{qwen.url}/v1"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {row["task"]: row["prediction"] for row in rows} == {task: LETTERS[task] for task in OF_THE_TREE}
    assert all(row["adapter"] == row["task"] for row in rows)


def test_headers_tell_who_answered_and_how_sure_the_router_is(qwen: Running) -> None:
    route = qwen.chooser.router.route([QUESTIONS["counting"]])[0]  # type: ignore[union-attr]
    headers = qwen.post(QUESTIONS["counting"]).headers
    assert headers["x-medvl-source"] == route.source == "rules"
    assert headers["x-medvl-confidence"] == f"{route.confidence:.4f}"
    assert headers["x-medvl-profile"] == "counting"


def test_answers_below_the_profiles_confidence_come_from_general(
    tmp_path: Path, marked_adapters: Callable[[str], Path]
) -> None:
    (tmp_path / "profiles.yaml").write_text("counting:\n  min_confidence: 1.0\n")
    with serving(marked_adapters("qwen3vl"), profiles=read_profiles(tmp_path / "profiles.yaml")) as server:
        answer = server.post(QUESTIONS["counting"])
        assert answer.json()["choices"][0]["message"]["content"] == LETTERS["general"]
        assert (answer.headers["x-medvl-task"], answer.headers["x-medvl-profile"]) == ("counting", "general")


def test_a_named_model_wins_over_the_router(qwen: Running) -> None:
    for name, letter in LETTERS.items():
        answer = qwen.post(QUESTIONS["counting"], model=name)
        assert answer.json()["choices"][0]["message"]["content"] == letter
        assert (answer.headers["x-medvl-source"], answer.headers["x-medvl-confidence"]) == ("client", "1.0000")
        assert answer.json()["model"] == name
    assert qwen.ask(QUESTIONS["counting"], model="Multi-label Classification") == "B"
    refused = qwen.post("How many?", model="gpt-4o")
    assert refused.status_code == 404
    assert "no model 'gpt-4o'; there are: auto, classification" in refused.json()["error"]["message"]


def test_only_the_last_user_turn_is_routed(qwen: Running) -> None:
    def talk(*questions: str) -> httpx.Headers:
        turns = [turn for question in questions for turn in (question, "An answer.")][:-1]
        messages = [{"role": "assistant" if place % 2 else "user", "content": turn} for place, turn in enumerate(turns)]
        return httpx.post(qwen.url + COMPLETIONS, json={"messages": messages}).headers

    assert talk(QUESTIONS["poetry"], QUESTIONS["counting"])["x-medvl-task"] == "counting"
    assert talk(QUESTIONS["counting"], QUESTIONS["poetry"])["x-medvl-task"] == "general"


def test_models_and_health(qwen: Running) -> None:
    models = [model["id"] for model in httpx.get(qwen.url + "/v1/models").json()["data"]]
    assert models == ["auto", *PROFILES]
    assert httpx.get(qwen.url + "/health").json() == {"status": "ok", "waiting": 0, "router_failures": 0}


def test_router_that_fails_sends_to_general_and_is_counted(
    marked_adapters: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvl.router.chain.match_rules", lambda text: 1 / 0)
    with serving(marked_adapters("qwen3vl")) as server:
        answer = server.post(QUESTIONS["counting"])
        assert answer.json()["choices"][0]["message"]["content"] == LETTERS["general"]
        assert (answer.headers["x-medvl-task"], answer.headers["x-medvl-source"]) == ("general", "error")
        assert httpx.get(server.url + "/health").json()["router_failures"] == 1


def test_concurrent_requests_never_meet_each_others_adapter(talking: Running) -> None:
    """Streams and whole answers to all tasks at once: one letter of another adapter would show."""
    names = 2 * [*PROFILES]  # nine: each is asked once for a stream, once for a whole answer

    def ask(place: int) -> tuple[str, str]:
        name, fields = names[place], {"model": names[place], "max_tokens": 12}
        if place % 2:
            return name, talking.streamed(shown("?"), **fields)[0]
        return name, talking.ask(shown("?"), **fields)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(len(names))))
    assert answers == [(name, LETTERS[name] * 12) for name in names]


def test_length_is_told_where_an_answer_was_cut(talking: Running) -> None:
    answer = talking.post("?", max_tokens=3, model="counting").json()
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "EEE"},
        "finish_reason": "length",
    }
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 3
    assert talking.streamed("?", max_tokens=3, model="counting")[:2] == ("EEE", "length")


def test_profile_limits_answers_unless_the_client_does(talking: Running) -> None:
    longest = talking.chooser.profiles["counting"].generation.max_new_tokens
    assert talking.ask("?", model="counting") == "E" * longest
    assert talking.ask("?", model="counting", max_completion_tokens=longest + 2) == "E" * (longest + 2)


def test_client_that_hangs_up_ends_its_generation(talking: Running) -> None:
    """And the next request meets its own adapter, though the last one was still being answered."""
    with talking.stream("?", model="report_generation", max_tokens=3000) as answer:
        next(answer.iter_lines())
    assert talking.ask("?", model="counting", max_tokens=4) == "EEEE"
    with pytest.raises(httpx.ReadTimeout):
        talking.post("?", model="report_generation", max_tokens=3000, timeout=0.3)
    talking.wait_until_idle()
    assert talking.ask("?", model="detection", max_tokens=4) == "CCCC"


def test_client_that_hangs_up_while_it_sends_is_no_error_of_the_server(
    qwen: Running, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = qwen.url.removeprefix("http://").split(":")
    with caplog.at_level("INFO"), socket.create_connection((host, int(port))) as client:
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 99\r\n\r\n{{".encode())
        time.sleep(0.2)  # until the server waits for the rest
        client.close()
        time.sleep(0.3)
        assert qwen.ask("How many cells?", model="counting") == LETTERS["counting"]
    assert "Traceback" not in caplog.text


def test_full_queue_asks_to_come_back(endless: Path) -> None:
    with serving(endless, limits=Limits(unfinished=1)) as server:
        with server.stream("?", max_tokens=3000) as answer:
            lines = answer.iter_lines()
            next(lines)
            refused = server.post("?")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            lines.close()
        server.wait_until_idle()
        assert server.post("?", max_tokens=1).status_code == 200


def test_server_stops_in_time_whatever_it_is_saying(endless: Path) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(endless))
        lines = stack.enter_context(server.stream("?", max_tokens=3000)).iter_lines()
        next(lines)
        started = time.monotonic()
        stack.pop_all().__exit__(None, None, None)
    assert time.monotonic() - started < 5
    assert server.engine.waiting == 0


FAILURES = {
    "a bug": (RuntimeError("question of patient X"), 500, "could not be generated (RuntimeError)"),
    "no memory": (torch.OutOfMemoryError("CUDA out of memory"), 413, "no memory for this request"),
}


@pytest.mark.parametrize(("error", "status", "says"), FAILURES.values(), ids=FAILURES)
def test_failed_generation_is_said_and_the_next_one_works(
    error: Exception, status: int, says: str, talking: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(talking.engine.loaded, "generate", fail)
        answer = talking.post("?")
        assert (answer.status_code, says in answer.text, "patient" in answer.text) == (status, True, False)
        with talking.stream("?") as streamed:
            events = [line for line in streamed.iter_lines() if line.startswith("data: ")]
        assert says in events[-1] and "[DONE]" not in events[-1] and "patient" not in events[-1]
    assert talking.ask("?", model="counting", max_tokens=2) == "EE"


def test_greedy_unless_asked_otherwise(qwen: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    generate = qwen.engine.loaded.generate

    def spy(batch: Any, adapter: Any, generation: Any, **more: Any) -> Any:
        seen.append((generation.do_sample, generation.temperature, generation.max_new_tokens))
        return generate(batch, adapter, generation, **more)

    monkeypatch.setattr(qwen.engine.loaded, "generate", spy)
    qwen.ask("?", model="counting")
    qwen.ask("?", model="counting", temperature=0.5, max_tokens=7)
    assert [(drawn, longest) for drawn, _, longest in seen] == [(False, 32), (True, 7)]
    assert seen[1][1] == 0.5


def test_profile_and_client_decide_how_the_model_is_asked(
    marked_adapters: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "counting:\n  system: Be exact.\n  instruction: A number.\n  image_max_pixels: 1024\n"
    (tmp_path / "profiles.yaml").write_text(text)
    profiles = read_profiles(tmp_path / "profiles.yaml")
    assert profiles["counting"].instruction == Instruction("A number.", "suffix")
    with serving(marked_adapters("qwen3vl"), profiles=profiles) as server:
        seen = []
        loaded = server.engine.loaded
        encode = loaded.encode_turns

        def spy(turns: Any, images: Any, system: Any, budget: Any) -> Any:
            encoded = encode(turns, images, system, budget)
            seen.append((loaded.tokenizer.decode(encoded.tokens), budget.image_max_pixels))
            return encoded

        monkeypatch.setattr(loaded, "encode_turns", spy)
        server.ask(shown("How many?", png((320, 320))), model="counting")
        server.ask(shown("How many?", png((320, 320))), model="general")
        system = {"role": "system", "content": "Be kind."}
        messages = [system, {"role": "user", "content": "How many? A number."}]
        httpx.post(server.url + COMPLETIONS, json={"messages": messages, "model": "counting"}).raise_for_status()
    asked, general, client = (prompt for prompt, _ in seen)
    assert "system\nBe exact.<|im_end|>" in asked and "<|vision_end|>\nHow many?\nA number.<|im_end|>" in asked
    assert "system" not in general and general.count("<|image_pad|>") > asked.count("<|image_pad|>")
    assert "system\nBe kind.<|im_end|>" in client and client.count("A number.") == 1
    assert [pixels for _, pixels in seen] == [1024, 768 * 768, 1024]


def test_prompt_that_the_model_cannot_read_is_refused(qwen: Running) -> None:
    for stream in (False, True):
        refused = qwen.post("cell " * 5000, stream=stream)
        assert refused.status_code == 400
        assert "the model reads 4096" in refused.json()["error"]["message"]


def test_images_are_limited(marked_adapters: Callable[[str], Path]) -> None:
    limits = Limits(body_bytes=20_000, image_pixels=100 * 100, pixels=9000, images=1)
    with serving(marked_adapters("qwen3vl"), limits=limits) as server:
        assert server.post(shown("?")).status_code == 200
        cases = {
            "file:///etc/passwd": (403, "reads no files"),
            "/etc/passwd": (403, "reads no files"),
            "http://127.0.0.1:1/": (403, "fetches nothing"),
            "data:image/png;base64,AAAA": (400, "no known format"),
            png((101, 100)): (413, "101 x 100 pixels"),
            png((91, 100)): (413, "9,000 pixels together"),
        }
        for url, (status, says) in cases.items():
            for stream in (False, True):
                answer = server.post(shown("?", url), stream=stream)
                assert (answer.status_code, says in answer.json()["error"]["message"]) == (status, True)
        large = server.post("x" * 20_001)
        assert (large.status_code, "larger than" in large.text) == (413, True)


def test_bodies_are_limited(marked_adapters: Callable[[str], Path]) -> None:
    def unsized() -> Iterator[bytes]:
        yield from [b" " * 1000] * 30

    def slow() -> Iterator[bytes]:
        for _ in range(20):
            yield b" "
            time.sleep(0.05)

    with serving(marked_adapters("qwen3vl"), limits=Limits(body_bytes=20_000, body_seconds=0.3)) as server:
        url = server.url + COMPLETIONS
        for content, status in ((unsized(), 413), (slow(), 408), (b"{", 422)):
            answer = httpx.post(url, content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == status
        # What a web page can send to another server without being asked first.
        assert httpx.post(url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
        assert server.ask("How many?", model="counting") == LETTERS["counting"]


@contextlib.contextmanager
def stalled(server: Running, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Connections that send the first byte of a body and stop."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            address = (host, int(port))
            clients.append(stack.enter_context(socket.create_connection(address, source_address=(source, 0))))
            clients[-1].sendall(f"{head}{{".encode())
        time.sleep(0.2)  # until the server waits for the rest
        yield clients


def test_clients_that_stop_sending_keep_nobody_out(qwen: Running) -> None:
    with stalled(qwen, 2 * Limits().unfinished):
        for _ in range(3):
            assert qwen.post("How many?", model="counting").status_code == 200


@pytest.mark.parametrize("drip", [b"", b" "], ids=["silent", "dripping"])
def test_clients_that_stop_sending_are_told_and_hung_up_on(marked_adapters: Callable[[str], Path], drip: bytes) -> None:
    limits = Limits(body_seconds=0.6, silence_seconds=0.3)
    with serving(marked_adapters("qwen3vl"), limits=limits) as server, stalled(server, 3) as clients:
        for client in clients:
            client.settimeout(5)
            heard = b""
            with contextlib.suppress(ConnectionError):  # closed while this client was still sending
                while piece := client.recv(4096):  # until the server closes it
                    heard += piece
                    client.sendall(drip)
            assert heard.startswith(b"HTTP/1.1 408") and b"did not arrive within" in heard


def test_a_client_with_many_connections_crowds_out_its_own(marked_adapters: Callable[[str], Path]) -> None:
    """Of another client's bodies on their way none is given up for them, though it was silent longer."""
    limits = Limits(unfinished=4)
    with (
        serving(marked_adapters("qwen3vl"), limits=limits) as server,
        stalled(server, 1, "127.0.0.2") as (slow,),
        stalled(server, 12),
    ):
        slow.sendall(b" " * 98)
        slow.settimeout(5)
        assert b"422" in slow.recv(4096)  # it arrived: an opened brace is no JSON


def test_images_are_decoded_one_request_after_the_other(endless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bool] = []
    load = PngImagePlugin.PngImageFile.load

    def counted(image: Any) -> Any:
        decoded.append(True)
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", counted)
    with serving(endless) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        with server.stream("?", max_tokens=3000) as answer:
            lines = answer.iter_lines()  # kept: its end would close the answer
            next(lines)
            waiting = [pool.submit(server.post, shown("?"), model="counting", max_tokens=2) for _ in range(4)]
            broken = pool.submit(server.post, shown("?", data_url(base64.b64decode(png()[22:])[:90])))
            server.wait_for(5)
            assert not decoded
        assert {item.result().status_code for item in waiting} == {200}
        assert (broken.result().status_code, "cannot be decoded" in broken.result().text) == (400, True)


def test_client_that_hangs_up_while_it_waits_frees_its_place(endless: Path) -> None:
    with serving(endless, limits=Limits(unfinished=2)) as server, server.stream("?", max_tokens=3000) as answer:
        lines = answer.iter_lines()
        next(lines)
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                server.post("?", timeout=0.5)
            time.sleep(0.2)
            assert server.engine.waiting == 1


def test_requests_that_wait_share_memory(endless: Path) -> None:
    with serving(endless, limits=Limits(body_bytes=20_000, unfinished_bytes=30_000)) as server:
        with server.stream("?", max_tokens=3000) as answer, concurrent.futures.ThreadPoolExecutor(1) as pool:
            lines = answer.iter_lines()  # kept: its end would close the answer
            next(lines)
            waits = pool.submit(server.post, "x" * 15_000, max_tokens=1)
            server.wait_for(2)
            refused = server.post("x" * 19_000)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            answer.close()
            assert waits.result().status_code == 400  # longer than the model reads: told when its turn came
        assert server.post("x" * 19_000, max_tokens=1).status_code == 400


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
def test_control_tokens_of_the_model_are_refused(family: str, marked_adapters: Callable[[str], Path]) -> None:
    with serving(marked_adapters(family)) as server:
        assert set(server.engine.loaded.tokenizer.all_special_tokens) <= server.engine.control_tokens
        for place, token in enumerate(sorted(server.engine.control_tokens)):
            refused = server.post(shown(f"Is {token} red?"), stream=place % 2 == 1)
            assert (refused.status_code, token in refused.json()["error"]["message"]) == (400, True), token


EXTREMES: dict[str, list[Any]] = {
    "temperature": [1e-6, 2],
    "top_p": [1e-6, 1],
    "top_k": [1, 1_000_000],
    "repetition_penalty": [0.1, 10],
}


@pytest.mark.parametrize("name", EXTREMES)
def test_the_most_extreme_numbers_that_are_followed_give_answers(qwen: Running, name: str) -> None:
    for value in EXTREMES[name]:
        answer = qwen.post("How many?", model="counting", do_sample=True, max_tokens=4, **dict[str, Any]({name: value}))
        assert answer.status_code == 200, (value, answer.text)


def test_api_key(marked_adapters: Callable[[str], Path]) -> None:
    wrong: list[dict[str, Any]] = [{}, *({"Authorization": words} for words in ("Bearer wrong", "Basic secret"))]
    with serving(marked_adapters("qwen3vl"), access=Access("secret", frozenset())) as server:
        for headers in (*wrong, {"Authorization": "Bearer sécret".encode()}):
            for method, path in (("POST", COMPLETIONS), ("GET", "/v1/models")):
                refused = httpx.request(method, server.url + path, headers=headers)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
                assert "API key" in refused.json()["error"]["message"]
        assert server.post("?", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert httpx.get(server.url + "/health").status_code == 200


def test_web_pages_cannot_ask_through_a_name_of_their_own(marked_adapters: Callable[[str], Path]) -> None:
    access = Access(None, frozenset({"127.0.0.1", "localhost", "::1"}))
    with serving(marked_adapters("qwen3vl"), access=access) as server:
        port = server.url.rpartition(":")[2]
        for host, status in (("evil.example", 403), ("localhost", 200), ("[::1]", 200), ("[", 403)):
            assert server.post("?", headers={"Host": f"{host}:{port}"}).status_code == status, host
        preflight = httpx.options(server.url + COMPLETIONS, headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
def test_served_answers_are_those_of_do_predict(
    family: str, tiny_recipe: Callable[..., dict[str, Any]], tiny_dataset: Path, tmp_path: Path
) -> None:
    """Prompt, images and image positions: the run card of the adapter is all that the server is told."""
    from llamafactory.train.tuner import run_exp

    adapter, predicted = tmp_path / "adapter", tmp_path / "predicted"
    run_exp(tiny_recipe(family, output_dir=str(adapter), medvl_run_card=True, max_steps=4, learning_rate=0.01))
    predict = {"do_train": False, "do_predict": True, "predict_with_generate": True, "eval_dataset": "tiny_val"}
    predict |= {"dataset": None, "max_new_tokens": 8, "do_sample": False}
    predict |= {"adapter_name_or_path": str(adapter), "output_dir": str(predicted), "medvl_image_positions": True}
    run_exp(tiny_recipe(family, **predict, per_device_eval_batch_size=1))
    lines = (predicted / "generated_predictions.jsonl").read_text().splitlines()
    expected = [json.loads(line)["predict"] for line in lines]
    with serving(None, adapter=adapter) as server:
        for record, answer in zip(json.loads((tiny_dataset / "tiny_val.json").read_text()), expected, strict=True):
            question = record["conversations"][0]["value"].rpartition("<image>\n")[2]
            images = [
                f"data:image/png;base64,{base64.b64encode(Path(image).read_bytes()).decode()}"
                for image in record["images"]
            ]
            assert server.ask(shown(question, *images), max_tokens=8) == answer
            assert server.streamed(shown(question, *images), max_tokens=8)[0] == answer
    assert len(set(expected)) > 1, expected
