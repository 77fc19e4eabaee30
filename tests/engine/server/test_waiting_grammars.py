"""Over HTTP: requests whose grammars are not compiled yet wait, and nobody waits with them."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from engine.structured_output import GrammarCompiler
from tests.engine.server.serving import PATIENCE_S, serving
from tests.engine.server.test_bad_input import check_error
from workbench.structured_outputs_params import StructuredOutputsParams

SLOW = "a+"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The grammar SLOW compiles once it is set."""
    opened, compile_form = threading.Event(), GrammarCompiler._compile

    def compile_late(compiler: GrammarCompiler, form: StructuredOutputsParams) -> Any:
        assert form.regex != SLOW or opened.wait(PATIENCE_S)
        return compile_form(compiler, form)

    monkeypatch.setattr(GrammarCompiler, "_compile", compile_late)
    yield opened
    opened.set()


def asked(regex: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": "«aaa»", "guided_regex": regex, "max_tokens": 3} | fields


@pytest.mark.parametrize("stream", [False, True])
def test_who_waits_for_a_grammar_is_counted_and_may_leave(
    gate: threading.Event, stream: bool
) -> None:
    with serving() as server:
        waiting = server.open("/v1/completions", asked(SLOW, stream=stream, n=2))
        server.wait_for(lambda: server.state.num_waiting == 2)
        load = server.get("/load")[1]
        assert (load["num_running"], load["num_waiting"]) == (0, 2)
        # it takes no place of the others, of whatever form
        assert server.state.has_room(0)
        for body in ({"prompt": "«b»"}, asked("[ab]+")):
            status, answer = server.post("/v1/completions", body)
            assert (status, server.state.num_waiting) == (200, 2)
        check_error(*server.post("/v1/completions", asked("(", stream=stream, n=2)))
        waiting.close()
        server.wait_for(lambda: server.state.num_waiting == 0)
        assert server.on_loop(server.llm.call("check_integrity"))["requests"] == 0
        gate.set()
        status, answer = server.post("/v1/completions", asked(SLOW))
        assert (status, answer["choices"][0]["text"]) == (200, "aaa")


def test_a_server_drains_what_waits_for_a_grammar(gate: threading.Event) -> None:
    with serving() as server:
        waiting = server.open("/v1/completions", asked(SLOW, stream=True))
        server.wait_for(lambda: server.state.num_waiting == 1)
        server.request_stop()
        server.wait_for(lambda: server.state.is_draining)
        gate.set()
        data = waiting.recv(65536)
        while more := waiting.recv(65536):
            data += more
        assert data.startswith(b"HTTP/1.1 200")
        assert b"[DONE]" in data
