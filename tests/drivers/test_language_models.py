"""The clients of OpenAI and Anthropic, unmodified, against a local server; and the page about them."""

import json
import subprocess
import sys

import pytest

anthropic = pytest.importorskip("anthropic", reason="anthropic is not installed")
openai = pytest.importorskip("openai", reason="openai is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from tests.test_documentation import DOCS, blocks  # noqa: E402
from vthreads import Barrier, Event, Queue, ThreadGroup, serve  # noqa: E402

pytestmark = pytest.mark.real

WORDS = [f"word {number} " for number in range(5)]


class Service:
    """Streams answers in the format that the path asks for.

    Those of the model "hang" never end. Those of the model "together" go on when 200 of them are under way.
    """

    def __init__(self):
        self.hanging = Queue()
        self.together = Barrier(200)

    def __call__(self, environ, start_response):
        request = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return self.answer(request["model"], environ["PATH_INFO"].endswith("/chat/completions"))

    def answer(self, model, is_chat):
        for word in WORDS:
            yield event(word, is_chat)
            if model == "together" and word == WORDS[0]:
                self.together.wait()
            if model == "hang":
                self.hanging.put(None)
                Event().wait()
        if is_chat:
            yield b"data: [DONE]\n\n"


def event(word, is_chat):
    if is_chat:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n".encode()
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    return f"event: content_block_delta\ndata: {json.dumps(delta)}\n\n".encode()


def openai_at(url):
    client = openai.OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0)

    def ask(model):
        messages = [{"role": "user", "content": "why?"}]
        with client.chat.completions.create(model=model, messages=messages, stream=True) as stream:
            return [chunk.choices[0].delta.content for chunk in stream]

    return client, ask


def anthropic_at(url):
    client = anthropic.Anthropic(api_key="none", base_url=url, max_retries=0)

    def ask(model):
        messages = [{"role": "user", "content": "why?"}]
        with client.messages.create(model=model, max_tokens=9, messages=messages, stream=True) as stream:
            return [event.delta.text for event in stream if event.type == "content_block_delta"]

    return client, ask


@pytest.fixture(params=[openai_at, anthropic_at], ids=["openai", "anthropic"])
def client_at(request):
    return request.param


def on_service(client_at, program):
    """Run `program(service, ask)` on virtual threads beside a service."""

    def root():
        service, ready = Service(), Queue()
        with vthreads.fail_after(120), ThreadGroup() as group:
            group.spawn(serve.wsgi, service, "127.0.0.1", 0, ready=ready.put)
            server = ready.get()
            client, ask = client_at("http://{}:{}".format(*server.addresses[0]))
            with client:
                result = program(service, ask)
            server.stop()
        return result

    return vthreads.run(root)


def test_400_streamed_answers_200_at_a_time(client_at):
    def program(service, ask):
        return list(vthreads.map(ask, ["together"] * 400, max_concurrency=200))

    assert [WORDS] * 400 == on_service(client_at, program)


def test_a_cancelled_answer_ends_at_the_service_and_the_client_goes_on(client_at):
    def program(service, ask):
        for _ in range(3):
            with ThreadGroup() as group:
                for _ in range(20):
                    group.spawn(ask, "hang")
                for _ in range(20):
                    service.hanging.get()
                group.cancel()
        return list(vthreads.map(ask, ["fast"] * 40, max_concurrency=40))

    assert [WORDS] * 40 == on_service(client_at, program)


def test_the_python_of_the_page_runs(tmp_path):
    (tmp_path / "program.py").write_text(blocks(DOCS / "how-to" / "language-models.md"))
    command = [sys.executable, "program.py"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert (0, "") == (ended.returncode, ended.stderr)
